"""What is said of files without tensors that a script hands in, and of models of which a part is shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flavor.check.aggregation import Mean, Sent
from flavor.check.handed_in import HandedIn
from flavor.check.report import Report, Status
from flavor.check.script import Over
from flavor.check.trainer_checks import PARTS, TRAINER_CHECKS, TRAINS
from flavor.parts import Parts


@pytest.mark.parametrize(
    ("given", "handed_in", "made", "status"),
    [
        ("a", "b", "c", Status.PASSED),
        ("a", "b", "a", Status.PASSED),
        ("a", "a", "b", Status.FAILED),
        ("a", "a", "a", Status.UNCLEAR),  # what was trained on its own result comes to the same again
        ("a", "a", None, Status.FAILED),  # the aggregator failed
    ],
)
def test_a_file_that_is_the_global_model(
    tmp_path: Path, given: str, handed_in: str, made: str | None, status: Status
) -> None:
    paths = [tmp_path / name for name in ("given", "handed_in", "made")]
    for path, text in zip(paths, (given, handed_in, made), strict=True):
        if text is not None:
            path.write_text(text)
    report = Report((TRAINS,))
    HandedIn(report, 3).look_at_bytes(2, *paths)
    [result] = report.results
    assert result.status is status


class TestParts:
    """`check-fl --share` and `--local`."""

    def look(
        self, tmp_path: Path, parts: Parts, *models: dict[str, np.ndarray], report: Report | None = None
    ) -> Report:
        """Have these models of one round each looked at, with a mean between the rounds."""
        report = report or Report(TRAINER_CHECKS)
        handed_in = HandedIn(report, 2, parts)
        for round_, tensors in enumerate(models, start=1):
            path, made = tmp_path / f"{round_}.npz", tmp_path / f"made-{round_}.npz"
            np.savez(path, **tensors)
            content = handed_in.look_at_model(round_, path, True)
            result = Mean(parts).make(round_, Sent(path, content, None), made)
            assert result is not None
            handed_in.remember(content[0], result)
            with np.load(made) as found:
                assert list(found) == list(tensors)
                for name in tensors.keys() - set(parts.shared(tensors)):
                    np.testing.assert_array_equal(found[name], tensors[name])
        return report

    def test_it_says_what_would_be_shared(self, tmp_path: Path) -> None:
        model = {"w": np.ones(250, np.float32), "bn.w": np.ones(3, np.float32)}
        report = self.look(tmp_path, Parts(local=["bn*"]), model)
        [result] = [each for each in report.results if each.check is PARTS]
        assert result.detail == "1 of 2 tensors are shared, 1.0 kB of 1.0 kB: w; at the site stay bn.w"

    def test_all_names_are_in_json_and_forgotten_normalisation_is_a_warning(self, tmp_path: Path) -> None:
        model = {f"bn{n}.running_mean": np.ones(3) for n in range(6)} | {"0.running_mean": np.ones(3), "w": np.ones(3)}
        report = self.look(tmp_path, Parts(local=["bn*"]), model)
        [result] = [each for each in report.results if each.check is PARTS]
        told = result.as_dict()
        assert told["status"] == Status.WARNED
        assert result.detail.endswith("bn3.running_mean, and 2 more; shared are also the statistics 0.running_mean")
        assert (told["shared"], told["local"]) == (["0.running_mean", "w"], [f"bn{n}.running_mean" for n in range(6)])

    def test_equal_weights_are_a_warning(self, tmp_path: Path) -> None:
        models = [{name: np.arange(9.0) + round_ for name in ("embed", "head")} for round_ in (1, 2)]
        report = Report(TRAINER_CHECKS)
        for model in models:
            model |= {"0.running_mean": np.ones(9), "bn.running_mean": np.ones(9)}
        self.look(tmp_path, Parts(local=["head", "bn*"]), *models, report=report)
        [result] = [each for each in report.results if each.check is PARTS]
        assert result.status is Status.WARNED
        assert "shared are also the statistics 0.running_mean; round 2: after the training, 'head'" in result.detail
        assert result.detail.endswith("is equal to 'embed', which is shared")
        assert result.hint.startswith("to keep all normalisation at the site")
        assert "(tied weights), what the sites average of it is lost at each load" in result.hint

    def test_weights_that_the_file_stores_once_are_tied(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        torch.save({"state_dict": dict.fromkeys(("embed", "head"), torch.ones(9))}, tmp_path / "1.ckpt")
        report = Report(TRAINER_CHECKS)
        with pytest.raises(Over):
            HandedIn(report, 2, Parts(local=["head"])).look_at_model(1, tmp_path / "1.ckpt", True)
        [result] = [each for each in report.results if each.status is Status.FAILED]
        assert "round 1: tensor 'embed' is shared and 'head' is not, and both are one tensor of" in result.detail
        assert result.hint.startswith("give patterns that match both of these tensors, or neither")

    def test_training_of_what_is_not_shared_is_no_training(self, tmp_path: Path) -> None:
        first = {"w": np.ones(250, np.float32), "bn.w": np.ones(3, np.float32)}
        report = self.look(tmp_path, Parts(local=["bn*"]), first, {**first, "bn.w": first["bn.w"] + 1})
        assert TRAINS.name in report.named(Status.WARNED), "the same shared tensors again"

    def test_patterns_that_match_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(Over):
            self.look(tmp_path, Parts(local=["bm*"]), {"w": np.ones(2, np.float32)})
