"""Options whose values installed packages add to: `--help` names the values, and a shell completes them.

Everything here looks for packages only when it is called: a command that runs pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class InstalledOption(click.Option):
    """An option whose `--help` ends with the sentence that `installed` returns; with None, a plain option."""

    def __init__(self, words: Sequence[str], *, installed: Callable[[], str] | None = None, **options: Any) -> None:
        super().__init__(words, **options)
        self._installed = installed

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option and its help; the sentence stands before the default."""
        record = super().get_help_record(ctx)
        sentence = self._installed() if record is not None and self._installed is not None else ""
        if record is None or not sentence:
            return record
        text, gap, brackets = record[1].partition("  [")
        return record[0], f"{text} {sentence}{gap}{brackets}"


def kinds_installed() -> str:
    """Name the kinds of checkpoints."""
    from flavor.checkpoints.kinds import kind_names

    return f"Installed: {', '.join(kind_names())}."


def complete_kind(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a kind of checkpoint."""
    from flavor.checkpoints.kinds import kind_names

    return [CompletionItem(name) for name in kind_names() if name.startswith(incomplete)]


def schemes_installed() -> str:
    """Name the schemes of stores that packages of third parties add; '' where there are none."""
    from flavor.store.open import FACTORIES, schemes

    added = [f"{scheme}://" for scheme in schemes() if scheme not in FACTORIES]
    return f"Installed packages add {', '.join(added)}." if added else ""


def complete_store(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the scheme of a store, or a folder."""
    from flavor.store.open import schemes

    found = [CompletionItem(f"{name}://") for name in schemes() if incomplete and f"{name}://".startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="dir")]


def complete_aggregator(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of an aggregation rule; behind `norm_clip:c=…/` that of the rule that it goes before."""
    before, slash, last = incomplete.rpartition("/")
    found = _rules(("alias", "reducer"), last)
    found += [] if slash or not "command".startswith(last) else [CompletionItem("command")]
    return [CompletionItem(f"{before}{slash}{item.value}", help=item.help) for item in found]


def complete_server_step(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a server step."""
    return _rules(("server step",), incomplete)


def _rules(kinds: Sequence[str], incomplete: str) -> list[CompletionItem]:
    from aggregators.registry import catalogue

    return [
        CompletionItem(entry.name, help=entry.description)
        for entry in catalogue()
        if entry.kind in kinds and entry.name.startswith(incomplete)
    ]


COMPLETIONS: dict[str, Completion] = {
    "checkpoint": complete_kind,
    "aggregator": complete_aggregator,
    "server_step": complete_server_step,
}
"""How a shell completes the settings of a run whose values installed packages add to."""
