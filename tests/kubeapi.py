"""Helm's own install, upgrade and uninstall of a chart, against an API server that keeps objects and nothing else.

No controller acts on the objects. It answers what Helm asks: which kinds there are, one object, and all objects; and it
takes what Helm creates, applies and deletes. Helm runs in a process of its own (see `tests.charts`).
"""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import yaml

from tests.charts import HELM, RELEASE, ROOT

KINDS = {
    "v1": {
        "secrets": "Secret",
        "configmaps": "ConfigMap",
        "services": "Service",
        "persistentvolumeclaims": "PersistentVolumeClaim",
    },
    "apps/v1": {"deployments": "Deployment", "statefulsets": "StatefulSet"},
    "batch/v1": {"jobs": "Job"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
}
_PATH = re.compile(r"/apis?/((?:[^/]+/)?v\d\w*)(?:/namespaces/[^/]+)?(?:/([^/]+))?(?:/([^/]+))?")
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_QUICK: dict[str, Any] = {"qps": 1000.0, "burst_limit": 1000}
"""Helm asks an API server seldom, by itself."""
_objects: dict[tuple[str, str], dict[str, Any]] = {}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, content: dict[str, Any] | bytes, kind: str = "application/json") -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        groups = [each.split("/") for each in KINDS if "/" in each]
        known: dict[str, dict[str, Any]] = {
            "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "groups": [_group(group, version) for group, version in groups]},
            "/openapi/v3": {"paths": {}},
        }
        if path in known:
            self._answer(200, known[path])
        elif path == "/openapi/v2":  # a document without definitions
            self._answer(200, b"", _PROTOBUF)
        elif (match := _PATH.fullmatch(path)) is None or match[1] not in KINDS:
            self._missing()
        elif match[2] is None:
            self._answer(200, _resources(match[1]))
        else:
            self._object(match[1], match[2], match[3], body)

    do_GET = do_POST = do_PATCH = do_DELETE = _handle

    def _missing(self) -> None:
        self._answer(
            404, {"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": self.path}
        )

    def _object(self, version: str, resource: str, name: str | None, body: bytes) -> None:
        if name is None and self.command == "GET":
            items = [each for (kind, _), each in _objects.items() if kind == resource]
            self._answer(200, {"kind": f"{KINDS[version][resource]}List", "apiVersion": version, "items": items})
            return
        sent = yaml.safe_load(body) if body else {}
        key = resource, name or sent["metadata"]["name"]
        if self.command in ("POST", "PATCH"):
            assert self.command == "POST" or "apply" in self.headers["Content-Type"]
            sent["metadata"]["uid"] = "1"
            _objects[key] = sent
        elif key not in _objects:
            self._missing()
            return
        found = _objects.pop(key) if self.command == "DELETE" else _objects[key]
        self._answer(200, found)


def _group(name: str, version: str) -> dict[str, Any]:
    of = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [of], "preferredVersion": of}


def _resources(version: str) -> dict[str, Any]:
    verbs = ["create", "get", "list", "patch", "delete"]
    found = [
        {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
        for name, kind in KINDS[version].items()
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": found}


def after(steps: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, dict[str, Any]]]:
    """Return the objects, by kind and name, after each step: install, upgrade or uninstall, with these values."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.kubeapi"],
        input=json.dumps(steps),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    answer: list[dict[str, dict[str, Any]]] = json.loads(process.stdout)
    return answer


def main() -> None:
    """Take the steps that stdin has."""
    import helm_python

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name, space = RELEASE["name"], RELEASE["namespace"]
    reach = {
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": space}}],
        "current-context": "c",
    }
    config = helm_python.Config(
        kubeconfig_content=json.dumps(reach), namespace=space, storage_driver="memory", **_QUICK
    )
    chart, states = helm_python.Chart.load(str(HELM / "flavor")), []
    for step, values in json.load(sys.stdin):
        if step == "uninstall":
            config.uninstall(name)
        else:
            getattr(config, step)(chart, name, values, namespace=space)
        states.append({f"{each['kind']}/{key[1]}": each for key, each in _objects.items()})
    json.dump(states, sys.stdout)


if __name__ == "__main__":
    main()
