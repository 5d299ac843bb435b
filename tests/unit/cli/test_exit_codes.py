"""One table of exit codes: what the documentation says, what --help says, and what programs do."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from flavor import errors
from flavor.cli import flavor_agg, flavor_fl, flavor_fv, main
from flavor.cli.program import fail
from flavor.errors import InvalidSetting
from flavor.exit_codes import ExitCode
from flavor.ownfolder import make_own_folder
from flavor.programs.supervision import _of_one_that_ended

COMMANDS = Path(__file__).parents[3] / "docs" / "commands.md"


def help_of(command: object) -> str:
    return " ".join(CliRunner().invoke(command, ["--help"]).output.split())  # type: ignore[arg-type]


def test_help_names_the_codes_of_the_table() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \|", COMMANDS.read_text(), flags=re.MULTILINE)
    table = {code.strip() for row in rows for code in row.split(",")}
    for command in (main.cli, flavor_fl.command, flavor_fv.command, flavor_agg.command):
        named = set(re.findall(r"\b\d+\b", help_of(command).partition("Exit codes:")[2]))
        assert named <= table, named - table
        assert named >= {"0", "1", "2", "3", "130", "143"}
    assert "0 told to end (SIGTERM, SIGINT)" in help_of(flavor_agg.command)


def test_the_table_for_readers_is_that_of_the_code() -> None:
    section = COMMANDS.read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([0-9, ]+) \|", section, flags=re.MULTILINE)
    assert [int(code) for row in rows for code in row.split(",")] == list(ExitCode)


def test_each_error_ends_a_program_with_a_code_of_the_table() -> None:
    kinds = [errors.FlavorError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert isinstance(kind.exit_code, ExitCode), kind


def test_no_module_spells_an_exit_code_of_its_own() -> None:
    root = Path(__file__).parents[3]
    spelled = [
        f"{path.relative_to(root)}:{number}"
        for folder in ("flavor/cli", "aumai_fedtrain")
        for path in (root / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"exit\(.*\b(?:[2-9]|1[0-9]+)\b", line)
    ]
    assert not spelled


def test_an_aggregator_that_was_told_to_end_before_it_listens_did_as_it_was_told() -> None:
    assert [_of_one_that_ended(code) for code in (0, 3, 143, -15, -2, -7, -9)] == [0, 3, 143, 0, 0, 135, 137]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *(
            (errno.ENOSPC, 1),
            (errno.EDQUOT, 1),
            (errno.EIO, 1),
            (errno.ESTALE, 1),
            (errno.ENOTCONN, 1),
            (errno.EMFILE, 1),
        ),
        *((errno.EACCES, 2), (errno.ENOENT, 2), (errno.ENOTDIR, 2), (errno.EROFS, 2)),
    ],
)
def test_what_the_machine_cannot_do_for_now_is_not_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """After which a service is not started again."""

    def mkdir(path: Path, mode: int = 0o777) -> None:
        if path == tmp_path / "work":
            raise OSError(number, os.strerror(number), str(path))
        raise FileExistsError

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(InvalidSetting, match="cannot be made") as error:
        make_own_folder(tmp_path / "work")
    with pytest.raises(SystemExit) as ended:
        fail(error.value)
    assert ended.value.code == code
