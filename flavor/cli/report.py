"""`flavor report`: how far training scripts that are not Python are."""

from __future__ import annotations

import click

from flavor.cli.help import GroupedCommand


@click.command(
    cls=GroupedCommand,
    example='flavor report 30/100\nflavor report 3 --message "epoch 3" --metric loss=0.31',
)
@click.argument("progress", metavar="DONE[/TOTAL]")
@click.option("--message", default="", metavar="TEXT", help="Text of up to 300 characters.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME=NUMBER", help="Metric to show. May be repeated.")
def report(progress: str, message: str, metrics: tuple[str, ...]) -> None:
    """Tell how far this round's training is, from a training script of any language.

    DONE is a number of steps, batches or epochs, TOTAL how many there are. `flavor status` shows them. What is reported
    leaves the site, unless the site's edge runs with --no-report. A report that cannot be made prints a warning, with
    exit code 0, so that it never stops a training.
    """
    from flavor.cook import report as cook

    done, _, total = progress.partition("/")
    named = dict(_parted(metric) for metric in metrics)
    cook.report(_number(done), _number(total) if total else None, message, named)
    cook.flush()


def _number(text: str) -> int | float | str:
    """The number that the text spells; else the text, of which `Report` says what is wrong with it."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parted(metric: str) -> tuple[str, int | float | str]:
    name, _, value = metric.partition("=")
    return name, _number(value)
