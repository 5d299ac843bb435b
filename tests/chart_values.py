"""The values of the charts of deploy/helm: their schemas, and their tables in docs/kubernetes.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

ROOT = Path(__file__).parents[1]
HELM = ROOT / "deploy" / "helm"
PAGE = ROOT / "docs" / "kubernetes.md"
CHARTS = ("flavor", "flavor-edge")

_OPEN = {"resources", "nodeSelector", "affinity", "annotations", "podAnnotations", "labels"}
"""Values that are handed on to Kubernetes as they are."""
_NOT_OF_A_RUN = {
    *("run", "queue", "redis-url", "tls-ca", "tls-cert", "tls-key", "insecure", "store", "store-cache"),
    *("store-cache-size", "patience-s", "debug", "help"),
}
"""Options of `flavor serve` that the chart itself gives."""
_QUANTITY = {"type": "string", "pattern": "^[0-9.]+([kMGT]i?)?$"}
_WORDS = {"type": "array", "items": {"type": ["string", "number"]}}
_COUNT = {"type": "integer", "minimum": 1}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_SIZE = {"type": "string", "pattern": "^[1-9][0-9]{0,8}[MGT]i?$"}
"""Size of a folder with a cache, of which the charts calculate the half."""
_KINDS: dict[tuple[str, ...], dict[str, Any]] = {
    ("image", "pullPolicy"): {"enum": ["Always", "IfNotPresent", "Never"]},
    ("imagePullPolicy",): {"enum": ["Always", "IfNotPresent", "Never"]},
    ("redis", "service", "type"): {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    ("ui", "service", "type"): {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    ("store", "url"): {"type": "string", "pattern": "^$|^[a-z0-9+]+://"},
    ("redis", "maxmemory"): {"type": "string", "pattern": "^[1-9][0-9]{0,14}([kmg]b?)?$"},
    ("redis", "service", "nodePort"): {"type": ["integer", "null"], "minimum": 1, "maximum": 65535},
    **{(part, "service", "externalTrafficPolicy"): {"enum": ["", "Cluster", "Local"]} for part in ("redis", "ui")},
    **{path: {"type": "array", "items": _PORT} for path in (("store", "ports"), ("networkPolicy", "ports"))},
    **dict.fromkeys((("redis", "service", "port"), ("redis", "external", "port"), ("ui", "service", "port")), _PORT),
    ("redis", "external", "keda", "address"): {"type": "string", "pattern": "^$|^[^:/@]+:[0-9]+$"},
    ("aggregator", "queue"): {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"},
    ("aggregator", "replicas"): {"type": ["integer", "null"], "minimum": 0},
    ("aggregator", "terminationGracePeriodSeconds"): {"type": ["integer", "null"], "minimum": 0},
    ("aggregator", "podDisruptionBudget", "maxUnavailable"): {
        "type": ["integer", "string"],
        "minimum": 1,
        "pattern": "^[1-9][0-9]?%$|^100%$",
    },
    ("aggregator", "keda", "jobsPerPod"): {"type": "integer", "minimum": 1},
    **{(part, "workSize"): _SIZE for part in ("coordinator", "operator", "aggregator", "ui")},
    ("state", "size"): _SIZE,
    **dict.fromkeys((("redis", "size"), ("store", "claim", "size"), ("shmSize",)), _QUANTITY),
    **dict.fromkeys((("podSecurity", "user"), ("podSecurity", "group"), ("aggregator", "keda", "maxReplicas")), _COUNT),
    ("image", "registry"): {"type": "string", "pattern": "^$|^[^\\s]*[^/\\s]$"},
    ("program",): {"enum": ["flavor-fl", "flavor-fv"]},
}


def schema_of(chart: str) -> dict[str, Any]:
    """The schema of a chart's values: no value has a name that is unknown, or a value of another type."""
    schema = _schema(_values(chart), ())
    if chart == "flavor":
        schema["properties"]["runs"] = {
            "type": "object",
            "additionalProperties": False,
            "patternProperties": {r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$": _of_run()},
        }
    schema["properties"]["global"] = {"type": "object"}  # Helm's own
    schema["properties"]["enabled"] = {"type": "boolean"}  # the condition of a chart that has this one as a part
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def _values(chart: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((HELM / chart / "values.yaml").read_text())
    return values


def _schema(value: Any, path: tuple[str, ...]) -> dict[str, Any]:
    if path in _KINDS:
        return _KINDS[path]
    if isinstance(value, dict):
        if path and path[-1] in _OPEN:
            return {"type": "object"}
        inner = {name: _schema(each, (*path, name)) for name, each in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": inner}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0}
    if path and path[-1] == "args":
        return _WORDS
    if isinstance(value, list):
        return {"type": "array"}
    return {"type": "string"}


def _of_run() -> dict[str, Any]:
    from flavor.cli.serve import serve

    options = {}
    for each in serve.get_params(click.Context(serve)):
        if not isinstance(each, click.Option) or (name := each.opts[0].removeprefix("--")) in _NOT_OF_A_RUN:
            continue
        options[name] = _of_option(each)
    return {"type": ["object", "null"], "additionalProperties": False, "properties": options}


def _of_option(option: click.Option) -> dict[str, Any]:
    word = {"type": ["string", "number", "boolean"]}
    words = {"type": "object", "additionalProperties": word}
    if option.is_flag:
        return {"type": "boolean"}
    if option.nargs == 2:
        return {"type": "object", "additionalProperties": words}
    if option.opts[0] == "--set":
        return words
    if option.multiple and not getattr(option, "is_single", False):
        return {"type": ["array", "string"], "items": {"type": "string"}}
    if isinstance(option.type, click.Choice):
        return {"enum": list(option.type.choices)}
    if isinstance(option.type, click.types.IntParamType):
        return {"type": "integer", "maximum": 2**53 - 1, **_bounds(option)}  # Helm reads larger ones as others
    if isinstance(option.type, click.types.FloatParamType):
        return {"type": "number", **_bounds(option)}
    return {"type": ["string", "number"]}


def _bounds(option: click.Option) -> dict[str, float]:
    """What the option's help says of its value, as `1<=x<=10` or `x>0`."""
    text = getattr(option, "bounds", None) or ""
    found = {
        "minimum": re.search(r"([0-9.]+)<=x|x>=([0-9.]+)", text),
        "exclusiveMinimum": re.search(r"([0-9.]+)<x|x>([0-9.]+)", text),
        "maximum": re.search(r"x<=([0-9.]+)", text),
        "exclusiveMaximum": re.search(r"x<([0-9.]+)", text),
    }
    return {name: json.loads(next(filter(None, match.groups()))) for name, match in found.items() if match}


_HANDED_ON = {"resources", "nodeSelector", "tolerations", "affinity", "runs"}
"""Values that the page explains in words."""


def table_of(chart: str) -> str:
    """The table of a chart's values for the page: name, default and what it is."""
    rows = [f"| `{name}` | `{default}` | {what} |" for name, default, what in _commented(chart)]
    return "\n".join(["| value | default | what it is |", "|---|---|---|", *rows])


def _commented(chart: str) -> Iterator[tuple[str, str, str]]:
    path: list[str] = []
    for line in (HELM / chart / "values.yaml").read_text().splitlines():
        match = re.fullmatch(r"( *)([A-Za-z]+):\s*(.*?)\s*(?:# (.*))?", line)
        if match is None:
            assert not line or line.startswith("#"), line
            continue
        indent, name, default, what = match.groups()
        path = [*path[: len(indent) // 2], name]
        if (default and not _HANDED_ON & set(path)) or what:
            assert what, f"{chart}: {'.'.join(path)} has no comment"
            yield ".".join(path), default or "…", what.replace("|", "\\|")


def page_with_tables(page: str) -> str:
    """The page, with its tables as they are in the values."""
    for chart in CHARTS:
        begin, end = f"<!-- values of {chart} -->\n", f"\n<!-- end of values of {chart} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        assert after, f"the page has no place for the values of {chart}"
        page = f"{before}{begin}\n{table_of(chart)}\n{end}{after}"
    return page
