"""Every command's arguments and options, with names, types, environment variables and defaults, against a golden file.

A script that calls these commands depends on each of them. After a change that is meant, write the file again with
`python tests/unit/cli/test_command_line.py`, and read its difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

import aumai_fedtrain.cli
from flavor.cli import check_agg, check_fl, check_fv, flavor_agg, flavor_fl, flavor_fv, main

GOLDEN = Path(__file__).parents[2] / "golden" / "command_line.txt"
PROGRAMS: dict[str, click.Command] = {
    "flavor": main.cli,
    "flavor-fl": flavor_fl.command,
    "flavor-fv": flavor_fv.command,
    "flavor-agg": flavor_agg.command,
    "check-fl": check_fl.command,
    "check-fv": check_fv.command,
    "check-agg": check_agg.command,
    "aumai-fedtrain": aumai_fedtrain.cli.main,
}
AS_MACHINE_SAYS = {("flavor-agg", "threads"), ("aumai-fedtrain", "home")}
"""Options whose default depends on the machine."""


def lines() -> Iterator[str]:
    for program, command in PROGRAMS.items():
        yield from commands(program, command)


def commands(name: str, command: click.Command) -> Iterator[str]:
    yield f"{name}" + (" (hidden)" if command.hidden else "")
    context = click.Context(command, info_name=name.rpartition(" ")[2])
    yield from sorted(f"    {parameter(name, each)}" for each in command.get_params(context))
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            assert inner is not None
            yield from commands(f"{name} {each}", inner)


def parameter(command: str, each: click.Parameter) -> str:
    words = ["/".join([*each.opts, *each.secondary_opts]) if isinstance(each, click.Option) else f"[{each.name}]"]
    words.append("flag" if isinstance(each, click.Option) and each.is_flag else kind(each.type))
    words += [f"env={each.envvar}"] if each.envvar else []
    words += ["required"] if each.required else []
    words += ["again"] if each.multiple and not getattr(each, "is_single", False) else []
    words += ["hidden"] if isinstance(each, click.Option) and each.hidden else []
    default = each.to_info_dict()["default"]
    if (command.split(maxsplit=1)[0], each.name) in AS_MACHINE_SAYS:
        default = "the machine's"
    words += [f"default={default}"] if default is not None and default is not False else []
    return " ".join(words)


def kind(type_: click.ParamType) -> str:
    if isinstance(type_, click.Choice):
        return f"{{{'|'.join(map(str, type_.choices))}}}"
    bounds = f"[{type_._describe_range()}]" if isinstance(type_, click.types._NumberRangeBase) else ""
    return type_.name.replace(" ", "-") + bounds


def test_no_command_loses_an_option_or_changes_its_default() -> None:
    assert list(lines()) == GOLDEN.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    GOLDEN.write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8")
