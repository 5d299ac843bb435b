"""What a run may set at a site, and what it may not."""

from __future__ import annotations

import pytest

from flavor.config import RunConfig
from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting
from flavor.programs.trainer_environment import trainer_environment
from flavor.script_settings import checked_settings, parse_settings


def test_settings_are_written_as_name_and_value() -> None:
    texts = ["LEARNING_RATE=0.001", "URL=http://x/?a=b", "EMPTY="]
    assert parse_settings(texts) == {"EMPTY": "", "LEARNING_RATE": "0.001", "URL": "http://x/?a=b"}
    assert list(checked_settings({"B": "1", "A": "2"})) == ["A", "B"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LEARNING_RATE", "write --set NAME=VALUE"),
        ("learning_rate=1", "a name is 1 to 64 of A-Z"),
        ("=1", "a name is"),
        ("1A=1", "a name is"),
        ("A B=1", "a name is"),
        ("A\n=1", "a name is"),
        ("Ä=1", "a name is"),
        (f"{'A' * 65}=1", "a name is"),
        (f"A={'x' * 5000}", "longer than 4096"),
        ("A=x\0y", "NUL"),
        *((f"{name}=x", "a site's own") for name in ("PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH")),
        *((f"{name}=x", "a site's own") for name in ("PYTHONSTARTUP", "FLAVOR_RUN", "FLAVOR_REDIS_URL", "BASH_ENV")),
        *((f"{name}=x", "a site's own") for name in ("INPUT_PATH", "GLOBAL_MODEL_PATH", "TOTAL_ROUNDS", "HOME")),
        *((f"{name}=x", "a site's own") for name in ("DYLD_INSERT_LIBRARIES", "NODE_OPTIONS", "PERL5OPT", "IFS")),
        *((f"{name}=x", "a site's own") for name in ("HTTPS_PROXY", "R_PROFILE", "JAVA_TOOL_OPTIONS", "GIT_SSH")),
        *((f"{name}=x", "a site's own") for name in ("SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES", "ENV", "SHELL")),
    ],
)
def test_what_a_run_may_not_set_is_refused_by_both_sides(text: str, message: str) -> None:
    with pytest.raises(InvalidSetting, match="--set") as caught:
        parse_settings([text])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    name, equals, value = text.partition("=")
    if equals:  # whatever stands in Redis, an edge refuses it
        with pytest.raises(InvalidSetting, match="--set: setting"):
            RunConfig.parse({"rounds": 1, "store": "s", "settings": {name: value}})


def test_one_name_once_and_not_too_many() -> None:
    with pytest.raises(InvalidSetting, match="A is given twice"):
        parse_settings(["A=1", "A=2"])
    with pytest.raises(InvalidSetting, match="300 settings are too many"):
        checked_settings({f"A{i}": "" for i in range(300)})
    with pytest.raises(InvalidSetting, match="--set"):
        RunConfig.parse({"rounds": 1, "store": "s", "settings": {"A": 1}})


def test_settings_reach_the_trainer_and_leave_its_own_variables_alone(tmp_path) -> None:
    workspace = Workspace.prepare(tmp_path, environment={}, input_path=tmp_path)
    environment = trainer_environment(
        {"PATH": "/bin", "BATCH_SIZE": "1", "OTHER": "x"},
        workspace,
        rounds=3,
        run="r",
        client="c",
        settings={"BATCH_SIZE": "32", "TOTAL_ROUNDS": "99", "FLAVOR_RUN": "other"},
    )
    assert (environment["BATCH_SIZE"], environment["OTHER"]) == ("32", "x")
    assert (environment["TOTAL_ROUNDS"], environment["FLAVOR_RUN"]) == ("3", "r")
