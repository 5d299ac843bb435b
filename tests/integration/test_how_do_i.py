"""docs/how-do-i.md: every question has an answer, and every command of it works.

Answers that name a run go on from each other: their blocks run in the page's order, in one folder with the digits
example, a real server with a password, a finished run `mammo` and an open one, `trial`. Each other answer runs in a
folder of its own. What needs the internet, Docker or Windows (`console`) is not run; a hundred clients are six.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from buckets import S3
from pages import prepared
from redisserver import redis_server
from warm import starter_with

ROOT = Path(__file__).parents[2]
LIBRARIES = ("sklearn.datasets", "sklearn.svm", "xgboost")
PAGE = (ROOT / "docs" / "how-do-i.md").read_text()
SECTIONS = {
    title: re.findall(r"```(\w+)(?: (\w+))?\n(.*?)```", text, flags=re.DOTALL)
    for title, text in re.findall(r"^### … (.*?)\n(.*?)(?=^##|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
}


@dataclass
class Place:
    folder: Path
    environment: dict[str, str]

    def run(self, block: str, *, program: str = "bash") -> str:
        """What a block prints; it has to end well."""
        command = ["bash", "-euo", "pipefail", "-c", block] if program == "bash" else ["python", "-c", block]
        environment = self.environment | {"PYTHONPATH": f"{self.folder}:{self.environment['PYTHONPATH']}"}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment if program == "bash" else environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{block}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def status(self, run: str) -> dict:
        return json.loads(self.run(f"flavor status {run} --json"))


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the digits example, with the data of its sites."""
    folder = tmp_path_factory.mktemp("digits")
    for name in ("main.py", "prepare.py"):
        shutil.copy(ROOT / "examples" / "numpy-digits" / name, folder)
    for name in ("shell", "xgboost-bagged"):
        shutil.copytree(ROOT / "examples" / name, folder / "examples" / name)
    for name in ("aggregate", "evaluate"):
        (folder / f"{name}.py").write_text(labelled(name)[0])
    environment = prepared(tmp_path_factory.mktemp("home"), starter_with(*LIBRARIES))
    subprocess.run(["python", "prepare.py"], cwd=folder, env=environment, check=True, capture_output=True, timeout=100)
    shutil.copytree(folder / "site1", folder / "held-out")
    return folder


@pytest.fixture
def folder(sites: Path, tmp_path: Path) -> Place:
    """What an answer needs that names no run of before."""
    shutil.copytree(sites, tmp_path, dirs_exist_ok=True)
    environment = prepared(tmp_path, starter_with(*LIBRARIES))
    unplotted = ROOT / "tests" / "unplotted"  # to import matplotlib takes as long as a whole run
    return Place(tmp_path, environment | {"PYTHONPATH": f"{unplotted}:{environment['PYTHONPATH']}"})


@pytest.fixture
def place(folder: Place) -> Iterator[Place]:
    """The same with a server and two runs."""
    with redis_server(folder.folder / "redis", users_file=True, password="secret") as server:
        folder.environment["FLAVOR_REDIS_URL"] = server.url.replace("://:", "://default:")
        folder.environment["FLAVOR_STORE"] = str(folder.folder / "store")
        judged = "-e 'python evaluate.py' --select accuracy:max"
        judged += " --central-evaluate 'python evaluate.py' --evaluate-input held-out"
        folder.run(f"flavor run -m 'python main.py' --input-glob 'site*/' --rounds 4 --run mammo {judged}")
        folder.run("for site in site1 site2 site3; do flavor enroll mammo $site; done")
        serve = [*("flavor", "serve", "--run", "trial"), *("--rounds", "5", "--min-clients", "3")]
        with subprocess.Popen(
            serve, cwd=folder.folder, env=folder.environment, stderr=subprocess.PIPE, text=True
        ) as coordinator:
            assert coordinator.stderr
            assert any("is open for clients" in line for line in coordinator.stderr)
            coordinator.terminate()
            coordinator.stderr.read()
        yield folder


def accuracy_of(place: Place, model: str) -> float:
    """What evaluate.py measures of a model on the operator's own data."""
    script = f"""
import pickle
import numpy as np
from main import val
model = pickle.load(open({model!r}, "rb"))["state_dict"]
data = np.load("held-out/data.npz")
print(val(model, data["x_test"], data["y_test"])["accuracy"])
"""
    return float(place.run(script, program="python"))


def better_together(here: Place, printed: str) -> None:
    """What is printed is of both last models, on the same data."""
    alone, together = (accuracy_of(here, f"flavor-runs/{run}/global_model.pkl") for run in ("alone", "mammo"))
    assert alone < together
    assert re.search(rf"\[central\] .* {alone:.6g} .*central/accuracy {together:.6g},", printed, flags=re.DOTALL)


def best_found(here: Place, printed: str) -> None:
    with open(here.folder / "flavor-runs" / "mammo" / "evaluations.csv") as table:
        best = max(float(row["accuracy"]) for row in csv.DictReader(table) if row["accuracy"])  # by the sites
    assert accuracy_of(here, "best.pkl") == pytest.approx(best)


def stopped(here: Place, printed: str) -> None:
    assert "--stop-when 'accuracy>=0.8'" in printed
    assert here.status("early")["round"] < 50
    assert here.status("trial")["state"] == "stopped"


def resumed(here: Place, printed: str) -> None:
    assert here.status("trial")["rounds"] == 8
    assert here.status("trial")["state"] == "waiting"


def told(here: Place, printed: str) -> None:
    events = [json.loads(line)["event"] for line in (here.folder / "messages").read_text().splitlines()]
    assert events.count("round.closed") == 4


def nothing_else_left(here: Place, printed: str) -> None:
    assert "digest" in printed
    assert str(here.folder) not in printed


def personal(here: Place, printed: str) -> None:
    """Each site ends with a bias of its own, and with the weights of all."""
    paths = (here.folder / "flavor-runs" / "personal" / "clients").glob("site*/global/model.*")
    models = [pickle.loads(path.read_bytes())["state_dict"] for path in paths]
    assert len(models) == 3
    assert all(np.array_equal(models[0]["weight"], model["weight"]) for model in models)
    assert len({model["bias"].tobytes() for model in models}) == 3


AFTER: dict[str, Callable[[Place, str], None]] = {
    "know whether it is better than what a site had alone?": better_together,
    "find the best round?": best_found,
    "stop early?": stopped,
    "go on after a failure or a stop?": resumed,
    "get a message when something happens?": told,
    "know what leaves a site?": nothing_else_left,
    "keep layers at a site (personalisation)?": personal,
}


def test_every_question_has_an_answer_that_one_can_run() -> None:
    assert len(SECTIONS) > 30
    assert [title for title, blocks in SECTIONS.items() if not blocks] == []
    assert set(AFTER) <= set(SECTIONS)


ASKED = """TensorBoard MLflow browser evaluate best early resume FedProx SCAFFOLD differential secure LoRA
personalisation GPUs Kubernetes message notebook Windows WSL upgrade hurts settings 100 leaves aggregator Python XGBoost
slow key MinIO offline"""


@pytest.mark.parametrize("word", ASKED.split())
def test_what_people_ask_for_is_there_under_its_name(word: str) -> None:
    assert re.search(word, PAGE), word


def substituted(block: str, place: Place, s3: S3, bucket: str) -> str:
    """With this test's servers, and as many clients as a test may start."""
    block = block.replace("http://minio.example.org:9000", s3.endpoint()).replace("s3://federation", f"s3://{bucket}")
    block = block.replace("--edges 100 --fraction 0.1", "--edges 6 --fraction 0.5")
    return block.replace("redis-cli ", f"redis-cli -u {place.environment.get('FLAVOR_REDIS_URL')} ")


def carry_out(title: str, place: Place, s3: S3, bucket: str) -> None:
    """Run the blocks of an answer, and see what they have done."""
    printed = ""
    for language, label, block in SECTIONS[title]:
        if language == "bash":
            printed += place.run(substituted(block, place, s3, bucket))
        elif language == "python" and not label:
            printed += place.run(block, program="python")
    if title in AFTER:
        AFTER[title](place, printed)


RUNS = re.compile(r"\b(mammo|trial|alone)\b|--worker")
"""What an answer needs a run of before for, or a server."""
OF_RUNS = [title for title, blocks in SECTIONS.items() if any(RUNS.search(block) for _, _, block in blocks)]
BY_THEMSELVES = [
    title
    for title, blocks in SECTIONS.items()
    if title not in OF_RUNS and any(language in ("bash", "python") and not label for language, label, _ in blocks)
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_a_run_works(place: Place, s3: S3) -> None:
    bucket = s3.bucket()
    for title in OF_RUNS:
        carry_out(title, place, s3, bucket)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("title", BY_THEMSELVES)
def test_every_command_of_an_answer_works(folder: Place, s3: S3, title: str) -> None:
    carry_out(title, folder, s3, s3.bucket())


def labelled(label: str) -> list[str]:
    return [block for blocks in SECTIONS.values() for _, name, block in blocks if name == label]


def test_fedprox_stays_nearer_to_the_global_model(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    (snippet,) = labelled("fedprox")
    start, step = re.match(r"(.*?\nterm = .*?\n)(loss = .*)", snippet, flags=re.DOTALL).groups()
    goal = torch.tensor([[3.0, -1.0]])

    def trained(mu: str) -> object:
        monkeypatch.setenv("PROXIMAL_MU", mu)
        model = torch.nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, 1.0]]))
        names = {"torch": torch, "os": os, "model": model}
        exec(start, names)
        for _ in range(200):  # not by torch.optim.SGD, whose first use imports a compiler for seconds
            model.zero_grad()
            names["loss"] = ((model.weight - goal) ** 2).sum() / 2
            exec(step, names)
            names["loss"].backward()
            with torch.no_grad():
                model.weight -= 0.1 * model.weight.grad
        return model.weight.detach()

    assert torch.allclose(trained("0"), goal, atol=1e-4)
    assert torch.allclose(
        trained("3.0"), (goal + 3.0 * torch.tensor([[1.0, 1.0]])) / 4.0, atol=1e-4
    )  # (g + µ a) / (1 + µ)


def test_the_lines_of_scaffold_are_those_that_it_needs() -> None:
    torch = pytest.importorskip("torch")
    (snippet,) = labelled("scaffold")
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[2.0, -2.0]])
    before = model.weight.detach().clone()
    start, correct, finish = re.match(r"(.*?\n.*?\n)(.*?\n)(.*)", snippet).groups()
    names = {"model": model}
    exec(start + correct, names)
    with torch.no_grad():
        model.weight -= 0.1 * model.weight.grad
    exec(finish, names)
    assert torch.allclose(model.state_dict()["scaffold_c__weight"], (before - model.weight) / 0.1)


def test_an_aggregator_by_hand_weighs_as_the_default_rule_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {kind: [tmp_path / f"{kind}-{i}"] for i, kind in enumerate(("globalModel", "globalInfo"))}
    paths["localModels"] = [tmp_path / "a", tmp_path / "b"]
    for path, value in zip(paths["localModels"], (1.0, 5.0), strict=True):
        path.write_bytes(pickle.dumps({"state_dict": {"w": np.full(3, value, np.float32)}}))
    paths["globalInfo"][0].write_text('{"metadata": {"datasetSize": [300, 100]}}')
    for kind, named in paths.items():
        (tmp_path / f"{kind}.json").write_text(json.dumps(list(map(str, named))))
        (tmp_path / kind).write_text("".join(f"{path}\n" for path in named))
    monkeypatch.setenv("OUTPUT_PATH", str(tmp_path))
    exec(labelled("aggregate")[0], {})
    made = pickle.loads(paths["globalModel"][0].read_bytes())["state_dict"]["w"]
    assert made.tolist() == [2.0] * 3


def test_trees_of_each_round_alone_add_up_where_all_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The aggregator of the page's words: it remembers all trees, and appends the new ones of each site."""
    xgboost = pytest.importorskip("xgboost")
    (snippet,) = labelled("xgboost")
    monkeypatch.setenv("GLOBAL_MODEL_PATH", str(tmp_path / "global"))
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(tmp_path / "local"))
    coins = np.random.default_rng(1)
    parameters = {"objective": "binary:logistic", "base_score": 0.5, "max_depth": 2, "nthread": 1}
    data = [xgboost.DMatrix(x, label=x[:, 0] * x[:, 1] > 0) for x in coins.normal(size=(2, 200, 3))]
    sites = [{"os": os, "bst": xgboost.Booster(parameters, [each]), "dtrain": each} for each in data]
    everything, margins = None, []
    for _ in range(3):
        for site in sites:
            exec(snippet, site)
            update = (tmp_path / "local").read_bytes()
            margins.append(xgboost.Booster(model_file=bytearray(update)).predict(data[0], output_margin=True))
            new = json.loads(update)
            if everything is None:
                everything = new
                continue
            known, more = (each["learner"]["gradient_booster"]["model"] for each in (everything, new))
            known["trees"] += more["trees"]
            known["tree_info"] += more["tree_info"]
            known["iteration_indptr"] = list(range(len(known["trees"]) + 1))
            known["gbtree_model_param"]["num_trees"] = str(len(known["trees"]))
            for number, tree in enumerate(known["trees"]):
                tree["id"] = number
        (tmp_path / "global").write_text(json.dumps(everything))
    model = xgboost.Booster(model_file=bytearray((tmp_path / "global").read_bytes()))
    assert (model.num_boosted_rounds(), len(set(model.get_dump()))) == (6, 6)
    np.testing.assert_allclose(model.predict(data[0], output_margin=True), sum(margins), atol=1e-5)


def test_the_noise_is_added_to_a_change_of_bounded_length() -> None:
    (snippet,) = labelled("noise")
    start = {"w": np.ones((100, 100), np.float32)}
    for sigma in (0.0, 0.5):
        model = {"w": np.full((100, 100), 5.0, np.float32)}
        names = {"np": np, "start": start, "model": model, "CLIP": 2.0, "SIGMA": sigma}
        exec(textwrap.dedent(snippet), names | {"rng": np.random.default_rng(0)})
        change = model["w"].astype(np.float64) - start["w"]
        assert abs(change.mean() - 0.02) < 0.05
        assert abs(change.std() - 2.0 * sigma) < 0.05
        assert model["w"].dtype == np.float32
