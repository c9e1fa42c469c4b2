"""A bar on terminals of every width, gone when it is done, cancelled or in the way."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

import pytest
from llava_edge.cli.terminal import progress
from llava_edge.cli.terminal.progress import Bar, bar_line, statistics
from llava_edge.runtime.answer import Answer, Timings

WIDTHS = [1, 4, 10, 20, 40, 57, 80, 200]
DRAWING = """
import sys, time
from llava_edge.cli.main import main
import llava_edge.cli.commands.tiles as tiles
from llava_edge.cli.terminal.progress import Bar, note
def draw(*_, **__):
    bar = Bar("encoding tiles")
    for done in range(5):
        bar(done, 9)
        time.sleep(0.11)
    {then}
tiles_bundle = __import__("llava_edge.runtime.bundle.bundle", fromlist=["Bundle"])
tiles_bundle.demo_bundle = draw
sys.argv = ["llava-edge", "tiles", "x.png"]
main()
"""


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ((), "prompt 9000 positions, 0 cached"),
        ((37,), "of them 37 picture,"),
        ((37, 12, 1, 2), "of them 37+12+1+2 picture,"),
        ((37,) * 200, "of them 7400 in 200 pictures,"),
    ],
)
def test_the_statistics_are_one_short_line(pictures: tuple[int, ...], said: str) -> None:
    line = statistics(Answer("", (1,), "stop", 9000, pictures, 0, 1, Timings(1, 1, 1, 1, 1)))
    assert said in line
    assert len(line) < 200


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_bar_is_one_line(columns: int) -> None:
    for label in ("encoding tiles", "reading the prompt", "x"):
        for share, left in ((0.0, None), (0.123, 59.9), (0.5, 3600.0), (1.0, 0.0), (0.1, 1e7)):
            line = bar_line(label, share, left, columns)
            assert len(line) <= max(columns - 1, 4)
            assert line.isprintable()
            if columns >= 20:
                assert f"{share:.0%}" in line


def test_a_bar_says_what_there_is_to_say() -> None:
    assert bar_line("encoding tiles", 0.5, 65, 80) == f"encoding tiles  [{'#' * 18}{'-' * 18}]  50%  00:01:05"


def test_there_is_none_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("encoding tiles")
    bar(0, 2)
    bar(2, 2)
    progress.note("said")
    assert capsys.readouterr().err == "said\n"


def screen(then: str, *, columns: int = 80, interrupt: bool = False) -> tuple[str, int]:
    """What a terminal of ``columns`` is sent by a command that draws a bar and then does ``then``; its exit status."""
    child, fd = pty.fork()
    if child == 0:  # pragma: no cover - this is the child
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.execv(sys.executable, [sys.executable, "-c", DRAWING.format(then=then)])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    seen, end = "", time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                seen += os.read(fd, 4096).decode()
            except OSError:  # what Linux says at the end of a terminal
                break
        if interrupt and "%" in seen:
            os.kill(child, signal.SIGINT)
            interrupt = False
    return seen, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("then", "status", "interrupt"),
    [
        ("bar(9, 9); sys.exit(0)", 0, False),
        ("raise OSError('broken')", 1, False),
        ("time.sleep(60)", 130, True),
        ("note('said'); sys.exit(0)", 0, False),
    ],
)
def test_the_screen_is_left_as_it_was(then: str, status: int, interrupt: bool) -> None:
    seen, ended = screen(then, columns=40, interrupt=interrupt)
    assert ended == status
    assert "encoding" in seen
    assert "\x1b[?25l" not in seen  # the cursor is never hidden
    last = seen.rindex("%")
    assert "\r\x1b[2K" in seen[last:]
    for drawn in re.findall(r"\r([^\r\x1b]*)\x1b\[K", seen):
        assert len(drawn) < 40
