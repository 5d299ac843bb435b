"""Wrong input to `aumai-fedtrain`: one line that names it, the right exit code, nothing done."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from aumai_fedtrain.cli import main
from aumai_fedtrain.models import GlobalState, TrainingConfig
from aumai_fedtrain.recording import recorded
from aumai_fedtrain.session import Session, Status, read_sessions
from aumai_fedtrain.verifier import HashVerifier
from flavor.errors import FlavorError

CONFIG = {
    "model_name": "m",
    "learning_rate": 0.001,
    "batch_size": 32,
    "local_steps": 10,
    "global_rounds": 5,
    "num_nodes": 3,
}
UPDATE = {
    "node_id": "node-000",
    "round_id": 1,
    "gradients": {"weight": [0.1, -0.2, 0.05, 0.03], "bias": [0.01]},
    "loss": 0.852341,
    "samples_used": 128,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLAVOR_REDIS_URL", raising=False)
    return tmp_path


def without(values: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in values.items() if key != name}


BAD_FILES = [
    ("{", "not JSON"),
    ("", "not JSON"),
    ('{"loss": NaN}', "NaN is not a number"),
    ("[1, 2]", "must hold a JSON object, not a list"),
    ('"text"', "not a text"),
    ("null", "not null"),
    ("true", "not a truth value"),
    ("3", "not a number"),
    ("[" * 100_000, "not JSON"),
    (b"\xff\xfe\x00", "text in UTF-8"),
]
BAD_CONFIGS = [
    *((without(CONFIG, name), f"{name}: field required") for name in CONFIG),
    ({**CONFIG, "batch_size": 0}, "batch_size: input should be greater than or equal to 1 (given: 0)"),
    ({**CONFIG, "learning_rate": "fast"}, "learning_rate: input should be a valid number"),
    ({**CONFIG, "learning_rate": -1}, "learning_rate"),
    ({**CONFIG, "global_rounds": 2.5}, "global_rounds"),
    ({**CONFIG, "num_nodes": None}, "num_nodes"),
    ({**CONFIG, "model_name": 7}, "model_name: input should be a valid string"),
    ({}, "model_name: field required; learning_rate: field required"),
]
BAD_UPDATES = [
    *((without(UPDATE, name), f"{name}: field required") for name in UPDATE),
    ({**UPDATE, "gradients": [1.0]}, "gradients: input should be a valid dictionary"),
    ({**UPDATE, "gradients": {"w": [1.0, "x"]}}, "gradients.w: value 1 must be a number, not 'x'"),
    (json.dumps({**UPDATE, "gradients": {"w": [7]}}).replace("7", "1e999"), "gradients.w: value 0 is inf"),
    ({**UPDATE, "gradients": {"w": None}}, "gradients.w"),
    ({**UPDATE, "samples_used": -1}, "samples_used: input should be greater than or equal to 0"),
    ({**UPDATE, "loss": "low"}, "loss: input should be a valid number"),
]


def refused(arguments: list[str], message: str, code: int = 2, *, made: bool = False) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr) < 1000
    assert Path(".aumai-fedtrain").exists() is made


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_a_file_that_holds_no_object(here: Path, text: str | bytes, message: str) -> None:
    (here / "file.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    for arguments in (
        ["run", "--config", "file.json"],
        ["init", "--config", "file.json"],
        ["verify", "--update", "file.json", "--hash", "x"],
    ):
        code = 2 if arguments[0] == "verify" else 1
        refused(arguments, message, code)
        refused(arguments, "file.json: ", code)


@pytest.mark.parametrize(("values", "message"), BAD_CONFIGS)
def test_a_configuration_with_a_missing_or_invalid_field(here: Path, values: object, message: str) -> None:
    (here / "train.json").write_text(json.dumps(values))
    for command in ("run", "init", "status"):
        refused([command, "--config", "train.json"], message, 1)


@pytest.mark.parametrize(("values", "message"), BAD_UPDATES)
def test_an_update_with_a_missing_or_invalid_field(here: Path, values: object, message: str) -> None:
    (here / "update.json").write_text(values if isinstance(values, str) else json.dumps(values))
    refused(["verify", "--update", "update.json", "--hash", "0" * 64], message)


@pytest.mark.parametrize("name", ["absent.json", "."])
def test_a_file_that_is_none(here: Path, name: str) -> None:
    for command in ("run", "init", "status"):
        refused([command, "--config", name], f"{name}: ")
    refused(["verify", "--update", name, "--hash", "x"], f"{name}: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--outer-optimizer", "nestorov"], "unknown server step 'nestorov'"),
        (["--outer-optimizer", "nesterov:lr=fast"], "'fast' does not fit lr"),
        (["--param-names", "w,w"], "differ"),
        (["--param-names", ","], "names must be there"),
        (["--store", "s"], "--store is for live nodes: name their Redis with --redis-url"),
        (["--run", "r"], "--run is for live nodes"),
        (["--quorum", "1"], "--quorum is for live nodes"),
        (["--init-model", "m.pt"], "--init-model is for live nodes"),
        (["--set", "A=1"], "--set is for live nodes"),
        (["--live"], "--live needs a Redis"),
        (["--redis-url", "unix:///s", "--seed", "1"], "--seed is for simulations"),
        (["--redis-url", "unix:///s", "--param-size", "9"], "--param-size is for simulations"),
        (["--redis-url", "unix:///s", "--run", "a/b"], "'a/b' cannot be the name of a run"),
        (["--redis-url", "unix:///s", "--set", "PATH=x"], "--set: setting 'PATH' cannot be used"),
        (["--redis-url", "http://x"], "http://x"),
    ],
)
def test_options_that_make_no_sense(here: Path, options: list[str], message: str) -> None:
    (here / "train.json").write_text(json.dumps(CONFIG))
    result = CliRunner().invoke(main, ["run", "--config", "train.json", *options])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_nothing_to_run_or_to_show(here: Path) -> None:
    refused(["run"], "there is no session to run: pass --config FILE")
    result = CliRunner().invoke(main, ["status"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "There is no session" in result.stdout
    listed = CliRunner().invoke(main, ["status", "--json"])
    assert (listed.exit_code, json.loads(listed.stdout)) == (0, {"session": None, "others": []})
    assert list(here.iterdir()) == []


INITIALIZED = """Initialized federated training: m  nodes=2  rounds=5
  Node: node-000  Address: simulated
  Node: node-001  Address: simulated

  Global rounds planned: 5
  Local steps per round: 10
  Learning rate: 0.001
  Batch size: 32

Next: aumai-fedtrain run
"""


def test_a_session_lists_its_nodes_and_its_plan(here: Path) -> None:
    (here / "train.json").write_text(json.dumps(CONFIG))
    shown = CliRunner().invoke(main, ["init", "--config", "train.json", "--nodes", "2"])
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, INITIALIZED, "")
    many = CliRunner().invoke(main, ["init", "--config", "train.json", "--nodes", "500"])
    assert many.stdout.count("  Node: ") == 20
    assert "\n  and 480 more\n" in many.stdout


@pytest.mark.parametrize("command", ["init", "run"])
def test_four_nodes_unless_told_otherwise_and_a_file_that_says_otherwise_is_named(here: Path, command: str) -> None:
    for written, note in (
        (3, "Note: 4 nodes, the default of --nodes; the file has num_nodes 3: pass --nodes 3"),
        (4, ""),
    ):
        (here / "train.json").write_text(json.dumps({**CONFIG, "num_nodes": written}))
        shown = CliRunner().invoke(main, [command, "--config", "train.json"])
        assert shown.exit_code == 0
        assert "federated training: m  nodes=4  rounds=5" in shown.stdout
        assert shown.stderr.startswith(note)
        assert bool(shown.stderr) is bool(note)


def test_a_session_that_was_prepared_for_three_nodes_runs_with_three(here: Path) -> None:
    (here / "train.json").write_text(json.dumps(CONFIG))
    assert CliRunner().invoke(main, ["init", "--config", "train.json", "--nodes", "3"]).exit_code == 0
    ran = CliRunner().invoke(main, ["run"])
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert "nodes=3" in ran.stdout


def test_the_status_of_a_round(here: Path) -> None:
    (here / "train.json").write_text(json.dumps(CONFIG))

    def status(*options: str) -> str:
        shown = CliRunner().invoke(main, ["status", *options])
        assert (shown.exit_code, shown.stderr) == (0, "")
        return shown.stdout

    assert status("--round-id", "1").startswith("Round 1: pending.\n  There is no session")
    planned = "Round 1: pending.\n  Current round:  0/5\n  Nodes:          3\n  Avg loss:       not reported\n"
    assert status("--round-id", "1", "--config", "train.json").startswith(planned)
    ran = CliRunner().invoke(main, ["run", "--config", "train.json", "--nodes", "2", "--seed", "1", "--json"])
    result = json.loads(ran.stdout)
    assert status("--round-id", "5", "--config", "train.json") == (
        "Round 5: completed.\n  Current round:  5/5\n  Nodes:          2\n"
        f"  Avg loss:       {result['final_loss']:.6f}\n"
        "Node credits (samples processed):\n"
        f"  node-000: {result['credits']['node-000']} samples\n  node-001: {result['credits']['node-001']} samples\n"
    )
    assert status("--round-id", "6", "m").startswith("Round 6: pending.\n  Current round:  5/5\n")
    found = json.loads(status("--round-id", "6", "--json"))
    assert (found["round_id"], found["completed"], found["session"]["round_id"]) == (6, False, 5)
    refused(["status", "other", "--config", "train.json", "--home", "none"], "its model is 'm', not 'other'", made=True)


def test_a_home_that_cannot_be(here: Path) -> None:
    (here / "file").write_text("")
    (here / "train.json").write_text(json.dumps(CONFIG))
    refused(["init", "--config", "train.json", "--home", "file/below"], "--home file/below: ")


def test_a_session_that_cannot_be_kept_ends_init_and_no_simulation(here: Path) -> None:
    (here / "train.json").write_text(json.dumps({**CONFIG, "num_nodes": 4}))
    (here / "home").mkdir()
    (here / "home" / "sessions").write_text("a file")
    refused(["init", "--config", "train.json", "--home", "home"], "--home home: ")
    trained = CliRunner().invoke(main, ["run", "--config", "train.json", "--home", "home"])
    assert trained.exit_code == 0
    assert "Training complete." in trained.stdout
    assert trained.stderr.startswith("This session is not kept: --home home: ")
    assert len(trained.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["../../up", "a/b", "x" * 5000, "", "ä\n\0", "."])
def test_a_model_of_any_name_is_kept_in_the_home_alone(here: Path, name: str) -> None:
    (here / "train.json").write_text(json.dumps({**CONFIG, "model_name": name, "num_nodes": 4}))
    done = CliRunner().invoke(main, ["init", "--config", "train.json"])
    if done.exit_code:  # a configuration needs a name
        assert name == ""
        return
    (found,) = (path for path in here.rglob("*") if path.is_file() and path.name != "train.json")
    assert found.parent == here / ".aumai-fedtrain" / "sessions"
    assert found.stat().st_mode & 0o777 == 0o600
    assert found.parent.stat().st_mode & 0o777 == 0o700
    (session,) = read_sessions(None, here / ".aumai-fedtrain")
    assert session.config.model_name == name


def test_a_session_that_cannot_be_parsed_is_left_out(here: Path) -> None:
    (here / "train.json").write_text(json.dumps({**CONFIG, "num_nodes": 4}))
    assert CliRunner().invoke(main, ["init", "--config", "train.json"]).exit_code == 0
    (here / ".aumai-fedtrain" / "sessions" / "other.json").write_bytes(b"\xff{")
    assert [session.config.model_name for session in read_sessions(None, here / ".aumai-fedtrain")] == ["m"]


def test_a_verification_passes_or_fails(here: Path) -> None:
    (here / "update.json").write_text(json.dumps(UPDATE))
    digest = HashVerifier.compute_hash(UPDATE["gradients"])  # type: ignore[arg-type]
    passed = CliRunner().invoke(main, ["verify", "--update", "update.json", "--hash", digest])
    assert (passed.exit_code, passed.stdout) == (0, f"Verification PASSED.  Hash: {digest}\n")
    for wrong in (digest[::-1], "abc", ""):
        failed = CliRunner().invoke(main, ["verify", "--update", "update.json", "--hash", wrong])
        assert failed.exit_code == 1
        assert failed.stdout.startswith(f"Verification FAILED.  Hash: {digest}")
        as_json = CliRunner().invoke(main, ["verify", "--update", "update.json", "--hash", wrong, "--json"])
        assert as_json.exit_code == 1
        assert json.loads(as_json.stdout) == {"passed": False, "hash": digest, "expected": wrong}


def test_what_click_itself_refuses_is_wrong_use(here: Path) -> None:
    for arguments in (["run", "--nodes", "0"], ["run", "--param-size", "none"], ["verify"], ["init"], ["train"]):
        assert CliRunner().invoke(main, arguments).exit_code == 2


def test_numbers_that_a_model_refuses_end_a_training_in_one_line(tmp_path: Path) -> None:
    """Whatever made them: no trace is printed, and the session says why it failed."""
    config = TrainingConfig(
        model_name="m", learning_rate=0.1, batch_size=1, local_steps=1, global_rounds=1, num_nodes=1
    )
    with pytest.raises(FlavorError) as failed, recorded(Session(config=config), None, tmp_path):
        GlobalState(round_id=1, global_weights={"w": [0.0, math.inf]})
    assert str(failed.value).startswith("global_weights.w: value 1 is inf")
    (session,) = read_sessions(None, tmp_path)
    assert (session.status, session.reason) == (Status.FAILED, str(failed.value))
