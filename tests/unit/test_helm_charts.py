"""The Helm charts: what they render, that Kubernetes knows every field, and which values they refuse."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from flavor import __version__
from flavor.bus.bounds import BOUNDS
from flavor.cli.flavor_fv import command as flavor_fv
from flavor.cli.serve import serve
from flavor.sizes import parse_size
from tests import charts

FILES = charts.HELM / "flavor" / "files"


@charts.needs_helm
@pytest.mark.timeout(180)
def test_all_that_is_generated_is_as_the_charts_say(subtests: pytest.Subtests) -> None:
    for path, text in charts.generated().items():
        with subtests.test(path.name):
            assert path.read_text() == text, f"{path}: after a change that is meant, run python -m tests.charts"


@charts.needs_helm
def test_kubernetes_knows_every_field() -> None:
    for name, manifests in charts.all_sets().items():
        assert charts.invalid(manifests) == [], name
        known = Counter((each["kind"], each["metadata"]["name"]) for each in manifests)
        assert max(known.values()) == 1, name
        assert all(each["metadata"]["namespace"] == ("flavor" if name == "plain" else "fl") for each in manifests)
    for name in ("folder-and-keda", "edge"):
        assert charts.invalid(charts.all_sets()[name], charts.OLDEST) == [], name
    broken = [
        {**each, "spec": {**each["spec"], "replica": 1}} for each in charts.all_sets()["bucket"] if "spec" in each
    ]
    assert len(charts.invalid(broken)) == len(broken)


def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in manifests
        if "template" in each.get("spec", {})
    }


@charts.needs_helm
def test_every_container_is_restricted() -> None:
    """What the restricted Pod Security Standard asks for, a root that is read-only, limits and probes."""
    for manifests in charts.all_sets().values():
        found = pods(manifests)
        assert found
        for name, pod in found.items():
            security = pod["securityContext"]
            assert security["runAsNonRoot"] is True, name
            assert security["runAsUser"] >= 10001, name
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert pod["automountServiceAccountToken"] is False, name
            for container in [*pod["containers"], *pod.get("initContainers", [])]:
                own = container["securityContext"]
                assert own["readOnlyRootFilesystem"], name
                assert own["allowPrivilegeEscalation"] is False, name
                assert own["capabilities"] == {"drop": ["ALL"]}, name
                assert container["resources"], name
                volumes = {volume["name"] for volume in pod["volumes"]} | {"data"}
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
            for container in pod["containers"]:
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), name


@charts.needs_helm
def test_the_cache_of_a_pod_takes_half_of_the_folder_that_it_is_in() -> None:
    """The cache's own default is larger than these folders: Kubernetes would end the pod, or its disk would be full."""
    found = []
    for manifests in charts.all_sets().values():
        claims = {each["metadata"]["name"]: each["spec"] for each in manifests if "Claim" in each["kind"]}
        for pod in pods(manifests).values():
            env = {each["name"]: each.get("value") for each in pod["containers"][0].get("env", [])}
            if folder := env.get("FLAVOR_STORE_CACHE"):
                mounts = {each["mountPath"]: each["name"] for each in pod["containers"][0]["volumeMounts"]}
                volumes = {each["name"]: each for each in pod["volumes"]}
                volume = volumes[mounts[str(Path(folder).parent)]]
                if "emptyDir" in volume:
                    size = volume["emptyDir"]["sizeLimit"]
                else:
                    claim = claims[volume["persistentVolumeClaim"]["claimName"]]
                    size = claim["resources"]["requests"]["storage"]
                cache = parse_size(env["FLAVOR_STORE_CACHE_SIZE"], "cache")
                found.append(cache / parse_size(f"{size}B", "folder"))
    assert len(found) > 15
    assert all(0.45 < each <= 0.5 for each in found), found


@charts.needs_helm
def test_every_pod_has_a_network_policy() -> None:
    for name, manifests in charts.all_sets().items():
        selectors = [
            each["spec"]["podSelector"]["matchLabels"] for each in manifests if each["kind"] == "NetworkPolicy"
        ]
        for each in manifests:
            if "template" in each.get("spec", {}):
                labels = each["spec"]["template"]["metadata"]["labels"]
                assert [one for one in selectors if one.items() <= labels.items()], (name, each["metadata"]["name"])


@charts.needs_helm
def test_no_list_without_ports_is_a_rule_for_all_ports() -> None:
    proxy = {"extraEgress": [{"ports": [{"port": 3128}], "to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]}]}
    values = {"store": {"url": "s3://a/b", "ports": []}, "networkPolicy": proxy, "metrics": {"enabled": True}}
    site = {"tokenSecret": "t", "image": "x", "networkPolicy": proxy | {"ports": []}}
    answers = charts.rendered({"flavor": ("flavor", values), "edge": ("flavor-edge", site)})
    policies = [
        each["spec"] for manifests in [*answers.values(), *charts.all_sets().values()] for each in manifests
        if each["kind"] == "NetworkPolicy"
    ]  # fmt: skip
    assert len(policies) > 20
    for each in policies:
        for rule in [*each.get("ingress", []), *each.get("egress", [])]:
            assert rule["ports"], each
    for manifests in answers.values():
        programs = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy" and "egress" in each["spec"]]
        assert programs
        assert all(each["egress"][-1] == proxy["extraEgress"][0] for each in programs)


@charts.needs_helm
def test_a_site_that_judges_ends_with_the_run() -> None:
    site = {"tokenSecret": "t", "image": "x", "program": "flavor-fv", "main": "python judge.py"}
    manifests = charts.rendered({"judge": ("flavor-edge", site)})["judge"]
    (job,) = (each for each in manifests if each["kind"] == "Job")
    context = click.Context(flavor_fv)
    found, rest, _ = flavor_fv.make_parser(context).parse_args(job["spec"]["template"]["spec"]["containers"][0]["args"])
    assert (found["until_end"], rest) == (True, [])


REFUSED: list[dict[str, Any]] = yaml.safe_load((charts.GOLDEN / "refused.yaml").read_text())


@charts.needs_helm
def test_values_that_contradict_each_other_are_refused_in_one_line(subtests: pytest.Subtests) -> None:
    answers = charts.rendered({str(index): (each["chart"], each["values"]) for index, each in enumerate(REFUSED)})
    for index, each in enumerate(REFUSED):
        with subtests.test(each["line"]):
            answer = answers[str(index)]
            assert isinstance(answer, str), each["values"]
            assert each["line"] in answer
            if "execution error" in answer:
                assert len(answer.splitlines()) == 1


def sample(name: str, kind: dict[str, Any]) -> tuple[Any, Any]:
    """A value of an option of a run, and what click's parser makes of the words that the chart writes."""
    if name == "set":
        return {"RATE": 0.01, "FAST": True}, ["FAST=true", "RATE=0.01"]
    if name == "set-for":
        return {"site-1": {"SIZE": 16}, "site-2": {"SIZE": -1}}, [("site-1", "SIZE=16"), ("site-2", "SIZE=-1")]
    if "enum" in kind:
        return kind["enum"][-1], kind["enum"][-1]
    of = kind["type"]
    if of == "boolean":
        return True, True
    if "array" in of:
        return ["-a b", "c=d"], ["-a b", "c=d"]
    if of == "number":
        return (1.5e-7, "1.5e-07") if "minimum" not in kind else (1.5, "1.5")
    number = min(123456789, kind.get("maximum", 0))
    return (number, str(number)) if of == "integer" else ("-x y:'1'", "-x y:'1'")


@charts.needs_helm
def test_every_option_of_a_run_reaches_flavor_serve_as_it_was_given() -> None:
    (runs,) = charts.schema_of("flavor")["properties"]["runs"]["patternProperties"].values()
    samples = {name: sample(name, kind) for name, kind in runs["properties"].items()}
    assert len(samples) > 40
    given = {name: value for name, (value, _) in samples.items() if name != "from-run"}
    values = {
        "store": {"url": "s3://a/b"},
        "runs": {"r": given},
    }
    answer = charts.rendered({"all": ("flavor", values | {"aggregator": {"terminationGracePeriodSeconds": 9}})})["all"]
    assert isinstance(answer, list), answer
    (job,) = (each for each in answer if each["kind"] == "Job")
    context = click.Context(serve)
    found, rest, _ = serve.make_parser(context).parse_args(job["spec"]["template"]["spec"]["containers"][0]["args"])
    names = {each.opts[0].removeprefix("--"): each.name for each in serve.get_params(context)}
    assert rest == []
    for name in given:
        value = found[names[name]]
        expected = samples[name][1]
        assert value == expected or (getattr(value, "__len__", None) and list(value) == [expected]), name


INSTALL = re.compile(r"\$ helm (?:install|upgrade) \S+ deploy/helm/(\S+)((?:[^\n]*\\\n)*[^\n]*)")


@charts.needs_helm
def test_what_the_pages_install_can_be_installed() -> None:
    page = charts.PAGE.read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    asked: dict[str, tuple[str, dict[str, Any] | str]] = {
        f"block {index}": ("flavor", {"store": {"url": "s3://models/flavor"}} | block)
        for index, block in enumerate(blocks)
    }
    both = page + (charts.ROOT / "docs" / "how-do-i.md").read_text()
    for index, (chart, words) in enumerate(INSTALL.findall(both)):
        pairs = [word for word in shlex.split(words.replace("\\\n", " ")) if "=" in word]
        more = ["store.url=s3://a/b", "runs.digits.rounds=9"] if "--reuse-values" in words else []
        asked[f"command {index}"] = (chart, ",".join([*pairs, *more]))
    assert (len(blocks), len(asked) - len(blocks)) == (5, 5)
    for name, answer in charts.rendered(asked).items():
        assert isinstance(answer, list), (name, answer)
        assert charts.invalid(answer) == [], name


@charts.needs_helm
def test_the_longest_name_of_a_release_makes_no_name_too_long() -> None:
    values = {"store": {"url": "s3://a/b"}, "runs": {"r" * 63: {"rounds": 1}}, "metrics": {"enabled": True}}
    manifests = charts.rendered({"long": ("flavor", values)}, name="a" * 53)["long"]
    assert isinstance(manifests, list), manifests
    assert max(len(each["metadata"]["name"]) for each in manifests) <= 63
    assert max(len(value) for each in manifests for value in each["metadata"]["labels"].values()) <= 63


def test_redis_is_bounded() -> None:
    text = (FILES / "redis.conf").read_text()
    for name, value in BOUNDS.items():
        assert f"\n{name} {value}\n" in text


def test_the_charts_are_of_this_release() -> None:
    for name in charts.CHARTS:
        chart = yaml.safe_load((charts.HELM / name / "Chart.yaml").read_text())
        assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
        assert chart["kubeVersion"] == f">={charts.OLDEST}.0-0"
    project = tomllib.loads((charts.ROOT / "pyproject.toml").read_text())["project"]
    assert any(each.startswith("helm-python-sdk") for each in project["optional-dependencies"]["test"])
    kustomization = yaml.safe_load((charts.KUSTOMIZE / "kustomization.yaml").read_text())
    assert {each["newTag"] for each in kustomization["images"]} == {__version__}


@charts.needs_helm
def test_kustomize_builds_the_plain_manifests() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here (apt-get install kubernetes-client)")
    command = ["kubectl", "kustomize", str(charts.KUSTOMIZE)]
    built = subprocess.run(command, capture_output=True, text=True, check=True)
    manifests = list(yaml.load_all(built.stdout, yaml.CSafeLoader))
    assert charts.invalid(manifests) == []
    chart = charts.all_sets()["plain"]
    assert len(manifests) == len(chart)
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in manifests}
    for each in chart:
        assert by_name[each["kind"], each["metadata"]["name"]] == each
    assert "Secret" not in {each["kind"] for each in manifests}
