"""What the container files promise, read as text: they are run by hand, on a machine that has an engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from flavor.bus.bounds import BOUNDS

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()
EXAMPLE = ROOT / "examples" / "compose"


def stages() -> dict[str, str]:
    """Each stage's instructions, by its name."""
    parts = re.split(r"^FROM (\S+) AS (\S+)\n", DOCKERFILE, flags=re.MULTILINE)
    return {
        name: f"FROM {base}\n{body}" for base, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def services() -> dict[str, str]:
    """Each service's block, by its name."""
    block = re.search(r"^services:\n(.*?)^volumes:", COMPOSE, flags=re.MULTILINE | re.DOTALL)
    assert block
    parts = re.split(r"^  ([\w-]+):\n", block[1], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_demo_has_three_sites_two_aggregators_a_coordinator_a_page_and_redis() -> None:
    demo = [name for name, block in services().items() if "    profiles:" not in block]
    assert demo == ["redis", "coordinator", "aggregator", "edge-a", "edge-b", "edge-c", "ui"]
    assert re.search(r"^    scale: 2$", services()["aggregator"], flags=re.MULTILINE)


def test_nothing_is_published_to_other_machines() -> None:
    assert not re.search(r"^\s*(network_mode|privileged):", COMPOSE, flags=re.MULTILINE)
    published = re.findall(r"^    ports: (.*)$", COMPOSE, flags=re.MULTILINE)
    here = r'\["127\.0\.0\.1:(?:(\d+):\1|\$\{FLAVOR_\w+_PORT:-(\d+)\}:\2)"\]'
    assert all(re.fullmatch(here, each) for each in published), published
    assert COMPOSE.count("ports:") == len(published)


def test_the_profile_observability_scrapes_flavor_metrics_with_its_token() -> None:
    chosen = {name: block for name, block in services().items() if "    profiles: [observability]" in block}
    assert list(chosen) == ["metrics", "prometheus", "grafana"]
    token = "FLAVOR_METRICS_TOKEN: ${FLAVOR_METRICS_TOKEN:-only-a-demo}"
    assert token in chosen["metrics"]
    assert token in chosen["prometheus"]
    for file in re.findall(r"\./(deploy/\S+?):", COMPOSE):
        assert (ROOT / file).exists(), file
    config = (ROOT / "deploy" / "observability" / "compose-prometheus.yml").read_text()
    assert 'targets: ["metrics:9600"]' in config
    assert "> /tmp/metrics.token" in chosen["prometheus"]
    assert "credentials_file: /tmp/metrics.token" in config


def test_the_page_asks_for_a_token_that_the_first_lines_name() -> None:
    assert "FLAVOR_UI_TOKEN: ${FLAVOR_UI_TOKEN:-only-a-demo}" in services()["ui"]
    assert "http://localhost:8600/?token=only-a-demo" in COMPOSE
    assert 'CMD ["flavor", "ui", "--host", "0.0.0.0", "--no-open"]' in stages()["ui"]


def test_redis_keeps_what_it_was_told() -> None:
    assert "--appendonly yes --appendfsync everysec" in services()["redis"]
    assert 'volumes: ["redis:/data"]' in services()["redis"]
    assert re.search(r"--maxmemory \S+ --maxmemory-policy noeviction --maxmemory-clients \d+%", services()["redis"])


@pytest.mark.parametrize("place", ["compose.yaml", "docs/deployment.md"])
def test_one_client_takes_neither_all_memory_nor_all_time_of_redis(place: str) -> None:
    text = " ".join((ROOT / place).read_text(encoding="utf-8").replace('"', "").split())
    before = "--" if place == "compose.yaml" else ""
    for name, value in BOUNDS.items():
        assert f" {before}{name} {value} " in text, name


def test_plain_redis_is_allowed_where_it_is_used() -> None:
    assert "FLAVOR_REDIS_URL: redis://" in COMPOSE
    assert re.search(r'^  FLAVOR_INSECURE: "1"', COMPOSE, flags=re.MULTILINE)


@pytest.mark.parametrize("service", ["redis", "coordinator", "aggregator", "ui"])
def test_a_service_that_others_wait_for_has_a_health_check(service: str) -> None:
    assert "healthcheck:" in services()[service]


def test_every_image_that_compose_builds_is_a_stage() -> None:
    targets = re.findall(r"target: (\S+)", COMPOSE)
    assert sorted(targets) == ["aggregator", "coordinator", "demo-edge", "metrics", "redis", "ui"]
    assert set(targets) <= set(stages())


def test_no_container_runs_as_root() -> None:
    assert "USER 10001:10001" in stages()["runtime"]
    for name in ("edge", "aggregator", "coordinator", "metrics", "ui", "demo-edge"):
        assert stages()[name].startswith(("FROM runtime\n", "FROM edge\n"))
        assert "USER" not in stages()[name]
    assert stages()["redis"].rstrip().endswith("USER redis")


def test_an_edge_is_started_as_the_guide_says_and_by_a_shell_that_steps_aside() -> None:
    edge = stages()["edge"].splitlines()
    assert 'ENV PROCESS="python main.py"' in edge
    assert edge.index('SHELL ["/bin/bash", "-c"]') < edge.index('CMD flavor-fl -m "${PROCESS}"')


def test_the_images_hold_every_package_of_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"COPY {package}/ {package}/" in stages()["builder"]
        assert f"\n!{package}\n" in (ROOT / ".dockerignore").read_text()


def test_the_images_hold_the_base_dependencies_only() -> None:
    assert "['project']['dependencies']" in stages()["builder"]
    assert 'ARG PACKAGES=""\nRUN test -z "$PACKAGES" ||' in stages()["builder"]
    assert "optional" not in DOCKERFILE
    assert not re.search(r"pip install .*\[", DOCKERFILE)


def test_sites_see_different_digits_and_the_same_test(tmp_path: Path) -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(EXAMPLE / "data.py"), str(tmp_path)], check=True, env=environment)
    counts, tests = [], []
    for site in ("site-a", "site-b", "site-c"):
        with np.load(tmp_path / site / "train.npz") as train, np.load(tmp_path / site / "test.npz") as test:
            counts.append(np.bincount(train["y"], minlength=10) / len(train["y"]))
            tests.append(test["y"])
            assert train["x"].shape == (len(train["y"]), 72)
    assert np.abs(np.diff(counts, axis=0)).sum(axis=1).min() > 0.8
    assert all((one == tests[0]).all() for one in tests)
