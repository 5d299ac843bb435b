"""The sites of a local run share the cores: no script starts a thread for each core of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.edge.workspace import Workspace
from flavor.local import threads
from flavor.programs.trainer_environment import THREADS, trainer_environment


@pytest.fixture
def files(tmp_path: Path) -> Workspace:
    return Workspace.prepare(tmp_path, environment={}, input_path=tmp_path)


@pytest.mark.parametrize(("cores", "sites", "each"), [(8, 3, "2"), (2, 3, "1"), (16, 2, "8")])
def test_the_cores_are_shared(
    files: Workspace, monkeypatch: pytest.MonkeyPatch, cores: int, sites: int, each: str
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: cores)
    edge = threads.limited({"PATH": "/bin"}, sites, {})
    assert not any(name in edge for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")), "an edge starts by a fork"
    script = trainer_environment(edge, files, rounds=1, run="r", client="c")
    assert (script["OMP_NUM_THREADS"], script["VECLIB_MAXIMUM_THREADS"], THREADS in script) == (each, each, False)
    assert f" {each} thread" in threads.told({}, sites, {})


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_what_the_user_has_set_stays(files: Workspace, name: str) -> None:
    for given, settings in (({name: "7"}, {}), ({}, {name: "7"})):
        assert threads.told(given, 3, settings) == ""
        assert THREADS not in threads.limited(given, 3, settings)
        for base in (given, {**given, THREADS: "1"}):
            script = trainer_environment(base, files, rounds=1, run="r", client="c", settings=settings)
            assert {key: value for key, value in script.items() if key.endswith("_THREADS")} == {name: "7"}


def test_one_site_alone_has_all_cores(files: Workspace) -> None:
    assert threads.told({}, 1, {}) == ""
    script = trainer_environment(threads.limited({}, 1, {}), files, rounds=1, run="r", client="c")
    assert "OMP_NUM_THREADS" not in script
