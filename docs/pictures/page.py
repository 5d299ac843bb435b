"""Take the picture of the page for the documentation: a real `flavor run --ui` of three sites, in Debian's Chromium.

    python docs/pictures/page.py [OUT.png]

Needs playwright and `chromium`, as the tests of the page do. Takes the picture in round 12, while a site trains.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples" / "numpy-digits"
WORDS = ["run", "-m", f"{sys.executable} paced.py", "--input-glob", "site*/", "--rounds", "30", "--min-clients", "2"]
ROUND = 12
WIDE, HIGH = 1280, 1240


def main() -> None:
    """Run the federation, and photograph its page."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "page.png"
    with tempfile.TemporaryDirectory() as folder:
        for file in (EXAMPLE / "main.py", EXAMPLE / "prepare.py", HERE / "paced.py"):
            shutil.copy(file, folder)
        subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        flavor = str(Path(sys.executable).parent / "flavor")
        command = [flavor, *WORDS, "--run", "mammo", "--out", "mammo", "--ui"]
        with subprocess.Popen(command, cwd=folder, env=os.environ, stderr=subprocess.PIPE, text=True) as run:
            try:
                photograph(address_of(run), out)
            finally:
                run.terminate()
                run.communicate()


def address_of(run: subprocess.Popen[str]) -> str:
    """Return the address of the page, as `flavor run --ui` prints it."""
    assert run.stderr is not None
    for line in run.stderr:
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise SystemExit("flavor run --ui has ended without a page")


def photograph(address: str, out: Path) -> None:
    """Wait for the moment, and write the picture."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDE, "height": HIGH})
        page.goto(address)
        expect(page.locator(".stand .round")).to_have_text(f"round {ROUND} of 30", timeout=180_000)
        expect(page.locator(".sites .rows")).to_contain_text(re.compile("[4-9][0-9] %"), timeout=20_000)
        page.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    main()
