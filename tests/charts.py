"""The Helm charts of deploy/helm, rendered as Helm does it, and what is generated from them and for them.

`python -m tests.charts` writes again, after a change that is meant: the golden renderings (tests/golden/helm), the
schemas of the values, the users of the Redis, the tables of docs/kubernetes.md, and the manifests of deploy/kustomize.
Read its difference.

The library that renders is Helm's own code in Go, with threads and signal handlers of its own: it stays in a process of
its own, which renders and checks all that is asked for.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from flavor.bus import acl
from tests.chart_values import CHARTS, HELM, PAGE, page_with_tables, schema_of
from tests.custom_resources import CUSTOM

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "helm"
KUSTOMIZE = ROOT / "deploy" / "kustomize"
OLDEST, NEWEST = "1.28", "1.37"
"""The oldest Kubernetes that the charts name, and the newest one whose schemas there are."""
RELEASE = {"name": "demo", "namespace": "fl"}

FIRST = "bucket"
"""The rendering whose golden file is whole. Those of the same chart are what differs from it."""
SETS: dict[str, tuple[str, dict[str, Any]]] = {
    FIRST: ("flavor", {"store": {"url": "s3://models/flavor"}, "runs": {"digits": {"rounds": 20, "min-clients": 3}}}),
    "folder-and-keda": (
        "flavor",
        {
            "store": {"claim": {"create": True, "storageClassName": "nfs"}},
            "runs": {
                "Mammo.1": {
                    "rounds": 1000000,
                    "quorum": "60%",
                    "max-update-norm": 2.5,
                    "share-names": True,
                    "require-signatures": False,
                    "stop-when": ["pooled/accuracy>=0.95", "worst/loss<=1"],
                    "set": {"LEARNING_RATE": 0.01, "FAST": True, "HUGE": 1e22},
                    "set-for": {"site-1": {"BATCH_SIZE": 16}},
                    "aggregation-timeout-s": 7200.5,
                },
                "second": {"rounds": 2},
            },
            "aggregator": {"keda": {"enabled": True, "maxReplicas": 8}},
            "podSecurity": {"user": 1000690000, "group": 1000690001},
        },
    ),
    "own-redis": (
        "flavor",
        {
            "store": {"url": "s3://models/flavor", "credentialsSecret": "bucket", "readerSecret": "bucket-reader"},
            "runs": {"digits": {"rounds": 20, "min-clients": 3}},
            "redis": {
                "enabled": False,
                "external": {
                    "existingSecret": "redis",
                    "keys": {"worker": "worker-url", "viewer": "viewer-url"},
                    "port": 6380,
                    "caSecret": "redis-ca",
                    "keda": {"address": "redis.example.org:6380", "existingSecret": "redis-keda", "database": 3},
                },
            },
            "aggregator": {"keda": {"enabled": True, "minReplicas": 1, "jobsPerPod": 2}},
            "ui": {"enabled": False},
            "operator": {"enabled": False},
            "metrics": {"enabled": True, "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
        },
    ),
    "secrets-named": (
        "flavor",
        {
            "image": {"registry": "registry.example.org/ml", "tag": "1.2.3", "pullSecrets": ["registry"]},
            "store": {"claim": {"name": "models"}},
            "serviceAccountName": "federation",
            "podAnnotations": {"example.org/team": "ml"},
            "runs": {"digits": {"rounds": 20}},
            "redis": {
                "existingSecret": "redis",
                "tls": {"existingSecret": "redis-tls"},
                "service": {"type": "LoadBalancer", "annotations": {"example.org/internal": "true"}, "nodePort": 30001},
                "allowFrom": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
            },
            "coordinator": {"args": ["--out=/results", "--keep-rounds", 1000000],
                            "extraVolumeMounts": [{"name": "out", "mountPath": "/results"}],
                            "extraVolumes": [{"name": "out", "persistentVolumeClaim": {"claimName": "results"}}]},
            "aggregator": {
                "replicas": 3,
                "keySecret": "key",
                "image": "registry.example.org/ml/own:7",
                "args": ["--main", "python aggregate.py", "--threads", 4],
                "terminationGracePeriodSeconds": 7200,
                "nodeSelector": {"disk": "fast"},
                "tolerations": [{"key": "batch", "operator": "Exists"}],
            },
            "metrics": {"enabled": True, "allowFrom": [{"namespaceSelector": {}}]},
            "tokensSecret": "tokens",
            "networkPolicy": {"extraEgress": [{"ports": [{"protocol": "TCP", "port": 587}]}]},
        },
    ),
    "edge": (
        "flavor-edge",
        {
            "tokenSecret": "site-1",
            "image": "registry.example.org/site:1",
            "main": "python train.py --epochs 2",
            "evaluate": "python evaluate.py",
            "args": ["--share-log", 2000000],
            "env": [{"name": "BATCH_SIZE", "value": "32"}],
            "input": {"claim": "images"},
            "store": {"credentialsSecret": "bucket"},
            "runtimeClassName": "nvidia",
            "serviceAccountName": "site-1",
            "podAnnotations": {"example.org/team": "ml"},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
        },
    ),
}  # fmt: skip
PLAIN = {
    "store": {"claim": {"name": "flavor-store"}},
    "runs": {"digits": {"rounds": 20, "min-clients": 3}},
    "redis": {"existingSecret": "flavor-redis", "tls": {"existingSecret": "flavor-redis-tls"}},
    "aggregator": {"keySecret": "flavor-aggregator-key"},
    "tokensSecret": "flavor-tokens",
}
"""What deploy/kustomize has: all that is secret is named."""


needs_helm = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("helm_python", "kubernetes_validate")),
    reason="no helm-python-sdk or kubernetes-validate here",
)


def rendered(
    asked: Mapping[str, tuple[str, Mapping[str, Any] | str]], **release: str
) -> dict[str, list[dict[str, Any]] | str]:
    """Return the manifests of each chart with its values, or the line with which the chart refuses them.

    Values that are text are the words of `--set`.
    """
    text = json.dumps({"asked": asked, "release": RELEASE | release})
    process = subprocess.run(
        [sys.executable, "-m", "tests.charts", "--render"],
        input=text,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    answer: dict[str, list[dict[str, Any]] | str] = json.loads(process.stdout)
    return answer


@functools.cache
def all_sets() -> dict[str, list[dict[str, Any]]]:
    """The manifests of all sets of values, and of deploy/kustomize as `plain`."""
    found = rendered(SETS) | rendered({"plain": ("flavor", PLAIN)}, name="flavor", namespace="flavor")
    assert all(isinstance(manifests, list) for manifests in found.values()), found
    return found  # type: ignore[return-value]


def _render_asked() -> None:
    import helm_python

    request = json.load(sys.stdin)
    loaded = {name: helm_python.Chart.load(str(HELM / name)) for name in CHARTS}
    answer: dict[str, Any] = {}
    for name, (chart, values) in request["asked"].items():
        try:
            given = helm_python.parse_set_string(values) if isinstance(values, str) else values
            files = loaded[chart].render(given, **request["release"])
        except helm_python.HelmError as error:
            answer[name] = str(error)
            continue
        texts = [text for file, text in sorted(files.items()) if file.endswith(".yaml")]
        answer[name] = [each for text in texts for each in yaml.load_all(text, yaml.CSafeLoader) if each]
    json.dump(answer, sys.stdout)


def invalid(manifests: Sequence[dict[str, Any]], version: str = NEWEST) -> list[str]:
    """What this Kubernetes would refuse: an unknown field, a missing one, a value of another type."""
    import jsonschema
    import kubernetes_validate
    from kubernetes_validate import utils

    utils.schema_contents = functools.cache(utils.schema_contents)
    found = []
    for each in manifests:
        where = f"{each['kind']} {each['metadata']['name']}"
        try:
            if schema := CUSTOM.get(each["kind"]):
                jsonschema.validate(each, schema)
            else:
                kubernetes_validate.validate(each, version, strict=True)
        except jsonschema.ValidationError as error:
            found.append(f"{where}: {'.'.join(map(str, error.path))}: {error.message}")
    return found


# -- golden files


def told(manifests: Sequence[dict[str, Any]]) -> str:
    """The manifests as text, without the labels that all have, and without what is made by chance."""
    return yaml.dump_all(
        [_without_chance(each) for each in manifests], Dumper=yaml.CSafeDumper, width=120, sort_keys=False
    )


def _without_chance(manifest: dict[str, Any]) -> dict[str, Any]:
    told_of = json.loads(json.dumps(manifest))
    told_of["metadata"].pop("labels", None)
    if told_of["kind"] == "Secret":
        told_of["data"] = dict.fromkeys(told_of["data"], "(made)")
    return told_of


def golden(name: str) -> str:
    """What the golden file of this set has."""
    text = told(all_sets()[name])
    if name == FIRST or SETS[name][0] != SETS[FIRST][0]:
        return text
    lines = difflib.unified_diff(
        told(all_sets()[FIRST]).splitlines(keepends=True), text.splitlines(keepends=True), FIRST, name, n=2
    )
    return "".join("@@\n" if line.startswith("@@") else line for line in lines)  # without numbers of lines


# -- users of Redis

KEDA = "-@all +eval +type +llen +zcard +scard +hlen +ping +hello ~rq:queue:QUEUE ~rq:wip:QUEUE"
"""What KEDA's scaler sends. EVAL needs the right to write its keys, and the script can only count."""


def users() -> str:
    """The users of the chart's Redis: name, key of the password in the Secret, rules as `flavor enroll` gives them."""
    rules = {
        "default password": "resetkeys resetchannels ~* &* +@all",
        f"{acl.worker_user('chart')} worker-password": _rules(acl.worker_rules("")),
        f"{acl.viewer_user('chart')} viewer-password": _rules(acl.viewer_rules("")),
        "flavor-keda keda-password": f"resetkeys resetchannels {KEDA}",
    }
    return "".join(f"{user} {words}\n" for user, words in rules.items())


def _rules(words: Sequence[str]) -> str:
    """Rules without those before the password, which is made later."""
    return " ".join(words[next(index for index, word in enumerate(words) if word.startswith("#")) + 1 :])


# -- deploy/kustomize


def plain() -> str:
    """The manifests of deploy/kustomize."""
    head = (
        "# The chart flavor as plain manifests, for `kubectl apply --kustomize`. Generated: python -m tests.charts\n"
        "# The Secrets and the claim that it names are yours to make; docs/kubernetes.md has the commands.\n"
    )
    return head + yaml.dump_all(all_sets()["plain"], Dumper=yaml.CSafeDumper, width=120, sort_keys=False)


def generated() -> dict[Path, str]:
    """Every generated file, and what is in it."""
    files = {GOLDEN / f"{name}.{'yaml' if name in (FIRST, 'edge') else 'diff'}": golden(name) for name in SETS}
    for chart in CHARTS:
        files[HELM / chart / "values.schema.json"] = json.dumps(schema_of(chart), indent=1) + "\n"
    files[PAGE] = page_with_tables(PAGE.read_text())
    files[HELM / "flavor" / "files" / "users"] = users()
    files[KUSTOMIZE / "flavor.yaml"] = plain()
    return files


def main() -> None:
    """Render what stdin asks for, or write the generated files."""
    if sys.argv[1:] == ["--render"]:
        _render_asked()
        return
    for chart in CHARTS:  # before anything is rendered
        (HELM / chart / "values.schema.json").write_text(json.dumps(schema_of(chart), indent=1) + "\n")
    (HELM / "flavor" / "files" / "users").write_text(users())
    for path, text in generated().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
