"""Record a command in a terminal as an animated SVG: no screen recorder, no browser, and the text stays text.

    python docs/pictures/terminal.py OUT.svg [--rows 16] [--columns 100] [--hide FOLDER] -- COMMAND ARGUMENT...

The command runs on a pseudo-terminal; pyte, a terminal emulator, keeps the screen that it draws. A frame is kept
whenever that screen has changed, at most four a second, and shown for as long as it stood; pauses are cut to two
seconds. The first line is the command, as it would be typed. `make pictures` makes those of the documentation anew.
"""

from __future__ import annotations

import argparse
import fcntl
import html
import os
import pty
import select
import shlex
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pyte

FRAME_S = 0.25
LONGEST_S = 2.0
LAST_S = 6.0
WIDTH, HEIGHT = 8.4, 19.0
"""Of one character, in pixels."""
COLOURS = {
    "default": "#c9d1d9",
    "black": "#484f58",
    "red": "#ff7b72",
    "green": "#7ee787",
    "brown": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#56d4dd",
    "white": "#f0f6fc",
}
BACKGROUND = "#0d1117"

Run = tuple[int, str, str, bool]
"""A piece of a line in one style: column, text, colour, whether it is bold."""
Screen = tuple[tuple[Run, ...], ...]


def recorded(command: list[str], rows: int, columns: int, hidden: str) -> list[tuple[float, Screen]]:
    """Each screen that the command has drawn, and for how many seconds it stood."""
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(rows)}
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
    )
    os.close(terminal)
    stream.feed(f"$ {shlex.join(command)}\r\n".encode())
    frames = [(time.monotonic(), looked_at(screen))]
    while True:
        ready, _, _ = select.select([controller], [], [], FRAME_S)
        try:
            data = os.read(controller, 65536) if ready else b""
        except OSError:  # the last process that had it open has ended
            break
        if ready and not data:
            break
        stream.feed(data.replace(f"{hidden}/".encode(), b"") if hidden else data)
        now, shown = time.monotonic(), looked_at(screen)
        if shown != frames[-1][1]:
            if now - frames[-1][0] < FRAME_S and len(frames) > 1:
                frames[-1] = (frames[-1][0], shown)
            else:
                frames.append((now, shown))
    if process.wait():
        sys.exit(f"{command[0]} ended with code {process.returncode}")
    frames.append((time.monotonic(), looked_at(screen)))
    ends = [at for at, _ in frames[1:]] + [frames[-1][0] + LAST_S]
    return [
        (min(end - at, LONGEST_S) if end != ends[-1] else LAST_S, each)
        for (at, each), end in zip(frames, ends, strict=True)
        if any(each)
    ]


def looked_at(screen: pyte.Screen) -> Screen:
    """The screen as runs of characters in one style."""
    lines: list[tuple[Run, ...]] = []
    for row in range(screen.lines):
        runs: list[Run] = []
        for column in range(screen.columns):
            char = screen.buffer[row][column]
            style = (COLOURS.get(char.fg, f"#{char.fg}"), char.bold)
            if runs and (runs[-1][2], runs[-1][3]) == style and runs[-1][0] + len(runs[-1][1]) == column:
                runs[-1] = (runs[-1][0], runs[-1][1] + char.data, *style)
            else:
                runs.append((column, char.data, *style))
        lines.append(tuple(run for run in runs if run[1].strip()))
    return tuple(lines)


def drawn(frames: list[tuple[float, Screen]], title: str, rows: int, columns: int) -> str:
    """The recording as an SVG that plays again and again."""
    total = sum(seconds for seconds, _ in frames)
    width, height = columns * WIDTH + 32, rows * HEIGHT + 62
    styles, groups, at = [], [], 0.0
    for number, (seconds, screen) in enumerate(frames):
        begin, end = 100 * at / total, 100 * (at + seconds) / total
        first = "hidden" if begin else "visible"
        at += seconds
        styles.append(
            f"@keyframes f{number}{{0%,{max(begin - 0.001, 0):.3f}%{{visibility:{first}}}"
            f"{begin:.3f}%,{end - 0.001:.3f}%{{visibility:visible}}{end:.3f}%,100%{{visibility:hidden}}}}"
            f"#f{number}{{animation:f{number} {total:.2f}s step-end infinite;"
            f"visibility:{'visible' if number == len(frames) - 1 else 'hidden'}}}"
        )
        texts = "".join(line_of(row, runs) for row, runs in enumerate(screen) if runs)
        groups.append(f'<g id="f{number}">{texts}</g>')
    dots = "".join(
        f'<circle cx="{22 + 20 * n}" cy="20" r="6" fill="{colour}"/>'
        for n, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{html.escape(title)}"><title>{html.escape(title)}</title><style>'
        "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}"
        f"{''.join(styles)}</style>"
        f'<rect width="100%" height="100%" rx="10" fill="{BACKGROUND}"/>{dots}'
        f'<g transform="translate(16 50)">{"".join(groups)}</g></svg>\n'
    )


def line_of(row: int, runs: tuple[Run, ...]) -> str:
    """One line of a screen."""
    spans = "".join(
        f'<tspan x="{column * WIDTH:.1f}" textLength="{len(text) * WIDTH:.1f}" fill="{colour}"'
        f"{' font-weight=' + chr(34) + 'bold' + chr(34) if bold else ''}>{html.escape(text)}</tspan>"
        for column, text, colour, bold in ((c, t.rstrip(), colour, bold) for c, t, colour, bold in runs)
    )
    return f'<text y="{row * HEIGHT:.0f}" xml:space="preserve">{spans}</text>'


def main() -> None:
    """Record, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--title", default="")
    parser.add_argument("--hide", default="", help="a folder that is left out of the paths that the command prints")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    frames = recorded(options.command, options.rows, options.columns, options.hide)
    title = options.title or shlex.join(options.command)
    options.out.write_text(drawn(frames, title, options.rows, options.columns), encoding="utf-8")
    print(f"{options.out}: {len(frames)} frames, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
