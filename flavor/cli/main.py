"""The program `flavor`. The command `flavor NAME` is the function NAME of `flavor/cli/NAME.py`.

Programs of their own have a module each as well: `flavor_fl`, `flavor_fv`, `flavor_agg`, `check_fl`, `check_fv` and
`check_agg`.

Subcommands are imported when they are named, so that `flavor event set` costs what it needs.
"""

from __future__ import annotations

import importlib

import click
from click.shell_completion import CompletionItem

from flavor.cli.help import ExampleGroup
from flavor.cli.options import version_option
from flavor.cli.program import run_program
from flavor.cli.secrets import keep_private
from flavor.exit_codes import OF_RUNS, exit_codes_line

COMMANDS = {
    "For researchers": {
        "demo": "Federate handwritten digits over three sites on this machine.",
        "run": "Run a whole federation with your own training script on this machine.",
        "status": "Show all runs, or one run with its round and its sites.",
        "ui": "Show runs in a browser, live.",
        "log": "Show every event of a run with its reason.",
        "evaluate": "Have sites judge a model now.",
        "results": "Show what sites have measured of a global model.",
        "contributions": "Show which site helps a run, and which one hurts.",
        "get": "Write a global model of a run into a file.",
        "export": "Write the metrics of a run to TensorBoard, MLflow, tables or JSON.",
        "credits": "Show how many examples each client has put into a run.",
        "verify": "Check the history of a run in the object store.",
        "aggregators": "List the rules that --aggregator and --server-step take.",
    },
    "For operators": {
        "serve": "Coordinate a run: wait for clients, open rounds and close them.",
        "resume": "Go on with a run that has failed or was stopped.",
        "extend": "Have more rounds in a run that has finished.",
        "stop": "Stop a run.",
        "rm": "Remove an ended run from Redis.",
        "pardon": "End the quarantine of a client.",
        "enroll": "Let a client take part in a run, and print its join token.",
        "revoke": "Cut a client off from a run, or an aggregator off from the server.",
        "metrics": "Give the state of all runs to Prometheus.",
        "recover": "Rebuild a run on Redis from the object store.",
        "store": "Print what a bucket must allow a site.",
        "certs": "Make certificates to try TLS with.",
    },
    "For sites, in training scripts of any language": {
        "event": "Set events and wait for events.",
        "time-left": "Print the seconds to the deadline of the round.",
        "info": "Save client information.",
        "report": "Tell how far this round's training is.",
    },
}
"""The commands by their users, with the line of each in `flavor --help`."""
PROGRAMS = {
    "flavor-fl": "Take part in a run with your own training script, at a site.",
    "flavor-fv": "Judge the models of a run with a site's data, and train nothing.",
    "flavor-agg": "Aggregate the rounds of all runs, as an operator.",
    "check-fl": "Check a training script before it takes part in a run.",
    "check-fv": "Check a command that judges models before it takes part in a run.",
    "check-agg": "Check your own aggregator together with a training script.",
}
"""The other programs, which `flavor --help` lists as well."""
_NAMES = {name: text for listed in COMMANDS.values() for name, text in listed.items()}


class LazyGroup(ExampleGroup):
    """A group that imports a command when it is used. Help and completion of the group import no command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the help."""
        return list(_NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of this name."""
        if cmd_name not in _NAMES:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"flavor.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by their users."""
        width = max(map(len, (*_NAMES, *PROGRAMS)))
        for title, listed in {**COMMANDS, "Programs of their own": PROGRAMS}.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in listed.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, or the options of `flavor` itself."""
        found = [CompletionItem(name, help=text) for name, text in _NAMES.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


@click.command(
    cls=LazyGroup,
    example='flavor demo\nflavor run -m "python main.py" --edges 3 --rounds 5',
    epilog=f"{exit_codes_line(OF_RUNS)} docs/commands.md has more on exit codes, and how a shell completes commands.",
)
@version_option
def cli() -> None:
    """Federated learning for training scripts that already exist."""


def main() -> None:
    """Entry point."""
    keep_private()
    run_program(cli, "flavor")


if __name__ == "__main__":
    main()
