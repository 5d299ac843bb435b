"""`flavor`: the command of operators and researchers.

Subcommands are imported when they are named, so that `flavor event set` costs what it needs.
"""

from __future__ import annotations

import importlib

import click

from flavor.cli.options import version_option
from flavor.cli.program import run_program
from flavor.cli.secrets import keep_private
from flavor.exit_codes import OF_RUNS, exit_codes_line

_COMMANDS = {
    "demo": ("flavor.cli.demo", "demo", "Federate handwritten digits over three sites, on this machine."),
    "run": ("flavor.cli.run", "run", "Run a whole federation on this machine, for a script of your own."),
    "serve": ("flavor.cli.serve", "serve", "Coordinate a run."),
    "resume": ("flavor.cli.resume", "resume", "Go on with a run that has failed or was stopped."),
    "aggregators": (
        "flavor.cli.aggregators",
        "aggregators",
        "List the rules that --aggregator and --server-step take.",
    ),
    "status": ("flavor.cli.status", "status", "Show all runs, or one with its round and its sites."),
    "log": ("flavor.cli.log", "log", "Show every transition of a run with its reason."),
    "get": ("flavor.cli.get", "get", "Write a global model of a run into a file."),
    "credits": ("flavor.cli.credits", "show_credits", "Show how many samples each client has put into a run."),
    "stop": ("flavor.cli.stop", "stop", "Stop a run."),
    "pardon": ("flavor.cli.pardon", "pardon", "End the quarantine of a client."),
    "rm": ("flavor.cli.rm", "rm", "Forget an ended run."),
    "enroll": ("flavor.cli.enroll", "enroll", "Let a client take part in a run, and print its join token."),
    "revoke": ("flavor.cli.revoke", "revoke", "Cut a client off."),
    "store": ("flavor.cli.store", "store", "Print what a bucket must allow a site."),
    "certs": ("flavor.cli.certs", "certs", "Make certificates to try TLS with."),
    "verify": ("flavor.cli.verify", "verify", "Check a run's history, from the object store alone."),
    "recover": ("flavor.cli.recover", "recover", "Rebuild a run on Redis from the object store."),
    "event": ("flavor.cli.event", "event", "Set and wait for events, from a script in any language."),
    "info": ("flavor.cli.info", "info", "Save client information, from a script in any language."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used; its help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order one meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of this name."""
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    epilog="A site takes part with `flavor-fl`, an aggregator runs with `flavor-agg`, a script is tried with "
    f"`check-fl`. {exit_codes_line(OF_RUNS)}",
)
@version_option
def cli() -> None:
    """Federated learning for training scripts that already exist.

    Try `flavor demo`; then `flavor run -m "python main.py" --edges 3 --rounds 5` with a script of your own.
    """


def main() -> None:
    """Entry point."""
    keep_private()
    run_program(cli, "flavor")


if __name__ == "__main__":
    main()
