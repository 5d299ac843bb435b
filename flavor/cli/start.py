"""The entry points of the programs. Secrets leave the process list before slow modules are imported."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator

from flavor.cli.secrets import keep_private
from flavor.exit_codes import ExitCode


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Make Ctrl-C during the imports end the program as it does later."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("flavor: interrupted\n")
        sys.exit(ExitCode.INTERRUPTED)


def flavor() -> None:
    """`flavor`."""
    keep_private()
    with _importing():
        from flavor.cli.main import main

    main()


def edge() -> None:
    """`flavor-fl`."""
    keep_private()
    with _importing():
        from flavor.cli.flavor_fl import main

    main()


def evaluator() -> None:
    """`flavor-fv`."""
    keep_private()
    with _importing():
        from flavor.cli.flavor_fv import main

    main()


def aggregator() -> None:
    """`flavor-agg`."""
    keep_private()
    with _importing():
        from flavor.cli.flavor_agg import main

    main()


def fedtrain() -> None:
    """`aumai-fedtrain`, whose `run` must still know that a Redis was named."""
    keep_private({"--redis-url": "--live"} if sys.argv[1:2] == ["run"] else None)
    with _importing():
        command_line = importlib.import_module("aumai_fedtrain.cli").command_line

    command_line()
