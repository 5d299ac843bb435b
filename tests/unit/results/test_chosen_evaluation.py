"""Which evaluation a number names: of a round, without a round, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.errors import RunError
from flavor.records.evaluation import CENTRAL
from flavor.results.chosen_evaluation import Name, found_by, naming, numbered_of
from flavor.results.evaluated import Evaluated
from flavor.results.read_evaluated import FOLDER, OF_SITES, from_folder
from flavor.results.site_measures import SiteMeasures

THERE: list[Name] = [(0, 1), (4, 0), (4, CENTRAL), (4, 1), (6, 0), (6, CENTRAL), (5, 2), (0, 2)]


@pytest.mark.parametrize(
    ("round_", "number", "found"),
    [
        (4, 0, (4, 0)),
        (4, CENTRAL, (4, CENTRAL)),
        (4, 1, (4, 1)),
        (None, 0, (6, 0)),
        (None, CENTRAL, (6, CENTRAL)),
        (None, 1, (0, 1)),
        (0, 2, (0, 2)),
        (0, 0, None),
        (5, CENTRAL, None),
        (None, 3, None),
    ],
)
def test_a_number_names_one_of_its_round_and_of_the_runs_own_the_newest(
    round_: int | None, number: int, found: Name | None
) -> None:
    assert found_by(THERE, round_, number) == found


@pytest.mark.parametrize(
    ("there", "round_", "number", "said"),
    [
        (
            THERE,
            5,
            CENTRAL,
            "no evaluation central of the model of round 5: there are 2; "
            "the newest of another model is --round 6 --evaluation central",
        ),
        ([(6, 1)], None, 1, "that no round has made: there are none; the newest of another model is --round 6 "),
        ([(0, 1)], 6, 0, "of the model of round 6: there are none; the newest of another model is --evaluation 1"),
        ([(6, 0)], None, CENTRAL, "judged on the operator's own data; the newest evaluation is --round 6 --evaluation"),
        ([(0, 1)], None, 0, "judged by the sites, for the run itself; the newest evaluation is --evaluation 1"),
        ([], None, CENTRAL, "no evaluation central: no model has been judged on the operator's own data"),
    ],
)
def test_what_is_missing_is_told_with_options_that_find_one(
    there: list[Name], round_: int | None, number: int, said: str
) -> None:
    with pytest.raises(RunError) as raised:
        numbered_of("r", there, round_, number)
    assert said in str(raised.value)
    if "--round" in said or "--evaluation" in said:
        named = str(raised.value).rpartition(" is ")[2]
        assert named in {naming(*name) for name in there}


def test_a_result_folder_has_the_newest_on_the_operators_own_data(tmp_path: Path) -> None:
    own = SiteMeasures(5, {"central/auc": 0.5})
    (tmp_path / FOLDER).mkdir()
    for at, (round_, number) in enumerate(THERE):
        central = own if number == CENTRAL else None
        found = Evaluated("r", round_, number, "f" * 64, at, at, (), {}, {}, central=central)
        (tmp_path / FOLDER / f"{found.name}{OF_SITES}").write_text(found.to_json())
    newest = from_folder(tmp_path, None, CENTRAL)
    assert (newest.round, newest.is_central) == (6, True)
    of_sites = from_folder(tmp_path, None, 0)
    assert (of_sites.round, of_sites.number, of_sites.central) == (6, 0, own)
