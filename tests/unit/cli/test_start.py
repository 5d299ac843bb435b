"""The programs' first moments: no secret waits in the process list for what takes time to import."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flavor.cli.main import COMMANDS

PROGRAMS = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["scripts"]
TAKE_SECRETS = sorted(set(PROGRAMS) - {"check-fl", "check-fv", "check-agg"})
SECRET = "redis://u:s3cret@127.0.0.1:1"
SLOW = ("redis", "click", "pydantic", "numpy", "rich", "rq", "cryptography", "aumai_fedtrain")
ENTRY = """
import os, sys
module, _, name = {entry!r}.partition(":")
sys.argv = ["program", "status", "--redis-url", {secret!r}]
sys.orig_argv = [*sys.orig_argv, *sys.argv[1:]]
def told(program, words, environment):
    loaded = [name for name in {slow!r} if name in sys.modules]
    print(" ".join(loaded), {secret!r} in words, environment["FLAVOR_REDIS_URL"] == {secret!r})
    raise SystemExit(0)
os.execve = told
getattr(__import__(module, fromlist=[name]), name)()
"""


@pytest.mark.parametrize("program", TAKE_SECRETS)  # these take no secret
def test_a_secret_leaves_the_command_line_before_anything_slow_is_imported(program: str) -> None:
    script = ENTRY.format(entry=PROGRAMS[program], secret=SECRET, slow=SLOW)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == " False True\n"


@pytest.mark.parametrize("program", TAKE_SECRETS)
def test_an_interruption_while_everything_is_imported_is_one_line(program: str) -> None:
    module, _, name = PROGRAMS[program].partition(":")
    script = (
        f"import sys, {module} as start\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'click':\n"
        "            raise KeyboardInterrupt\n"
        "sys.argv = ['program', 'status']\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        f"start.{name}()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "flavor: interrupted\n")


def test_a_program_ends_without_a_look_through_what_it_imported() -> None:
    script = (
        "import atexit, gc, click\n"
        "from flavor.cli.program import run_program\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
        "run_program(click.Command('x', callback=lambda: None), 'x')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"


NOT_FOR_HELP = ("pydantic", "redis", "numpy", "torch", "rq", "obstore", "botocore", "cryptography", "asyncio")
NEEDED_FOR_HELP = {
    **{f"flavor {name}": ["pydantic"] for name in ("run", "demo", "serve", "resume")},
}
"""Their options are made from the fields of `RunConfig`."""
HELP = """
import contextlib, importlib, io, json, os, sys
import click
told = {}
for words, entry in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    if not os.fork():
        module, _, name = entry.partition(":")
        sys.argv = [*words.split(), "--help"]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
            getattr(importlib.import_module(module), name)()
        assert "Usage" in shown.getvalue()
        os.write(writing, json.dumps([name for name in SLOW if name in sys.modules]).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        told[words] = json.loads(file.read())
    os.wait()
print(json.dumps(told))
"""


def test_help_imports_nothing_slow() -> None:
    commands = [name for group in COMMANDS.values() for name in group]
    programs = {name: entry for name, entry in PROGRAMS.items() if name != "aumai-fedtrain"}
    shown = {**programs, **{f"flavor {name}": PROGRAMS["flavor"] for name in commands}}
    script = f"SLOW = {NOT_FOR_HELP!r}\n{HELP}"
    words = [sys.executable, "-c", script, json.dumps(list(shown.items()))]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert found == {name: NEEDED_FOR_HELP.get(name, []) for name in shown}
