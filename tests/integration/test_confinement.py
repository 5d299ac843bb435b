"""What a user's aggregator may use, and as whom it runs."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flavor.errors import CommandNotFound, InvalidSetting
from flavor.programs.account import Account
from flavor.programs.aggregator import UserAggregator
from flavor.programs.confinement import Confinement
from flavor.programs.process import ChildProcess

GREEDY = """
import json, os, pickle, resource, stat, sys
from pathlib import Path
import numpy as np
from flavor.cook.utils import GetPaths

out = Path(os.environ["OUTPUT_PATH"])
count = out / "count"
count.write_text(count.read_text() + "x" if count.exists() else "x")
match len(count.read_text()):
    case 1:
        print(np.ones(2**28).sum())
    case 2:
        while True:
            pass
    case 3:
        with open(out / "large", "wb") as file:
            for _ in range(100):
                file.write(bytes(10**5))
    case 4:
        os.kill(os.getpid(), 11)
models = [pickle.load(open(path, "rb"))["state_dict"] for path in GetPaths("localModels")]
mean = {key: np.mean([model[key] for model in models], axis=0).astype(np.float32) for key in models[0]}
with open(GetPaths("globalModel")[0], "wb") as file:
    pickle.dump({"state_dict": mean}, file)
descriptors = [name for name in range(3, 200) if os.path.exists(f"/proc/self/fd/{name}")]
report = {
    "limits": [resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in ("CORE", "DATA", "CPU", "FSIZE")],
    "session": os.getsid(0) == os.getpid(),
    "mode": stat.S_IMODE(os.stat(GetPaths("globalModel")[0]).st_mode),
    "descriptors": descriptors,
    "environment": dict(os.environ),
}
(out / "report").write_text(json.dumps(report))
"""


def failures(bench) -> list[str]:
    return [entry["reason"] for entry in bench.log() if entry["event"] == "round.attempt_failed"]


def test_each_limit_fails_the_attempt_and_is_named(bench):
    program = bench.work / "greedy.py"
    program.write_text(GREEDY)
    coordinator = bench.serve("--aggregation-attempts", 5, rounds=1)
    limits = ["--memory-limit", "512MiB", "--cpu-limit-s", 3, "--file-size-limit", "1MB"]
    words = ["--queue", bench.run, "--store", bench.store, "--workspace", bench.folder / "agg", *limits]
    worker = bench.start(
        "flavor-agg", *words, "-m", f"{sys.executable} {program}", env={"AWS_SECRET_ACCESS_KEY": "hush"}
    )
    edges = [bench.edge(f"c{i}", bench.trainer()) for i in (1, 2)]
    assert coordinator.wait(60) == 0, coordinator.stderr + worker.stderr
    for edge in edges:
        assert edge.wait() == 0
    memory, cpu, file, crash = failures(bench)
    assert memory.startswith("the aggregator reached --memory-limit 512 MiB and ended (exit code 1): ")
    assert "Unable to allocate" in memory
    assert cpu.startswith("the aggregator used up --cpu-limit-s 3 and ended (killed by SIGXCPU)")
    assert file.startswith(
        "the aggregator wrote a file as large as --file-size-limit 976.6 KiB and ended (exit code 1): "
    )
    assert crash.startswith("the aggregator perhaps reached --memory-limit 512 MiB and ended (killed by SIGSEGV)")
    report = json.loads((bench.folder / "agg" / bench.run / "output" / "report").read_text())
    assert report["limits"] == [[0, 0], [2**29] * 2, [3, 8], [10**6] * 2]
    assert report["session"]
    assert report["mode"] == 0o600
    assert len(report["descriptors"]) == 1  # the lock on its own folder, which it holds as long as it lives
    assert "hush" not in str(report["environment"])
    with (bench.folder / "c1" / "global" / "model.ckpt").open("rb") as model:
        np.testing.assert_allclose(pickle.load(model)["state_dict"]["w"], 1.5)


SHELL = """
set -e
cd "$OUTPUT_PATH"
first() { sed 's/^\\["\\([^"]*\\)".*/\\1/' "$1.json"; }
model=$(first globalModel) info=$(first globalInfo) local=$(first localModels)
echo x >> count
case $(wc -l < count) in
1) ln -s SECRET "$model"; exit ;;
2) mkfifo "$model"; exit ;;
3) cp "$local" "$model"; rm "$info"; ln -s SECRET "$info"; exit ;;
4) ln SECRET "$model" || exit 9; exit ;;
esac
cp "$local" "$model"
id -un > who; id -Gn >> who; echo "$HOME $USER" >> who; umask >> who
cat "/proc/$PPID/environ" > environ 2> refused || echo no >> refused
cat SECRET >> environ 2>> refused || echo no >> refused
(echo x >> "$local") 2>> refused || echo no >> refused
touch ../mine 2>> refused || echo no >> refused
echo logged > "$LOG_PATH/own.log"
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="flavor-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
def test_another_user_sees_its_files_and_nothing_of_the_worker(bench, open_folder):
    secret = open_folder / "secret"
    secret.write_text('{"metrics": {}} hush')
    secret.chmod(0o600)
    program = open_folder / "aggregate.sh"
    program.write_text(SHELL.replace("SECRET", str(secret)))
    program.chmod(0o644)
    coordinator = bench.serve("--aggregation-attempts", 5, rounds=2)
    words = ["--queue", bench.run, "--store", bench.store, "--workspace", open_folder / "agg", "--user", "nobody"]
    worker = bench.start("flavor-agg", *words, "-m", f"sh {program}", env={"FLAVOR_STORE_CACHE": "hush"})
    edges = [bench.edge(f"c{i}", bench.trainer("--format", "safetensors")) for i in (1, 2)]
    assert coordinator.wait(60) == 0, coordinator.stderr + worker.stderr
    for edge in edges:
        assert edge.wait() == 0
    link, pipe, info, hard = failures(bench)
    for told in (link, pipe, info):
        assert "left no plain file" in told
        assert "hush" not in told
    assert "exit code 9" in hard or "no plain file of its own" in hard
    here = open_folder / "agg" / bench.run
    group = subprocess.run(["id", "-Gn", "nobody"], capture_output=True, text=True, check=True).stdout.strip()
    home = pwd.getpwnam("nobody").pw_dir
    assert (here / "output" / "who").read_text().splitlines() == ["nobody", group, f"{home} nobody", "0077"]
    assert (here / "output" / "environ").read_bytes() == b""
    refused = (here / "output" / "refused").read_text()
    assert refused.splitlines().count("no") == 3, refused  # it may write to its own copy of a local model
    assert (here / "logs" / "own" / "own.log").read_text() == "logged\n"
    assert sorted(path.name for path in here.iterdir()) == ["logs", "output"]
    for path in (bench.store).rglob("*.safetensors"):
        found = path.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o444), "what lies in the store is still ours"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.stem.endswith(digest[:16]), "and is what was handed in, whatever was written to the copies"


LEADER = """
cd "$OUTPUT_PATH"
first() { sed 's/^\\["\\([^"]*\\)".*/\\1/' "$1.json"; }
echo "$(first globalModel)" >> seen
stat -c '%U %a' "$(dirname "$(dirname "$(first globalModel)")")" > around
case $(wc -l < seen) in
1) rm localModels.json; ln -s SECRET localModels.json; exit 3 ;;
2) rm localInfos.json; mkdir localInfos.json; exit 3 ;;
esac
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
def test_what_another_user_leaves_leads_the_next_attempt_nowhere(bench, open_folder):
    secret = open_folder / "secret"
    secret.write_text("hush")
    secret.chmod(0o600)
    program = open_folder / "aggregate.sh"
    program.write_text(LEADER.replace("SECRET", str(secret)))
    program.chmod(0o644)
    coordinator = bench.serve("--aggregation-attempts", 3, rounds=1)
    words = ["--queue", bench.run, "--store", bench.store, "--workspace", open_folder / "agg", "--user", "nobody"]
    worker = bench.start("flavor-agg", *words, "-m", f"sh {program}")
    for client in ("c1", "c2"):
        bench.edge(client, bench.trainer())
    assert coordinator.wait(60) == 1, coordinator.stderr + worker.stderr
    output = open_folder / "agg" / bench.run / "output"
    first, second = (output / "seen").read_text().splitlines()
    assert Path(first).parts[-3] != Path(second).parts[-3], "an attempt has a folder that no earlier one had"
    assert (output / "around").read_text() == "root 711\n"
    assert not (output / "localModels.json").is_symlink()
    assert f"left a folder at {output / 'localInfos.json'}" in failures(bench)[2]
    assert (secret.read_text(), secret.stat().st_uid, stat.S_IMODE(secret.stat().st_mode)) == ("hush", 0, 0o600)
    left = [path for path in output.parent.iterdir() if path.name.startswith("round-")]
    assert len(left) == 1, "only the last attempt's is kept for a look"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
def test_no_link_is_followed_when_a_folder_is_given(open_folder):
    nobody = Account.of("nobody", "--user")
    outside, tree = open_folder / "outside", open_folder / "tree"
    (outside / "in").mkdir(parents=True)
    (tree / "in").mkdir(parents=True)
    for file in (outside / "file", outside / "in" / "file", outside / "hard", tree / "in" / "own"):
        file.touch()
    (tree / "in" / "file").symlink_to(outside / "file")
    (tree / "in" / "folder").symlink_to(outside / "in")
    (tree / "in" / "gone").symlink_to(outside / "gone")
    (tree / "hard").hardlink_to(outside / "hard")
    os.mkfifo(tree / "pipe")
    for path in (outside, *outside.rglob("*")):
        path.chmod(0o755)
    nobody.give_tree(tree)
    for path in (outside, *outside.rglob("*")):
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o755), path
    for path, mode in ((tree, 0o700), (tree / "in", 0o700), (tree / "in" / "own", 0o600)):
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (nobody.uid, mode), path
    (open_folder / "link").symlink_to(outside)
    for change in (nobody.give, nobody.let_through):
        with pytest.raises(OSError, match="link"):
            change(open_folder / "link")
    with pytest.raises(InvalidSetting, match="another user's"):
        nobody.let_through(tree)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
def test_what_cannot_be_is_said_at_the_start(bench, open_folder):
    def refused(*words: object) -> str:
        process = bench.done("flavor-agg", "--store", bench.store, *words)
        assert process.wait() == 2
        assert len(process.stderr.splitlines()) == 1
        return process.stderr

    own = ["-m", "sh -c true", "--workspace", open_folder / "w"]
    assert "no such user" in refused(*own, "--user", "no-such-user-here")
    assert "root itself" in refused(*own, "--user", "root")
    assert "leave out --init-once" in refused(*own, "--user", "nobody", "--init-once")
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    assert f"may not enter {closed}" in refused("-m", "sh -c true", "--workspace", closed / "w", "--user", "nobody")
    theirs = open_folder / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    for sticky in (0, stat.S_ISVTX):  # others' folders of a run are as bad as others' workspaces
        theirs.chmod(0o777 | sticky)
        assert f"may change {theirs}" in refused("-m", "sh -c true", "--workspace", theirs, "--user", "nobody")
    assert "is not a size" in refused(*own, "--memory-limit", "lots")
    assert "of your own" in refused("--memory-limit", "1GiB")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
def test_a_place_for_output_that_the_commands_user_cannot_come_to_or_could_replace_is_refused(open_folder):
    """`$OUTPUT_PATH` itself is given to it; what it lies in must not be its own."""
    nobody = Account.of("nobody", "--user")

    def checked(output: Path, workspace: Path = open_folder / "w") -> None:
        confinement = Confinement(None, None, None, nobody)
        UserAggregator(("true",), workspace, (), confinement, output=output).check_folders()

    closed, theirs = open_folder / "closed", open_folder / "theirs"
    closed.mkdir(mode=0o700)
    with pytest.raises(InvalidSetting, match=f"nobody may not enter {closed}, on the way to OUTPUT_PATH"):
        checked(closed / "out")
    theirs.mkdir()
    os.chown(theirs, nobody.uid, -1)
    with pytest.raises(InvalidSetting, match=f"nobody may change {theirs}, on the way to OUTPUT_PATH"):
        checked(theirs / "out")
    (open_folder / "link").symlink_to(theirs / "out")
    with pytest.raises(InvalidSetting, match=f"may change {theirs}, on the way to OUTPUT_PATH"):
        checked(open_folder / "link")
    checked(theirs)
    checked(open_folder / "fresh")
    checked(theirs, open_folder / "w2")


def test_only_root_changes_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InvalidSetting, match="only root"):
        Account.of("nobody", "--user")


@pytest.mark.parametrize(
    ("limits", "code", "lines", "said"),
    [
        ({"memory_bytes": 2**30}, 1, ["MemoryError"], "reached --memory-limit 1 GiB"),
        ({"memory_bytes": 2**30}, 1, ["terminate called after std::bad_alloc"], "reached --memory-limit 1 GiB"),
        (
            {"memory_bytes": 2**30},
            1,
            ["RuntimeError: can't allocate memory"],
            "reached --memory-limit 1 GiB",
        ),
        ({"memory_bytes": 2**30}, 1, ["Error: cannot allocate vector of size 8 Gb"], "reached --memory-limit 1 GiB"),
        ({"memory_bytes": 2**30}, -9, [], "perhaps reached --memory-limit 1 GiB"),
        ({"memory_bytes": 2**30}, 0, ["MemoryError, and caught"], ""),
        ({"memory_bytes": 2**30}, 1, ["KeyError"], ""),
        ({}, 1, ["MemoryError"], ""),
        ({"cpu_s": 3}, -24, [], "used up --cpu-limit-s 3"),
        ({"cpu_s": 3}, -9, [], "perhaps used up --cpu-limit-s 3"),
        ({"cpu_s": 3}, -11, [], ""),
        (
            {"cpu_s": 3, "memory_bytes": 2**30},
            -9,
            [],
            "perhaps used up --cpu-limit-s 3 or reached --memory-limit 1 GiB",
        ),
        ({"cpu_s": 3, "memory_bytes": 2**30}, -9, ["MemoryError"], "reached --memory-limit 1 GiB"),
        ({"file_bytes": 1000}, 1, ["OSError: [Errno 27] File too large"], "wrote a file as large"),
        ({"file_bytes": 1000}, -25, [], "wrote a file as large"),
    ],
)
def test_which_limit_ended_it(limits: dict[str, int], code: int, lines: list[str], said: str) -> None:
    assert Confinement(**limits).explained(code, lines).startswith(said)
    assert bool(said) == bool(Confinement(**limits).explained(code, lines))


def test_a_limit_below_what_a_program_needs_is_an_end_like_another(tmp_path: Path) -> None:
    try:
        process = ChildProcess(
            [sys.executable, "-c", "pass"],
            environment=dict(os.environ),
            log=tmp_path / "log",
            confinement=Confinement(memory_bytes=4096),
        )
    except CommandNotFound:
        return
    assert process.wait(30) != 0
