"""A real MLflow server for the tests of `flavor export`: MLflow's own app on sqlite, in one process, not in three."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.polled import eventually

START_S = 240.0
"""It imports for ten seconds of CPU, and makes the tables of its database."""


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Run one on a free port of this machine as `mlflow server --workers 1` does, and yield its URL."""
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder / 'mlflow.db'}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_BOOT_ID": uuid.uuid4().hex,
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    words = [sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app", "--host", "127.0.0.1"]
    words += ["--port", str(port), "--log-level", "warning"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
        assert process.poll() is None, (folder / "log").read_text()
        return False

    try:
        eventually("MLflow answers", answers, START_S, told=(folder / "log").read_text, pause_s=0.1)
        yield url
    finally:
        process.kill()
        process.wait()
