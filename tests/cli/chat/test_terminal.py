"""The chat as a person has it: behind a real pseudo-terminal, with the demo model."""

from __future__ import annotations

import json
import os
import signal
import stat
import termios
import time
from pathlib import Path

import pytest
from support.terminal import WITHOUT_READLINE, Terminal

pytestmark = pytest.mark.slow

SIGN = Path(__file__).parents[3] / "examples" / "sign.png"
PASTED = "\x1b[200~{}\x1b[201~"
UP = "\x1b[A"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "My Photo.png").write_bytes(SIGN.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def answer() -> str:
    """What the model says to the question of three lines, asked from Python."""
    from llava_edge.runtime.model import load

    with load() as model:
        return model.ask("What does\nthe sign\nsay?", [SIGN]).text


def history(folder: Path) -> list[str]:
    return [json.loads(line) for line in (folder / "cache" / "chat-history.jsonl").read_text().splitlines()]


def asked(terminal: Terminal, folder: Path) -> list[str]:
    """The questions of the conversation, by its transcript."""
    assert "saved" in terminal.ask("/save talk.md")
    turns = (folder / "talk.md").read_text().split("\n## ")
    return [turn.split("*\n\n")[1].strip() for turn in turns if turn.startswith("You")]


def test_pasted_lines_are_one_question(folder: Path, answer: str) -> None:
    terminal = Terminal("chat", str(SIGN), folder=folder)
    terminal.wait_for_prompt()
    terminal.type(PASTED.format("What does\rthe sign\rsay?\r"))
    terminal.wait_for("say?")
    terminal.type("\r")
    assert terminal.wait_for_prompt().endswith(f"{answer}\n")
    assert asked(terminal, folder) == ["What does\nthe sign\nsay?"]
    terminal.type("/quit\r")
    assert terminal.finish() == 0
    assert history(folder) == ["What does\nthe sign\nsay?\n", "/save talk.md", "/quit"]


@pytest.mark.parametrize("before", ["", WITHOUT_READLINE])
@pytest.mark.parametrize("typed", ['"""What does\rthe sign\rsay?"""', "What does\\\rthe sign\\\rsay?"])
def test_several_lines(folder: Path, before: str, typed: str, answer: str) -> None:
    terminal = Terminal("chat", str(SIGN), folder=folder, before=before)
    terminal.wait_for_prompt()
    terminal.type(typed + "\r")
    terminal.wait_for("say?")
    assert terminal.wait_for_prompt().endswith(f"{answer}\n")
    assert asked(terminal, folder) == ["What does\nthe sign\nsay?"]
    terminal.type("\x04")
    assert terminal.finish() == 0


def test_without_readline_it_talks_all_the_same(folder: Path) -> None:
    terminal = Terminal("chat", folder=folder, before=WITHOUT_READLINE)
    terminal.wait_for_prompt()
    assert "2x2 tiles" in terminal.ask("/image My\\ Photo.png")
    assert "OPEN" in terminal.ask("What does the sign say?")
    terminal.type("/bye\r")
    assert terminal.finish() == 0
    assert "Traceback" not in terminal.all


def test_a_dropped_picture_and_its_question(folder: Path) -> None:
    terminal = Terminal("chat", folder=folder)
    terminal.wait_for_prompt()
    terminal.type(PASTED.format(f"'{folder}/My Photo.png' "))
    said = terminal.ask("What does the sign say?")
    assert "My Photo.png: 2x2 tiles" in said
    assert "OPEN" in said
    terminal.type("/exit\r")
    assert terminal.finish() == 0


def test_asides_are_dim_and_steer_nothing(folder: Path) -> None:
    terminal = Terminal("chat", "-v", str(SIGN), "--picture-tokens", "25%", folder=folder)
    terminal.wait_for_prompt()
    said = terminal.ask("What does the sign say?")
    assert "positions were kept (picture tokens)" in said
    assert "threads  " in said
    assert "x1b" not in said
    assert "\x1b[2mthreads  " in terminal.all
    terminal.type("/quit\r")
    assert terminal.finish() == 0


def test_tab_completes_commands_and_paths(folder: Path) -> None:
    terminal = Terminal("chat", folder=folder)
    terminal.wait_for_prompt()
    terminal.type("/im\t")
    terminal.wait_for("/image")
    assert "My Photo.png: 2x2 tiles" in terminal.ask(" My\t")
    terminal.type("/quit\r")
    assert terminal.finish() == 0


def test_history_is_kept_once_and_for_its_owner_alone(folder: Path) -> None:
    for _ in range(2):
        terminal = Terminal("chat", str(SIGN), folder=folder)
        terminal.wait_for_prompt()
        terminal.ask("What does the sign say?")
        terminal.ask(" /stats")  # begins with a space: not kept, as in shells
        terminal.type("\x04")
        assert terminal.finish() == 0
    assert history(folder) == ["What does the sign say?"]
    kept = folder / "cache" / "chat-history.jsonl"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    terminal = Terminal("chat", str(SIGN), folder=folder)
    terminal.wait_for_prompt()
    assert "OPEN" in terminal.ask(UP)
    terminal.type("/quit\r")
    assert terminal.finish() == 0


def test_no_history_leaves_nothing(folder: Path) -> None:
    terminal = Terminal("chat", "--no-history", folder=folder)
    terminal.wait_for_prompt()
    terminal.ask("/stats")
    terminal.type("/quit\r")
    assert terminal.finish() == 0
    assert not (folder / "cache" / "chat-history.jsonl").exists()


def interrupt(terminal: Terminal) -> None:
    time.sleep(0.2)  # readline misses a signal that comes between its prompt and its wait
    terminal.type("\x03")


def test_interrupt_at_the_prompt_asks_again_and_a_second_one_leaves(folder: Path) -> None:
    terminal = Terminal("chat", str(SIGN), folder=folder)
    terminal.wait_for_prompt()
    terminal.ask("What does the sign say?")
    interrupt(terminal)
    terminal.wait_for("Ctrl-C again")
    terminal.wait_for_prompt()
    assert "4 tokens" in terminal.ask("/stats")  # the conversation is still there
    terminal.type("never asked")
    terminal.wait_for("never asked")
    interrupt(terminal)  # drops the line that was begun, and does not count
    terminal.wait_for_prompt()
    interrupt(terminal)
    terminal.wait_for("Ctrl-C again")
    terminal.wait_for_prompt()
    interrupt(terminal)
    assert terminal.finish() == 130
    assert "Traceback" not in terminal.all


def test_interrupt_ends_the_answer_and_takes_its_bars_away(tiny_bundle: Path, folder: Path) -> None:
    """On an untrained model, which does not know how to stop."""
    terminal = Terminal("chat", str(SIGN), "-m", str(tiny_bundle), "--max-tokens", "900", folder=folder)
    terminal.wait_for_prompt()
    terminal.type("What does the sign say?\r")
    terminal.wait_for("reading the prompt")
    interrupt(terminal)
    terminal.wait_for("(ended by cancel)")
    terminal.wait_for_prompt()
    assert terminal.all.rindex("\x1b[2K") > terminal.all.rindex("reading the prompt")
    terminal.type("/quit\r")
    assert terminal.finish() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_the_terminal_as_it_was(folder: Path, number: signal.Signals) -> None:
    terminal = Terminal("chat", folder=folder)
    terminal.wait_for_prompt()
    terminal.ask("/stats")
    time.sleep(0.2)
    os.kill(terminal.pid, number)
    assert terminal.status(20) == 128 + number
    assert terminal.modes() & termios.ECHO
    assert terminal.modes() & termios.ICANON
    assert history(folder) == ["/stats"]


@pytest.mark.parametrize("before", ["", "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "])
def test_a_terminal_that_goes_away_ends_it(folder: Path, before: str) -> None:
    terminal = Terminal("chat", folder=folder, before=before)
    terminal.wait_for_prompt()
    assert terminal.hang_up() in (0, 128 + signal.SIGHUP)
