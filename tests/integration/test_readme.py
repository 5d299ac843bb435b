"""What the README shows runs as it is shown."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from warm import starter_with

from tests.unit.cli.test_command_line import PROGRAMS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PREAMBLE = """
def train(model, optimizer, data):
    for x, y in data:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()

def validate(model):
    return 0.5

model = torch.nn.Linear(30, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
examples = torch.utils.data.TensorDataset(torch.randn(30, 30), torch.randn(30, 2))
data = torch.utils.data.DataLoader(examples, batch_size=8)
"""


@pytest.mark.slow
def test_the_snippet_is_a_federated_script(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    placeholder = next(line for line in snippet.splitlines() if "= ..." in line)
    (tmp_path / "main.py").write_text(snippet.replace(placeholder, PREAMBLE))
    command = [sys.executable, "-P", "-m", "flavor.cli.check_fl", "--json", "-m", f"{sys.executable} main.py"]
    done = starter_with("torch._dynamo").run(command, cwd=tmp_path)
    report = json.loads(done.stdout)
    assert [check for check in report["checks"] if check["status"] != "passed"] == []
    assert done.returncode == 0
    (info,) = [check["detail"] for check in report["checks"] if check["name"] == "writes info.json"]
    assert info.endswith("; datasetSize: 30 examples"), "not the number of batches"


def test_flavor_is_installed_into_the_scripts_environment_before_the_snippet() -> None:
    section = README.partition("## Federate your script")[2]
    assert re.search(r"^    pip install '/path/to/flavor", section.partition("```python")[0], flags=re.MULTILINE)


def test_every_file_it_links_to_is_there() -> None:
    for file in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/*/README.md"),
    ]:
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.relative_to(ROOT)} links to {target}"


def test_every_command_it_shows_is_one() -> None:
    pages = "\n".join([README, *((ROOT / "docs" / name).read_text() for name in ("your-script.md", "operate.md"))])
    words = re.findall(
        r"^    (?:[A-Z_]+=\S+ )?(flavor|flavor-fl|flavor-agg|check-fl)((?: .*)?)$", pages, flags=re.MULTILINE
    )
    assert len(words) >= 20

    @functools.cache
    def shown(program: str, *verb: str) -> str:
        done = CliRunner().invoke(PROGRAMS[program], [*verb, "--help"])
        assert done.exit_code == 0, done.output
        return done.stdout

    for program, rest in words:
        options = [word for word in rest.partition("#")[0].split() if word.startswith("-")]
        verb = rest.split()[:1] if program == "flavor" else []
        text = shown(program, *verb)
        for option in options:
            assert re.search(rf"{re.escape(option)}[, \n]", text), f"{program} {verb} has no {option}"


AGGREGATION = (ROOT / "docs" / "aggregation.md").read_text()


def test_the_notebook_of_the_aggregation_page_runs(tmp_path: Path) -> None:
    notebook, _ = re.findall(r"```python\n(.*?)```", AGGREGATION, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", notebook], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["global.npz", "global.state", "site1.npz", "site2.npz"]


def test_the_rules_of_the_aggregation_page_work_as_a_package(tmp_path: Path) -> None:
    _, rules = re.findall(r"```python\n(.*?)```", AGGREGATION, flags=re.DOTALL)
    (points,) = re.findall(r"```toml\n\[.*?\]\n(.*?)```", AGGREGATION, flags=re.DOTALL)
    (tmp_path / "acme_rules.py").write_text(rules)
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flavor.aggregators]\n" + points.replace('"', ""))
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import numpy as np
from aggregators import aggregate, catalogue
for entry in catalogue()[-2:]:
    print(entry.kind, entry.usage, entry.description, entry.source, entry.condition, sep=" | ")
clients = [{{"w": np.array([value, 1.0])}} for value in (1.0, 2.0, 30.0)]
old = {{"w": np.zeros(2)}}
print(aggregate(clients, aggregator="winsorized:share=0.5", server_step="damped:rate=0.25", global_model=old)["w"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "server step | damped:[rate=0.5] | θ' = θ + rate (reduced - θ) | acme 1.0 | see there",
        "reducer | winsorized:[share=0.1] | Mean of each coordinate, its extreme values moved to the quantiles `share` "
        "and 1 - share | Tukey 1962 | n >= 3",
        "[0.5  0.25]",
    ]


def test_the_aggregation_page_has_every_rule() -> None:
    from aggregators import catalogue

    for entry in catalogue():
        assert f"`{entry.name}" in AGGREGATION
        for option in entry.options or {}:
            assert re.search(rf"\b{option}\b", AGGREGATION), option
