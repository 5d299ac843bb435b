"""What a user's aggregator sees of the worker's environment."""

from __future__ import annotations

import os
import sys

import pytest

from flavor.programs.aggregator_environment import inherited, withheld

NEEDED = [
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONHASHSEED", "VIRTUAL_ENV", "CONDA_PREFIX",
    "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
]  # fmt: skip
OF_THE_IMAGE = [
    "PROCESS", "MOMENTUM", "LD_PRELOAD", "HOMEPAGE", "MY_PATH", "XLANG", "LC_", "home", "NVIDIA_VISIBLE_DEVICES", "PWD",
    "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "KEYS_TO_KEEP", "MONKEY", "AUTHOR", "HF_HOME", "OLDPWD",
]  # fmt: skip
OF_THE_WORKER = [
    "FLAVOR_REDIS_URL", "FLAVOR_STORE", "FLAVOR_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "REDISCLI_AUTH",
    "REDIS_URL", "VALKEY_PASSWORD", "AZURE_STORAGE_ACCOUNT_NAME", "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN",
    "DB_PASSWORD", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "DATABASE_URL", "KUBECONFIG", "SSH_AUTH_SOCK", "MY_SECRET",
    "SERVICE_KEY", "SENTRY_DSN", "token",
]  # fmt: skip
PLACES = ["INPUT_PATH", "OUTPUT_PATH", "LOG_PATH", "LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH"]


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_program_needs_is_always_there(name: str) -> None:
    base = {name: "x", "PATH": "/bin"}
    assert inherited(base)[name] == inherited(base, only=True)[name] == "x"


@pytest.mark.parametrize("name", OF_THE_IMAGE)
def test_what_an_image_sets_reaches_the_command_unless_an_allow_list_is_wanted(name: str) -> None:
    assert inherited({name: "x"})[name] == "x"
    assert name not in inherited({name: "x"}, only=True)
    assert inherited({name: "x"}, [name], only=True)[name] == "x"


@pytest.mark.parametrize("name", OF_THE_WORKER)
def test_what_is_the_workers_own_stays_with_it_unless_it_is_named(name: str) -> None:
    assert name not in inherited({name: "x"})
    assert withheld({name: "x"}) == [name]
    assert inherited({name: "x"}, ["OTHER", name])[name] == "x"


@pytest.mark.parametrize("name", PLACES)
def test_paths_of_other_programs_are_not_its_own(name: str) -> None:
    assert name not in inherited({name: "x"})
    assert withheld({name: "x"}) == []


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        ("http://user:pass@proxy:3128", True),
        ("redis://:pass@host/0", True),
        ("http://proxy:3128", False),
        ("a@b:c", False),
    ],
)
def test_a_password_in_a_url_is_told_by_its_value(value: str, hidden: bool) -> None:
    assert ("HTTP_PROXY" in inherited({"HTTP_PROXY": value})) is not hidden


def test_a_name_that_is_not_set_is_not_made_up() -> None:
    assert "ABSENT" not in inherited({}, ["ABSENT"])


def test_path_and_buffering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/venv")
    found = inherited({"PATH": "/bin", "PYTHONUNBUFFERED": ""}, ["PATH"])
    assert found == {"PATH": os.pathsep.join(["/venv/bin", "/bin"]), "PYTHONUNBUFFERED": "1"}
    assert inherited({"PATH": "/bin", "VIRTUAL_ENV": "/venv"})["PATH"] == "/bin"
