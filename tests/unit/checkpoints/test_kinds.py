"""Each kind of checkpoint keeps the protocol, and a package adds one."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from flavor.checkpoints.checkpoint import Checkpoint, write
from flavor.checkpoints.format import Format
from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.kinds import OPAQUE, TENSORS, kind_named, kind_of_run
from flavor.checkpoints.site import Given, SiteOptions
from flavor.config import RunConfig
from flavor.errors import CheckpointError, InvalidSetting

SVM = '''
import json
from flavor.checkpoints.opaque import PlainFile
from flavor.errors import CheckpointError

class Svm(PlainFile):
    """Support vectors as JSON."""

    name, object_extension = "svm", ".json"

    def extension(self, format_=""):
        return ".json"

    def inspect(self, path):
        if not path.read_bytes().startswith(b"["):
            raise CheckpointError("it is no list of support vectors")

    def compare(self, path, reference, whose):
        mine, other = (len(json.loads(each.read_text())) for each in (path, reference))
        return "" if mine == other else f"it has {mine} vectors; {whose} has {other}"
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a distribution whose module `svm_kind` has this text, and whose entry points these."""
    packages = tmp_path / "packages"
    monkeypatch.syspath_prepend(str(packages))
    kind_named.cache_clear()

    def add(text: str = SVM, points: str = "svm = svm_kind:Svm") -> None:
        info = packages / "svm_kind-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: svm-kind\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[flavor.checkpoints]\n{points}\n")
        (packages / "svm_kind.py").write_text(text)

    yield add
    sys.modules.pop("svm_kind", None)
    kind_named.cache_clear()


@pytest.fixture(params=["tensors", "opaque", "svm"])
def kind(request: pytest.FixtureRequest, install: Callable[..., None]) -> CheckpointKind:
    install()
    return kind_named(request.param)


@pytest.fixture
def trained(kind: CheckpointKind, tmp_path: Path) -> Path:
    """A file as a trainer of this kind saves it."""
    path = tmp_path / f"model{kind.extension()}"
    if kind.has_tensors:
        write(path, Checkpoint({"w": np.arange(6, dtype=np.float32)}), Format.TORCH)
    else:
        path.write_text("[1, 2, 3]")
    return path


class TestEveryKind:
    def test_it_says_what_it_is(self, kind: CheckpointKind) -> None:
        assert isinstance(kind, CheckpointKind)
        assert kind.wire_format in kind.formats
        assert all(kind.extension(format_).startswith(".") for format_ in ("", *kind.formats))

    def test_a_file_goes_over_the_wire_and_comes_back(
        self, kind: CheckpointKind, trained: Path, tmp_path: Path
    ) -> None:
        wire = kind.to_wire(trained, tmp_path / "wire")
        data = (tmp_path / "wire").read_bytes()
        assert (wire.digest, wire.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert wire.format in kind.formats
        kind.inspect(tmp_path / "wire")
        assert kind.compare(tmp_path / "wire", tmp_path / "wire", "the global model") == ""
        kind.from_wire(tmp_path / "wire", tmp_path / "back", wire.format)
        assert kind.describe(tmp_path / "back") == kind.describe(trained)
        again = kind.to_wire(tmp_path / "back", tmp_path / "again")
        assert again == wire

    def test_its_site_sends_and_is_given_a_file(self, kind: CheckpointKind, trained: Path, tmp_path: Path) -> None:
        site = kind.site(SiteOptions(beside=tmp_path / "beside"))
        assert not site.needs_given
        wire = site.to_wire(trained, tmp_path / "wire", None)
        if site.may_share(trained):
            assert site.taken(trained) == wire
        site.check(tmp_path / "wire")
        if site.is_placed_as_it_is(wire.format):
            assert (tmp_path / "wire").read_bytes() == trained.read_bytes()
        site.from_wire(tmp_path / "wire", tmp_path / "back", wire.format)
        assert kind.describe(tmp_path / "back") == kind.describe(trained)

    def test_a_run_of_it_needs_an_aggregator_that_can_read_it(self, kind: CheckpointKind) -> None:
        config = RunConfig.parse({"rounds": 1, "store": "file:///s", "checkpoint": kind.name})
        assert config.kind is kind is kind_of_run(config.to_mapping())
        ruled = {"rounds": 1, "store": "file:///s", "checkpoint": kind.name, "aggregator": "median"}
        if kind.has_tensors:
            RunConfig.parse(ruled)
        else:
            with pytest.raises(InvalidSetting, match=f"{kind.name} checkpoints have none"):
                RunConfig.parse(ruled)


class TestTensors:
    def test_nan_is_refused_and_a_mask_of_infinities_passes(self, tmp_path: Path) -> None:
        for value in (np.nan, np.inf):
            tensors = {"w": np.ones(3, np.float32), "mask": np.full(3, value, np.float32)}
            write(tmp_path / "own", Checkpoint(tensors), Format.PICKLE)
            TENSORS.to_wire(tmp_path / "own", tmp_path / "wire")
            if np.isnan(value):
                with pytest.raises(CheckpointError, match=r"^tensor 'mask' has NaN values$"):
                    TENSORS.inspect(tmp_path / "wire")
            else:
                TENSORS.inspect(tmp_path / "wire")

    def test_what_differs_is_said(self, tmp_path: Path) -> None:
        for name, size in (("one", 3), ("other", 4)):
            write(tmp_path / name, Checkpoint({"w": np.ones(size, np.float32)}), Format.SAFETENSORS)
        words = TENSORS.compare(tmp_path / "one", tmp_path / "other", "the global model")
        assert words == "tensor 'w' has shape (3,); the global model has (4,)"

    def test_a_change_is_sent_where_the_run_compresses(self, tmp_path: Path) -> None:
        write(tmp_path / "given", Checkpoint({"w": np.zeros(1000, np.float32)}), Format.SAFETENSORS)
        write(tmp_path / "own", Checkpoint({"w": np.ones(1000, np.float32)}), Format.SAFETENSORS)
        site = TENSORS.site(SiteOptions(beside=tmp_path / "beside", compress="int8"))
        assert site.needs_given
        assert not site.may_share(tmp_path / "own")
        whole = site.to_wire(tmp_path / "own", tmp_path / "whole", None)
        change = site.to_wire(tmp_path / "own", tmp_path / "change", Given(tmp_path / "given", "0" * 64))
        assert change.size_bytes < whole.size_bytes / 2


class TestPackages:
    def test_its_own_inspection_and_comparison_are_used(self, install: Callable[..., None], tmp_path: Path) -> None:
        install()
        kind = kind_named("svm")
        (tmp_path / "bad").write_text("no")
        (tmp_path / "two").write_text("[1, 2]")
        (tmp_path / "one").write_text("[1]")
        with pytest.raises(CheckpointError, match="bad: it is no list of support vectors"):
            kind.describe(tmp_path / "bad")
        assert kind.compare(tmp_path / "two", tmp_path / "one", "that") == "it has 2 vectors; that has 1"

    def test_a_name_that_there_is_not_lists_what_there_is(self, install: Callable[..., None]) -> None:
        install("", "svm = svm_kind:Svm\nforest = svm_kind:Forest")
        with pytest.raises(
            InvalidSetting, match=r"no checkpoints of the kind 'x' here, only: tensors, opaque, forest, svm;"
        ):
            kind_named("x")
        with pytest.raises(InvalidSetting, match=r"^--checkpoint: there are no checkpoints of the kind 'x' here"):
            RunConfig.parse({"rounds": 1, "store": "file:///s", "checkpoint": "x"})

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
            ("Svm = 3", "it is no CheckpointKind: compare, describe, .* is missing"),
            ("raise SystemExit('gone')", "SystemExit: gone"),
            (SVM.replace('"svm"', '"forest"'), "its name is 'forest'"),
            (SVM.replace('".json"\n', '"/../x"\n'), "its object_extension '/../x' is not a dot and"),
            (SVM + '\n    wire_format = "other"\n', "its wire_format 'other' is none of its formats"),
        ],
    )
    def test_one_that_cannot_be_used_is_one_line_and_breaks_no_other(
        self, install: Callable[..., None], text: str, why: str
    ) -> None:
        install(text)
        with pytest.raises(
            InvalidSetting, match=f"^checkpoints of the kind 'svm': svm-kind 1.0: svm_kind:Svm: {why}"
        ) as error:
            kind_named("svm")
        assert "\n" not in str(error.value)
        assert kind_named("opaque") is OPAQUE

    def test_it_is_imported_only_where_a_run_names_it(self, install: Callable[..., None]) -> None:
        install("raise AssertionError")
        RunConfig.parse({"rounds": 1, "store": "file:///s", "checkpoint": "opaque"})
        assert "svm_kind" not in sys.modules
