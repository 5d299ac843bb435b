"""What records of a run hold is shown in its place: no control character, line or markup of it reaches the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from flavor.cli.credits import _rounds, _totals
from flavor.cli.output import print_table
from flavor.cli.verify import verify
from flavor.credits import Contribution
from flavor.ledger.chain import Problem
from flavor.ledger.keys import SigningKey
from flavor.store.paths import manifest_path
from tests.unit.forged_run import CONFIG, ForgedRun, overwrite

EVIL = "[red]x[/red] :skull: \x1b[2J\x1b]0;t\x07\nFORGED ok\r\u202e"


def shown(run: ForgedRun, changes: dict[str, object]) -> Result:
    """Run `flavor verify` after the newest manifest was changed and signed with another key."""
    forged = run.manifests[-1].model_copy(update=changes).signed(SigningKey.generate())
    overwrite(run.store.local(manifest_path(run.name, forged.round)), forged.to_bytes())
    return CliRunner().invoke(verify, [run.name, "--store", run.store.url])


def check(text: str) -> None:
    assert text.replace("\n", "").isprintable(), text
    assert not [line for line in text.splitlines() if line.lstrip().startswith("FORGED")]


@pytest.mark.parametrize("where", ["client", "replaced", "public_key", "path", "signature"])
def test_verify_shows_what_a_contributor_s_record_holds_in_its_place(tmp_path: Path, where: str) -> None:
    run = ForgedRun(tmp_path / "s").complete()
    first, *others = run.manifests[-1].contributors
    change = {where: (EVIL,) if where == "replaced" else EVIL}
    done = shown(run, {"contributors": (first.model_copy(update=change), *others)})
    assert done.exit_code in (0, 1), done.exception
    check(done.output)
    if where == "client":
        assert "[red]x[/red] :skull:" in done.output
        assert "\\x1b[2J" in done.output


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {**CONFIG, EVIL: 1, "settings": {EVIL: EVIL}}},
        {"run": EVIL},
        {"run_id": EVIL},
        {"expected": (EVIL,)},
        {"chosen": (EVIL,)},
        {"previous": EVIL},
    ],
)
def test_verify_shows_what_a_manifest_holds_in_its_place(tmp_path: Path, changes: dict[str, object]) -> None:
    done = shown(ForgedRun(tmp_path / "s").complete(), changes)
    assert done.exit_code in (0, 1), done.exception
    check(done.output)


def test_a_problem_is_one_line() -> None:
    assert str(Problem(1, EVIL, EVIL)).isprintable()


def test_tables_show_names_in_their_place(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Contribution(round=1, client=EVIL, samples=3, in_model=True)]
    for table in (_totals(found), _rounds(found)):
        Console(width=400).print(table)
    print_table(("A", EVIL), [("1", EVIL)])
    text = capsys.readouterr().out
    check(text)
    assert text.count("[red]x[/red] :skull:") == 4
