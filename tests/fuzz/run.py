"""Coverage-guided fuzzing of every target, one after another: `python tests/fuzz/run.py --minutes 10`.

Not a part of the test suite: it needs `pip install atheris`, and time. What it finds is left in the folder of `--out`
as `TARGET/crash-…`, `timeout-…` or `oom-…`; `python tests/fuzz/run.py --replay FILE TARGET` runs one input again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
INPUT_S, MEMORY_MIB, INPUT_BYTES = 20, 2048, 16384


def one(target: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, as libFuzzer's arguments say."""
    import atheris

    with atheris.instrument_imports(include=["flavor", "workers", "pickle", "zipfile", "json"]):
        from targets import TARGETS

    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


def campaign(names: list[str], minutes: float, out: Path) -> int:
    """Every target for its share of the time; returns how many findings there were."""
    from corpus import dictionary, write_corpus

    out.mkdir(parents=True, exist_ok=True)
    tokens = dictionary(out)
    seconds = max(1, int(minutes * 60 / len(names)))
    findings = 0
    for name in names:
        folder, seeds = out / name, out / name / "corpus"
        write_corpus(seeds, name)
        words = [sys.executable, str(HERE / "run.py"), "--target", name, "--", str(seeds), f"-dict={tokens}"]
        words += [f"-max_total_time={seconds}", f"-timeout={INPUT_S}", f"-rss_limit_mb={MEMORY_MIB}"]
        words += [f"-max_len={INPUT_BYTES}", f"-artifact_prefix={folder}/", "-print_final_stats=1", "-verbosity=1"]
        began = time.monotonic()
        with (folder / "log").open("w") as log:
            code = subprocess.run(words, stdout=log, stderr=log, check=False).returncode
        text = (folder / "log").read_text(errors="replace")
        done = re.search(r"stat::number_of_executed_units: (\d+)", text)
        left = sorted(path.name for path in folder.glob("*-*") if path.is_file())
        findings += len(left) or code != 0
        executions = int(done[1]) if done else 0
        print(f"{name:12} {time.monotonic() - began:6.0f} s {executions:10,} executions  {' '.join(left) or 'nothing'}")
    return findings


def main() -> None:
    """Entry point."""
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--only", nargs="*", help="these targets")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--replay", nargs=2, metavar=("FILE", "TARGET"))
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.target:
        one(given.target, given.arguments)
        return
    from targets import TARGETS

    if given.replay:
        TARGETS[given.replay[1]](Path(given.replay[0]).read_bytes())
        print("read, or refused as documented")
        return
    sys.exit(min(1, campaign(given.only or list(TARGETS), given.minutes, given.out)))


if __name__ == "__main__":
    main()
