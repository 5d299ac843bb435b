"""docs/fedtrain.md: every block of code and every command of it, run as it stands there.

Those that users bring from another guide are pinned by their digest: changing one here breaks what they paste.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import inspect
import json
import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import pydantic
import pytest
from warm import STARTER

import aumai_fedtrain
from aumai_fedtrain import (
    BusUpdateProvider,
    DiLoCoCoordinator,
    GradientAverager,
    HashVerifier,
    LocalUpdate,
    UpdateProvider,
)
from aumai_fedtrain.models import GlobalState
from flavor import errors
from tests.conftest import Bench
from tests.warmshim import shim

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "fedtrain.md").read_text()
REFERENCE = (ROOT / "docs" / "api-reference.md").read_text()
TRAINER = Path(__file__).with_name("fedtrain_trainer.py")
MODULES = {"aumai-fedtrain": "aumai_fedtrain.cli", "flavor": "flavor.cli.main", "flavor-fl": "flavor.cli.flavor_fl"}


@dataclass(frozen=True)
class Block:
    language: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, flags=re.DOTALL | re.MULTILINE)]
BROUGHT = {
    "version": "1730669a4e735b31",
    "train.json": "3f664f00b54696ef",
    "run": "8bbc28810616a5c5",
    "expected output": "387faeec2d71a678",
    "update.json": "75de66c6024ce686",
    "compute hash": "8d7919f491d502c7",
    "verify": "ebf34f2ab4b5156c",
    "provider": "7f6e5e619a2b18d4",
    "credits": "768e9dd424bfecf2",
    "single round": "48dc018547d4e4c3",
    "verify in a pipeline": "3237f11cb0acd58c",
    "http provider": "cbaa4b3a51a4ea28",
    "checkpoint": "fc6dc411ae72c942",
    "capabilities": "78ed474d86c1fd56",
    "torch": "abe8e66fb95a3767",
}
OURS = {
    "install": 'pip install -e ".[dev]"',
    "outer optimizer": "class Quadratic(UpdateProvider):",
    "live command": "--redis-url $FLAVOR_REDIS_URL",
    "live edges": "flavor-fl --run my-model-v1",
    "flavor credits": "flavor credits my-model-v1",
    "live python": 'BusUpdateProvider("live"',
}


def block(name: str) -> str:
    if name in BROUGHT:
        (found,) = (b.text for b in BLOCKS if b.digest == BROUGHT[name])
    else:
        (found,) = (b.text for b in BLOCKS if b.digest not in BROUGHT.values() and OURS[name] in b.text)
    return found


def test_no_block_is_left_out() -> None:
    assert [name for name, digest in BROUGHT.items() if digest not in {b.digest for b in BLOCKS}] == []
    assert {block(name) for name in (*BROUGHT, *OURS)} == {b.text for b in BLOCKS}
    assert len(BLOCKS) == len(BROUGHT) + len(OURS)


@pytest.fixture
def place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A folder to follow the guide in, where its commands are those under test."""
    shims = bench.folder / "bin"
    shims.mkdir()
    for name, module in {**MODULES, "python": ""}.items():
        (shims / name).write_text(shim(STARTER.shims, *(["-P", "-m", module] if module else [])))
        (shims / name).chmod(0o755)
    monkeypatch.chdir(bench.work)
    monkeypatch.setenv("PATH", f"{shims}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("VIRTUAL_ENV", str(bench.folder))  # so that edges leave PATH as it is
    monkeypatch.delenv("FLAVOR_REDIS_URL", raising=False)
    (bench.work / "train.json").write_text(block("train.json"))
    (bench.work / "update.json").write_text(block("update.json"))
    return bench


def shell(text: str, *, code: int = 0) -> str:
    done = subprocess.run(["bash", "-euc", text], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout


def python(text: str, capsys: pytest.CaptureFixture[str], **names: object) -> tuple[dict[str, object], str]:
    """Run a block here: the names it has made, and what it has printed."""
    capsys.readouterr()
    scope: dict[str, object] = {"__name__": "guide", **names}
    exec(compile(text, "docs/fedtrain.md", "exec"), scope)
    return scope, capsys.readouterr().out


def test_installation(place: Bench) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["dev"] == ["flavor[test]"]
    assert project["scripts"]["aumai-fedtrain"] == "flavor.cli.start:fedtrain"
    command, version = shell(block("version")).splitlines()
    assert command == f"aumai-fedtrain, version {version}"


def test_the_simulation_prints_what_is_shown(place: Bench) -> None:
    """Line by line the same text, with other numbers, each as long after the point."""
    number = r"\d+(?:\.\d+)?"
    shown, printed = block("expected output"), shell(block("run"))
    assert re.sub(number, "N", printed) == re.sub(number, "N", shown)
    assert [len(part.partition(".")[2]) for part in re.findall(number, printed)] == [
        len(part.partition(".")[2]) for part in re.findall(number, shown)
    ]
    loss = re.search(r"Final avg loss:\s+(\S+)", printed)
    assert loss is not None
    assert 0 < float(loss[1]) < 0.5
    assert "finished (simulation)" in shell("aumai-fedtrain status")


def test_the_hash_that_is_computed_is_the_one_that_verifies(place: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    _, printed = python(block("compute hash"), capsys)
    command = block("verify").splitlines()[0]
    placeholder = "<paste the hash here>"
    assert placeholder in command
    digest = printed.strip()
    promised = block("verify").splitlines()[1].removeprefix("# ").replace("<hash>", digest)
    assert shell(command.replace(placeholder, digest)) == promised + "\n"
    assert "FAILED" in shell(command.replace(placeholder, digest[::-1]), code=1)


def test_a_provider_of_ones_own_and_its_credits(place: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    scope, printed = python(block("provider"), capsys)
    assert re.fullmatch(r"Final loss:    0\.090718\nTotal samples: \d+\nDuration:      \d+\.\d{4}s\n", printed)
    result = scope["result"]
    _, listed = python(block("credits"), capsys, coordinator=scope["coordinator"])
    lines = re.findall(r"^  (node-\d): (\d+) samples$", listed, flags=re.MULTILINE)
    assert [name for name, _ in lines] == ["node-0", "node-1", "node-2", "node-3"]
    assert sum(int(samples) for _, samples in lines) == result.total_samples  # type: ignore[attr-defined]
    assert listed.endswith(f"node-0 contributed {lines[0][1]} samples total\n")


def test_a_single_round_and_its_checkpoint(place: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    scope, printed = python(block("single round"), capsys)
    assert printed == (
        "Initialised at round 0\nAfter round 1: avg_loss=0.45\n"
        "Averaged weights: {'w': [0.15000000000000002, 0.15000000000000002]}\n"
    )
    coordinator, state = scope["coordinator"], scope["new_state"]
    assert isinstance(coordinator, DiLoCoCoordinator)
    assert isinstance(state, GlobalState)
    while state.round_id < 5:  # the block reads the checkpoint of round 5
        updates = [each.model_copy(update={"round_id": state.round_id + 1}) for each in scope["updates"]]  # type: ignore[attr-defined]
        state = coordinator.run_round(state, updates)
    restored, printed = python(block("checkpoint"), capsys, state=state)
    assert printed == "Restored from round 5\n"
    assert restored["restored_state"] == state
    assert (place.work / "checkpoint_round_5.json").exists()


def test_verification_in_a_pipeline(place: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    scope, _ = python(block("verify in a pipeline"), capsys)
    tampered = block("verify in a pipeline").replace(
        "# On the receiving", "update = update.model_copy(update={'gradients': {'w': [9.0]}})\n# On the receiving"
    )
    with pytest.raises(ValueError, match="Gradient tampering detected from node-0"):
        python(tampered, capsys)
    assert HashVerifier.compute_hash({"b": [0.001], "w": [0.01, -0.02, 0.005]}) == scope["hash_digest"]


def test_the_other_blocks(place: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = python(block("capabilities"), capsys)[0]["nodes"]
    assert [node.capabilities.get("gpu_model") for node in nodes] == ["A100", None]  # type: ignore[attr-defined]
    provider = python(block("http provider"), capsys)[0]["HttpUpdateProvider"]
    assert issubclass(provider, UpdateProvider)  # type: ignore[arg-type]

    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    model(torch.ones(3)).sum().backward()
    gradients = python(block("torch"), capsys, model=model)[0]["gradients"]
    update = LocalUpdate(node_id="t", round_id=1, gradients=gradients, loss=1.0, samples_used=1)  # type: ignore[arg-type]
    assert GradientAverager.average([update]) == gradients  # matrices keep their shape
    assert len(update.gradients["0.weight"][1]) == 3


def test_the_outer_optimizer(place: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    _, printed = python(block("outer optimizer"), capsys)
    first, second = printed.splitlines()
    near = [float(number) for number in re.findall(r"-?\d+\.\d*", first)]
    assert near == pytest.approx([2.0, 2.0], abs=0.05)
    assert second.startswith("40 {'w': ")


def test_live_nodes(place: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, with the edges' commands as they stand there."""
    place.redis.delete("flavor:fedtrain:sessions")
    monkeypatch.setenv("FLAVOR_REDIS_URL", place.url)
    (place.work / "main.py").write_text(TRAINER.read_text())
    sites = block("live edges").strip().splitlines()
    assert len(sites) == 2
    for run, start in (("my-model-v1", "live command"), ("live", "live python")):
        for key in place.redis.scan_iter(match=f"flavor:{{{run}}}*"):
            place.redis.delete(key)
        started = [
            subprocess.Popen(["bash", "-euc", f"exec {line.replace('my-model-v1', run)}"], stdout=subprocess.DEVNULL)
            for line in sites
        ]
        try:
            if start == "live command":
                printed = shell(block(start))
                assert "Rounds completed:  5/5" in printed
                assert "site-2: 100 samples" in printed
                shown = shell(block("flavor credits")).split()
                assert shown[4:] == ["site-1", "5", "50", "33.3%", "site-2", "5", "100", "66.7%"]
            else:
                printed = python(block(start), capsys)[1]
                assert printed.splitlines()[-1] == "3 90"
            assert [edge.wait(30) for edge in started] == [0, 0]
        finally:
            for edge in started:
                edge.kill()
                edge.wait()
    seen = json.loads((place.work / "flavor-work" / "live" / "site-1" / "output" / "seen.json").read_text())
    assert (seen["LEARNING_RATE"], seen["BATCH_SIZE"], seen["LOCAL_STEPS"]) == ("0.01", "16", "5")


QUICKSTART = """10 rounds, final loss 0.000000
y = 2.000 x + 1.000
  node-0: 3200 samples
  node-1: 3200 samples
  node-2: 3200 samples
round 1: loss 0.076830 from node-0, node-1, node-2
round 2: loss 0.006325 from node-0, node-1, node-2
round 3: loss 0.000378 from node-0, node-1, node-2
round 2 alone: {'node-0': 320, 'node-1': 320, 'node-2': 320}
as sent: True, changed: False
"""


def test_the_quickstart(place: Bench) -> None:
    assert shell(f"python {ROOT / 'examples' / 'quickstart.py'}") == QUICKSTART


def test_the_blocks_of_the_reference_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", REFERENCE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    scope: dict[str, object] = {}
    for text in blocks:
        scope, _ = python(text, capsys, **scope)


def parameters(call: object) -> str:
    """As the reference writes them: names, defaults, and where keywords begin."""
    found = list(inspect.signature(call).parameters.values())  # type: ignore[arg-type]
    shown, keywords = [], False
    for each in found:
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and not keywords:
            shown.append("*")
            keywords = True
        shown.append(each.name if each.default is each.empty else f"{each.name}={each.default!r}".replace("'", '"'))
    return ", ".join(shown)


def section(name: str, level: int = 2) -> str:
    """The text below a heading of the reference, up to the next heading."""
    return re.split(r"^##", REFERENCE.split(f"\n{'#' * level} {name}\n")[1], flags=re.MULTILINE)[0]


def table(text: str, head: str) -> list[str]:
    """The first column of the table with this head, without its backticks."""
    rows = text.split(f"\n| {head} |")[1].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    return [row.split("`")[1] for row in rows]


def public(owner: type, kind: type) -> dict[str, Any]:
    return {name: each for name, each in vars(owner).items() if isinstance(each, kind) and name[0] != "_"}


def methods(owner: type) -> list[str]:
    return sorted(f"{name}({parameters(method)})" for name, method in public(owner, FunctionType).items())


def test_the_reference_has_every_name_and_the_codes_signatures_and_fields() -> None:
    for name in set(aumai_fedtrain.__all__) - {"__version__"}:
        assert f"`{name}" in REFERENCE or f"# {name}" in REFERENCE, name
    for owner in (DiLoCoCoordinator, UpdateProvider):
        assert sorted(table(section(owner.__name__), "method")) == methods(owner)
    assert sorted(table(section("DiLoCoCoordinator"), "property")) == sorted(public(DiLoCoCoordinator, property))
    for owner, level in ((DiLoCoCoordinator, 2), (BusUpdateProvider, 3)):
        arguments = list(inspect.signature(owner).parameters)
        assert table(section(owner.__name__, level), "argument") == arguments, owner
    calls = [
        f"{owner.__name__}.{name}({parameters(getattr(owner, name))})"
        for owner in (GradientAverager, HashVerifier, aumai_fedtrain.CreditTracker)
        for name in vars(owner)
        if name[0] != "_"
    ]
    assert sorted(table(section("GradientAverager, HashVerifier, CreditTracker"), "call")) == sorted(calls)
    assert f"`SimulatedProvider({parameters(aumai_fedtrain.SimulatedProvider)})`" in REFERENCE
    for model in ("FederatedNode", "TrainingConfig", "LocalUpdate", "GlobalState", "TrainingResult"):
        assert table(section(model, 3), "field") == list(getattr(aumai_fedtrain, model).model_fields), model


OF_COMMANDS = ("cli", "files", "options", "recording", "report", "session")
"""Modules of the command alone."""
KNOWN_ERRORS = {**vars(builtins), **vars(errors), "ValidationError": pydantic.ValidationError}


def errors_of_the_code() -> set[str]:
    """The errors that the package raises, or names in a docstring, but for those of its command alone."""
    found = set()
    for path in Path(aumai_fedtrain.__file__).parent.glob("*.py"):
        if path.stem in (*OF_COMMANDS, "__init__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                found.add(node.exc.func.id)
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found |= set(re.findall(r"\b[A-Z]\w+\b", ast.get_docstring(node) or ""))
    return {name for name in found if is_error(KNOWN_ERRORS.get(name))}


def is_error(known: object) -> bool:
    return isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, Warning)


def test_the_reference_has_the_codes_errors_and_says_which_are_value_errors() -> None:
    rows = re.findall(r"^\| `(\w+)`(?: \(pydantic\))? \| (yes|no) \|", section("Errors"), flags=re.MULTILINE)
    said = {name: answer == "yes" for name, answer in rows}
    assert said == {name: issubclass(KNOWN_ERRORS[name], ValueError) for name in said}
    named = errors_of_the_code() - {"ValueError"}  # inside models, where pydantic makes a ValidationError of it
    assert named - said.keys() <= {"UpdatesRefused"}, "the provider itself handles that one"
    others = said.keys() - {"ValidationError", "TypeError", "NotImplementedError"}
    assert all(issubclass(KNOWN_ERRORS[name], errors.FlavorError) for name in others)
