"""Makes the options of a run's settings from the fields of `RunConfig`, the same ones for every command."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from flavor.cli.installed import COMPLETIONS, InstalledOption, kinds_installed
from flavor.config import RunConfig
from flavor.errors import InvalidSetting
from flavor.option_groups import Group
from flavor.patterns import with_known
from flavor.resume import MAY_CHANGE
from flavor.script_settings import parse_settings
from flavor.setting import LONGEST_S, Setting
from flavor.sizes import parse_size

Command = TypeVar("Command", bound=Callable[..., Any])

_NOT_TAKEN = "store"
"""The field without an option here: `flavor.cli.options.store_option` makes `--store`."""


class _Size(click.types.IntParamType):
    """A number of bytes, which may have a unit: `50MB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `click.ParamType`."""
        try:
            return parse_size(str(value), "")
        except InvalidSetting:
            self.fail(f"{str(value)!r} is not a size: write e.g. 50MB, 512MiB or a number of bytes", param, ctx)


def _single(context: click.Context, option: click.Parameter, values: Sequence[str]) -> str | None:
    """Return the one value of an option that is read as a list. Raises `BadParameter` for several values."""
    if len(values) > 1:
        raise click.BadParameter(
            f"given {len(values)} times ({', '.join(values)}), and a run has one: leave out the others", context, option
        )
    return values[0] if values else None


class SettingOption(InstalledOption):
    """The option of a setting. `--help` shows the bounds of its value; `RunConfig` checks them."""

    def __init__(
        self, words: Sequence[str], *, group: Group, absent: str, bounds: str, is_single: bool = False, **options: Any
    ) -> None:
        if is_single:  # click keeps the last value of an option that is given twice, and does not say so
            options |= {"multiple": True, "callback": _single}
        super().__init__(words, **options)
        self.group, self.absent, self.bounds, self.is_single = group, absent, bounds, is_single

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Return what `--help` shows in brackets: bounds, default and environment variable."""
        more = {"range": self.bounds, "default": self.absent if self.default is None else ""}
        return {**super().get_help_extra(ctx), **{name: text for name, text in more.items() if text}}


def run_options(
    *,
    without: Sequence[str] = (),
    only: Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    absent: Mapping[str, str] | None = None,
    variables: bool = False,
) -> Callable[[Command], Command]:
    """Add options for the settings of a run, in the order of their fields.

    `only` and `without` name fields. `defaults` has the values that this command takes in place of the fields' own, and
    `absent` what it does without a value, in words. With `variables` it reads their environment variables, too.
    """

    def decorated(function: Command) -> Command:
        names = [name for name in only or RunConfig.model_fields if name not in (*without, _NOT_TAKEN)]
        for name in reversed(names):
            field = RunConfig.model_fields[name]
            function = _option(
                name,
                field,
                default=(defaults or {}).get(name, _default(field)),
                absent=(absent or {}).get(name, Setting.of(field).absent),
                required=field.is_required() and name not in (defaults or {}),
                variables=variables,
            )(function)
        return function

    return decorated


def changing_options(function: Command) -> Command:
    """Add options for the settings that may change within a run. A setting without an option stays as it is."""
    for name in reversed([name for name in RunConfig.model_fields if name in MAY_CHANGE]):
        field = RunConfig.model_fields[name]
        function = _option(name, field, default=None, absent="", required=False, variables=False)(function)
    return function


def config_of(options: Mapping[str, Any], **others: Any) -> RunConfig:
    """Return the settings that a command's options give. `InvalidSetting` names each invalid one."""
    settings = {name: value for name, value in options.items() if name in RunConfig.model_fields}
    return RunConfig.parse(
        {
            **settings,
            "statistics": with_known(settings.get("statistics", ())),
            "settings": parse_settings(settings.get("settings", ())),
            **others,
        }
    )


def _option(
    name: str, field: FieldInfo, *, default: Any, absent: str, required: bool, variables: bool
) -> Callable[[Command], Command]:
    setting = Setting.of(field)
    variable = setting.variable if variables else None
    return click.option(
        setting.option or f"--{name.replace('_', '-')}",
        name,
        cls=SettingOption,
        group=setting.group,
        absent=absent,
        bounds=_bounds(field),
        is_single=setting.is_single,
        metavar=setting.metavar,
        help=setting.help,
        default=default,
        show_default=default is not None,
        required=required,
        envvar=variable,
        show_envvar=variable is not None,
        installed=kinds_installed if name == "checkpoint" else None,
        shell_complete=COMPLETIONS.get(name),
        **({"type": _Size()} if name.endswith("_bytes") else _type(field.annotation)),
    )


def _type(annotation: Any) -> dict[str, Any]:
    """Return click's type for this annotation. `RunConfig` parses what may be a number or a share from its text."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [each for each in get_args(annotation) if each is not type(None)]
        annotation = kinds[0] if len(kinds) == 1 else str
    if annotation is bool:
        return {"is_flag": True}
    if get_origin(annotation) is Literal:
        return {"type": click.Choice(get_args(annotation))}
    if annotation in (int, float, str):
        return {"type": annotation}
    if get_origin(annotation) is Mapping and get_origin(get_args(annotation)[1]) is Mapping:
        return {"type": str, "multiple": True, "nargs": 2}  # a key, and NAME=VALUE
    return {"type": str, "multiple": True}


def _default(field: FieldInfo) -> Any:
    """Return the default of an option; None for lists of patterns or variables, to which given values are added."""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return None if isinstance(default, (tuple, Mapping)) else default


def _bounds(field: FieldInfo) -> str:
    """Write the bounds of a field as click does: `x>=1`, `0.0<x<=1.0`. The longest duration is left out."""
    limits = ((name, getattr(each, name, None)) for each in field.metadata for name in ("ge", "gt", "le"))
    found = {name: limit for name, limit in limits if limit is not None}
    high = "" if found.get("le", LONGEST_S) == LONGEST_S else f"<={found['le']}"
    for name, sign in (("ge", "="), ("gt", "")):
        if name in found:
            return f"{found[name]}<{sign}x{high}" if high else f"x>{sign}{found[name]}"
    return f"x{high}" if high else ""
