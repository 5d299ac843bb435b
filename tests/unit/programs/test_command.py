"""Commands are parsed as a shell would, and must exist."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flavor.errors import CommandNotFound, InvalidSetting
from flavor.programs.command import parse_command


def test_quotes_are_a_shells(tmp_path: Path) -> None:
    program = tmp_path / "my python"
    program.symlink_to(sys.executable)
    assert parse_command(f"'{program}' -c \"print('a b')\" x\\ y", "-m") == [
        str(program),
        "-c",
        "print('a b')",
        "x y",
    ]


@pytest.mark.parametrize("text", ["", "   ", "python 'main.py"])
def test_what_is_no_command(text: str) -> None:
    with pytest.raises(InvalidSetting, match="-m"):
        parse_command(text, "-m")


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(CommandNotFound, match=r"-p 'pyhton main.py': no program 'pyhton'"):
        parse_command("pyhton main.py", "-p")


def test_a_file_that_cannot_be_executed(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    (tmp_path / "main.bin").write_text("")
    with pytest.raises(CommandNotFound, match="permissions"):
        parse_command(str(tmp_path / "main.bin"), "-m")
    with pytest.raises(CommandNotFound, match=r"main.py' is a script: write -m 'python .*main.py -x'$"):
        parse_command(f"{tmp_path / 'main.py'} -x", "-m")
