"""Record `flavor run` for the README: three sites with handwritten digits, in a folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples" / "numpy-digits"
WORDS = ["flavor", "run", "-m", "python main.py", "--input-glob", "site*/", "--rounds", "8", "--out", "digits"]


def main() -> None:
    """Prepare the example's data, and record its run."""
    with tempfile.TemporaryDirectory() as folder:
        for file in ("main.py", "prepare.py"):
            shutil.copy(EXAMPLE / file, folder)
        subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        size = ["--rows", "18", "--columns", "112"]
        subprocess.run(
            [sys.executable, HERE / "terminal.py", HERE / "run.svg", *size, "--hide", folder, "--", *WORDS],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore"},
            check=True,
        )


if __name__ == "__main__":
    main()
