"""`--help` of all commands: examples first, then options in groups. A wrong option is answered with the one meant."""

from __future__ import annotations

import re
from typing import Any

import click

from flavor.option_groups import Group

_GROUPS: dict[Group, tuple[str, ...]] = {
    Group.SCRIPT: (
        *("main_command", "preprocess_command", "client_command", "aggregator_command", "aggregator_main", "init_once"),
        *("evaluator", "central_evaluator", "evaluate_input", "evaluate_command", "by_sites"),
        *("format_", "set_", "own_settings", "strip_prefix", "passed", "env_only", "ignore_ckpt"),
    ),
    Group.RUN: (
        *("join", "run", "run_name", "client", "rounds", "epochs", "edges", "devices", "input_path", "input_glob"),
        *(
            "init_model",
            "from_run",
            "from_round",
            "resume",
            "detach",
            "config",
            "nodes",
            "live",
            "round_id",
            "seed",
            "param_names",
            "param_size",
        ),
        *("join_timeout_s", "until_end", "grace_s", "timeout_s", "reason", "replace", "worker"),
    ),
    Group.RESULTS: (
        *(
            "out",
            "output",
            "round_",
            "as_json",
            "with_page",
            "ui_token",
            "workspace",
            "home",
            "metric",
            "most",
            "by_round",
            "follow",
        ),
        *("script", "is_cross", "to", "experiment", "model_name", "no_model", "notify", "notify_after_s"),
    ),
    Group.MODEL: ("checkpoint", "outer_optimizer", "statistics", "weighted"),
    Group.CLOSING: ("quorum", "round_timeout_s", "heartbeat_timeout_s"),
    Group.LIMITS: (
        *("key", "trust", "trusted", "run_id", "head", "untrusted", "opaque", "allow_set", "report_output", "records"),
        *("new_key", "public_key", "update", "expected", "no_report", "share_log", "allow_cross", "no_outside_models"),
        *("memory_limit", "cpu_limit_s", "file_size_limit", "user"),
    ),
    Group.REDIS: (
        *(
            "redis_url",
            "tls_ca",
            "tls_cert",
            "tls_key",
            "insecure",
            "proxy",
            "patience_s",
            "relay_events",
            "public_url",
            "public_ca",
            "unsaved",
            "only_rules",
        ),
    ),
    Group.STORE: ("store", "store_cache", "store_cache_size", "objects"),
    Group.AGGREGATORS: ("workers", "queue", "threads"),
}
"""The group of each option, by the name of its parameter. The options of a run's settings have a group themselves."""
_GROUP_OF = {name: group for group, names in _GROUPS.items() for name in names}
_FEW = 5
"""So few options, with --help, are listed without groups."""
_OLD_SPELLING = re.compile(r"^-[a-z]{2,}, ")
"""`-am`, `-cm`, `-cp`: every command takes them, and only the checks list them."""
_TYPE = re.compile(r" (INTEGER|FLOAT)( RANGE)?$")
"""How click names a number in the list of options."""
_A_COMMAND = ("the command", "'python main.py'")
_QUOTED = {
    "input_glob": ("the pattern", "'data/site*/'"),
    **dict.fromkeys(("main_command", "preprocess_command", "client_command"), _A_COMMAND),
    "central_evaluator": ("the command", "'python evaluate.py'"),
    **dict.fromkeys(("aggregator_main", "aggregator_command"), ("the command", "'python aggregate.py'")),
}
"""Options whose value a shell splits into words unless it is quoted: what the value is, and an example of it."""
_MEANT = {
    "--name": ("--run", "--client"),
    "--epochs": ("--rounds",),
    "--clients": ("--edges", "--min-clients"),
    "--sites": ("--edges", "--min-clients"),
    "--nodes": ("--edges", "--min-clients"),
    "--output": ("--out",),
    "--redis": ("--redis-url",),
    "--url": ("--redis-url",),
    "--data": ("--input",),
    "--script": ("--main",),
    "--command": ("--main",),
    "--lr": ("--set",),
    "--model": ("--init-model",),
}


class ExampleCommand(click.Command):
    """A command whose help begins with an example, or with several, a line each."""

    def __init__(self, name: str | None = None, *, example: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.example = example

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then what the command does."""
        lines = self.example.splitlines()
        commands = self.example.replace("\\\n", "").splitlines()
        with formatter.section("Examples" if len(commands) > 1 else "Example"):
            for line in lines:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        super().format_help_text(ctx, formatter)


class ExampleGroup(ExampleCommand, click.Group):
    """A group of commands whose help begins with an example of one of them."""


class GroupedCommand(ExampleCommand):
    """A command whose help lists its options in groups, with their `short` names or not."""

    short = False

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options group by group; few options in one list."""
        every: list[tuple[str, str]] = []
        rows: dict[Group, list[tuple[str, str]]] = {group: [] for group in Group}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                words = _TYPE.sub(" SECONDS" if (parameter.name or "").endswith("_s") else " NUMBER", record[0])
                shown = (words if self.short else _OLD_SPELLING.sub("", words), record[1])
                every.append(shown)
                rows[getattr(parameter, "group", _GROUP_OF.get(parameter.name or "", Group.OTHER))].append(shown)
        sections = {"Options": every} if len(every) <= _FEW else rows
        for title, listed in sections.items():
            if listed:
                with formatter.section(title):
                    formatter.write_dl(listed)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. The error for an unknown option names the option that was probably meant."""
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption as error:
            known = {name for parameter in self.get_params(ctx) for name in parameter.opts}
            meant = [name for name in _MEANT.get(error.option_name, ()) if name in known]
            near = [name for name in error.possibilities or () if name.startswith("--")]
            said = f"No such option {error.option_name!r}."
            if meant:
                said += f" Did you mean {' or '.join(map(repr, meant))}?"
            raise click.NoSuchOption(error.option_name, said, None if meant else near, error.ctx) from None
        except click.MissingParameter as error:
            if error.param is not None and error.param.name == "main_command" and error.message == "":
                said = "Missing option '-m' / '--main': the command of the script, in quotes: -m 'python main.py'"
                raise click.UsageError(said, error.ctx) from None
            raise
        except click.UsageError as error:
            if type(error) is click.UsageError and (advice := self._unquoted(ctx, args)):
                raise click.UsageError(f"{error.message} {advice}", error.ctx) from None
            raise

    def _unquoted(self, ctx: click.Context, args: list[str]) -> str:
        """Advise to quote the value of an option that was given several words and takes one; '' where none was."""
        quoted = {
            name: (name, _QUOTED[parameter.name])
            for parameter in self.get_params(ctx)
            if parameter.name in _QUOTED
            for name in parameter.opts
        }
        for number, word in enumerate(args):
            name, equals, _ = word.partition("=")
            after = args[number + (1 if equals else 2) :]
            if name in quoted and after and not after[0].startswith("-"):
                option, (what, example) = quoted[name]
                return f"{option} takes one word: put {what} in quotes: {option} {example}"
            if word == "--set" and after and not after[0].startswith("-") and "=" not in args[number + 1]:
                return "--set takes one word: --set NAME=VALUE"
            if word == "--set-for" and len(after) > 1 and not after[1].startswith("-"):
                return "--set-for takes two words: --set-for CLIENT NAME=VALUE"
        names = {parameter.name for parameter in self.get_params(ctx)}
        if {"main_command", "edges"} <= names and not any(word.startswith(("-m", "--main")) for word in args):
            return "Give the command of the script after -m, in quotes: -m 'python main.py'"
        return ""


class SpelledCommand(GroupedCommand):
    """A command whose help also lists the short names of its options."""

    short = True
