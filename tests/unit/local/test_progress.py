"""What `flavor run` says at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.errors import FlavorError
from flavor.local.progress import Progress


def test_a_second_interrupt_does_not_lose_how_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    progress, told = Progress("r", 3), "go on with it: flavor run --resume '/a b'"
    with pytest.raises(KeyboardInterrupt), progress.saying_how_to_go_on(Path("/a b")):
        raise KeyboardInterrupt
    assert told in "".join(capsys.readouterr())
    with pytest.raises(FlavorError), progress.saying_how_to_go_on(Path("/a b")):
        raise FlavorError("which is told otherwise")
    assert told not in "".join(capsys.readouterr())
