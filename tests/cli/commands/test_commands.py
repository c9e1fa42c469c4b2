"""The commands as a person or another program meets them: through the installed entry point."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main
from llava_edge.cli.main import app
from PIL import Image
from support.command_line import run_here

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).parent / "llava-edge")
ROOT = Path(__file__).parents[3]
SIGN = str(ROOT / "examples" / "sign.png")
COMMANDS = ROOT / "cli" / "commands"


def run(*arguments: str | Path, stdin: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120, cwd=folder
    )


def refused(*arguments: str | Path, folder: Path | None = None, status: int = 1) -> str:
    """Run, expect an exit status and one line on stderr; return it."""
    done = run(*arguments, folder=folder)
    assert done.returncode == status, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("llava-edge: ")
    assert "Traceback" not in line
    return line


def test_ask_prints_the_answer_and_nothing_else() -> None:
    done = run("ask", SIGN, "What does the sign say?")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    (statistics,) = done.stderr.splitlines()
    assert "first token after" in statistics
    assert "\x1b" not in done.stderr  # no progress bar where stderr is no terminal


def test_ask_json_is_the_contract() -> None:
    done = run("ask", SIGN, SIGN, "What does the sign say?", "--json", "--max-tokens", "3")
    answer = json.loads(done.stdout)
    contract = {
        "text": str,
        "tokens": list,
        "finish_reason": str,
        "prompt_tokens": int,
        "image_tokens": list,
        "cached_tokens": int,
        "timings": dict,
    }
    assert all(isinstance(answer[name], kind) for name, kind in contract.items())
    assert set(answer["timings"]) == {"load", "encode", "prefill", "decode", "first_token"}
    assert len(answer["image_tokens"]) == 2
    plain = run("ask", SIGN, SIGN, "What does the sign say?", "--max-tokens", "3")
    assert plain.stdout == answer["text"] + "\n"


def test_ask_takes_seed_and_temperature() -> None:
    options = ("--temperature", "2", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--max-tokens", "8", "--json")
    texts = [json.loads(run("ask", SIGN, "Describe it.", *options, "--seed", seed).stdout)["text"] for seed in "112"]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_tiles_json_is_the_contract(tmp_path: Path) -> None:
    from llava_edge.runtime import Bundle, demo_bundle
    from llava_edge.runtime.pictures.tiles import lay_out

    Image.new("RGB", (301, 97), "teal").save(tmp_path / "wide.png")
    done = run("tiles", "wide.png", "--json", "--save", "seen.png", folder=tmp_path)
    found = json.loads(done.stdout)
    layout = lay_out((301, 97), Bundle.open(demo_bundle()).manifest.geometry)
    assert found == {
        "size": [301, 97],
        "grid": list(layout.grid),
        "resized": list(layout.resized),
        "unpadded": list(layout.unpadded),
        "image_tokens": layout.image_tokens,
    }
    with Image.open(tmp_path / "seen.png") as overlay:
        assert min(overlay.size) > 200
    assert str(layout.image_tokens) in run("tiles", "wide.png", folder=tmp_path).stdout
    kept = ("tiles", "wide.png", "--picture-tokens", "20")
    found = json.loads(run(*kept, "--json", folder=tmp_path).stdout)
    assert (found["image_tokens"], found["all_image_tokens"]) == (21, layout.image_tokens)
    assert f"21 of {layout.image_tokens}: " in run(*kept, folder=tmp_path).stdout


@pytest.mark.parametrize(("ending", "kind"), [(".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP"), ("", "PNG")])
def test_tiles_are_drawn_as_the_name_says(ending: str, kind: str, tmp_path: Path) -> None:
    status, _, err = run_here("tiles", SIGN, "--save", str(tmp_path / f"seen{ending}"))
    assert (status, err) == (0, f"saved to {tmp_path}/seen{ending}\n")
    with Image.open(tmp_path / f"seen{ending}") as drawn:
        assert drawn.format == kind


def test_tiles_of_standard_input_and_of_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run_here("tiles", SIGN, "--json")[1]
    piped = subprocess.run(
        [sys.executable, "-m", "llava_edge.cli.main", "tiles", "-", "--json"],
        input=Path(SIGN).read_bytes(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert piped.stdout.decode() == expected
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(SIGN, tmp_path / "x.png")
    assert run_here("tiles", "~/x.png", "--json")[1] == expected
    assert f"{tmp_path}/none.png" in run_here("chat", "~/none.png")[2]
    status, _, err = run_here("chat", "-")
    assert status == 2
    assert "a path for [IMAGE]...; got -" in err


@pytest.mark.parametrize("name", ["seen.tiff", "seen.pdf", "seen.txt", "seen.png.bak", "none/seen.png", "", "."])
def test_tiles_that_can_not_be_drawn_leave_nothing(name: str, tmp_path: Path) -> None:
    status, out, err = run_here("tiles", SIGN, "--save", f"{tmp_path}/{name}")
    assert status in (1, 2)
    assert out == ""
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("detail", ["low", "auto", "high"])
@pytest.mark.parametrize("size", [(301, 97), (300, 9), (1, 5000)])
def test_tiles_of_every_shape_and_detail_are_drawn(size: tuple[int, int], detail: str, tmp_path: Path) -> None:
    Image.new("RGB", size, "teal").save(tmp_path / "a.png")
    saved = tmp_path / "seen.png"
    status, _, err = run_here("tiles", str(tmp_path / "a.png"), "--detail", detail, "--save", str(saved))
    assert status == 0, err
    assert saved.is_file()


def test_tiles_are_not_drawn_over_the_picture(tmp_path: Path) -> None:
    picture = tmp_path / "sign.png"
    shutil.copy(SIGN, picture)
    assert run_here("tiles", str(picture), "--save", str(picture))[0] == 2
    assert picture.read_bytes() == Path(SIGN).read_bytes()


def test_paths_after_an_equals_sign_are_read_as_a_shell_would(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = copy_of_demo(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_here("tiles", SIGN, "--model=~/bundle", "--save=~/seen.png")[0] == 0
    assert (tmp_path / "seen.png").is_file()
    assert str(bundle) in run_here("tiles", SIGN, "--model=~/bundle/none")[2]
    (tmp_path / "q.txt").write_text("What does the sign say?")
    done = run_here("ask", SIGN, "--question-file=~/q.txt", "-m", "~/bundle", "-q")
    assert done == (0, "OPEN\n", "")


@pytest.mark.parametrize("question", ["-5 + 3 = ?", "- what is this?", "--what is this?", "-5"])
def test_a_question_may_begin_with_a_dash(question: str) -> None:
    status, out, err = run_here("ask", SIGN, question, "--max-tokens", "1", "-q")
    assert (status, err) == (0, "")
    assert run_here("ask", "--max-tokens", "1", "-q", "--", SIGN, question)[1] == out
    assert run_here("ask", SIGN, "-Z", "What?")[0] == 2
    assert run_here("ask", SIGN, "What?", "--system", "-be brief", "--stop", "-5 x", "-q", "--max-tokens", "1")[0] == 0


def test_how_much_is_said() -> None:
    asked = ("ask", SIGN, "What does the sign say?")
    status, out, err = run_here(*asked, "-q")
    assert (status, out, err) == (0, "OPEN\n", "")
    assert len(run_here(*asked)[2].splitlines()) == 1
    said = run_here(*asked, "-v")[2].splitlines()
    assert [line.split()[0] for line in said[3:]] == [
        "threads",
        "memory",
        "cache",
        "load",
        "encode",
        "prefill",
        "decode",
        "seed",
    ]
    assert len(run_here(*asked, "--stats")[2].splitlines()) == len(said)
    (hint, _) = run_here("ask", "What is this?", "--max-tokens", "1")[2].splitlines()
    assert hint.startswith("no picture was given")
    assert run_here("ask", "What is this?", "--max-tokens", "1", "-q")[2] == ""


def test_a_stream_of_json_ends_with_the_object() -> None:
    asked = ("ask", SIGN, "What does the sign say?", "-q", "--seed", "1")
    *pieces, last = [json.loads(line) for line in run_here(*asked, "--json-stream")[1].splitlines()]
    assert "".join(piece["delta"] for piece in pieces) == last["text"] == "OPEN"
    assert all(list(piece) == ["delta"] for piece in pieces)
    whole = json.loads(run_here(*asked, "--json")[1])
    for answer in (whole, last):
        del answer["timings"]
    assert whole == last


def test_warnings_of_an_answer_are_said(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jpg"
    with Image.open(SIGN) as sign:
        sign.convert("RGB").save(cut, quality=95)
    cut.write_bytes(cut.read_bytes()[:-10])
    asked = ("ask", str(cut), "What?", "--max-tokens", "1")
    assert "cut.jpg is cut short" in run_here(*asked)[2].splitlines()[0]
    assert run_here(*asked, "-q")[2] == ""
    (warning,) = json.loads(run_here(*asked, "-q", "--json")[1])["warnings"]
    assert "cut.jpg is cut short" in warning


def test_layers_for_a_gpu_that_is_not_there() -> None:
    from llava_edge.runtime.ggml.devices import has_gpu

    said = run_here("ask", SIGN, "What?", "--max-tokens", "1", "--gpu-layers", "5")[2]
    assert ("--gpu-layers 5 has no effect" in said) == (not has_gpu())


def test_show_and_verify() -> None:
    shown = run("show")
    assert "q4_k_m" in shown.stdout
    assert json.loads(run("show", "--json").stdout)["schema"] == 2
    verified = run("verify")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.splitlines()[-1] == "parity holds"


def test_stats_say_where_vision_runs_and_why() -> None:
    done = run("ask", SIGN, "What does the sign say?", "--max-tokens", "1", "--stats", "--provider", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[1] == "vision on cpu: asked for"
    assert "expected providers among " in refused("ask", SIGN, "What?", "--provider", "coreml,cuda", status=2)
    chat = run("chat", stdin="/stats\n/quit\n")
    assert "vision on " in chat.stderr


def test_optimize_without_a_gpu_says_what_to_install(tmp_path: Path) -> None:
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has TensorRT")
    bundle = copy_of_demo(tmp_path)
    before = sorted(bundle.iterdir())
    said = refused("optimize", bundle)
    assert "TensorrtExecutionProvider" in said
    assert "pip install onnxruntime-gpu" in said
    assert sorted(bundle.iterdir()) == before


def copy_of_demo(tmp_path: Path) -> Path:
    from llava_edge.runtime import demo_bundle

    shutil.copytree(demo_bundle(), tmp_path / "bundle")
    return tmp_path / "bundle"


def test_verify_finds_weights_that_were_swapped(tmp_path: Path) -> None:
    """Hashes that agree are not enough: the parity record must hold too."""
    import numpy as np
    from llava_edge.runtime.bundle.bundle import Bundle, write_manifest

    bundle = copy_of_demo(tmp_path)
    newline = np.load(bundle / "newline.npy")
    np.save(bundle / "newline.npy", 10 * newline)
    write_manifest(bundle, Bundle.open(demo_path()).manifest)
    done = run("verify", bundle)
    assert done.returncode == 1
    assert "got worse" in done.stderr


def demo_path() -> Path:
    from llava_edge.runtime import demo_bundle

    return demo_bundle()


def test_chat_over_a_pipe(tmp_path: Path) -> None:
    shutil.copy(SIGN, tmp_path / "second.png")
    lines = [
        "What does the sign say?",
        "/stats",
        "/image second.png",
        "/image none.png",
        "How many shapes are there?",
        "/clear",
        "/stats",
        "/help",
        "/nonsense",
        "",
        "/quit",
        "never asked",
    ]
    done = run("chat", SIGN, stdin="\n".join(lines), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) == 2
    for said in ("cached", "no such file", "conversation cleared", "no answer yet", "unknown command /nonsense"):
        assert said in done.stderr


class Terminal:
    """A chat behind a pseudo-terminal, as a person has it."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:  # pragma: no cover - this is the child
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background has it ignored
            os.execv(COMMAND, [COMMAND, *arguments])
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until ``text`` has appeared behind what was waited for before."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            try:
                self.seen += os.read(self.fd, 4096).decode("utf-8", "replace")
            except OSError as error:  # what Linux says at the end of a terminal
                raise AssertionError(f"no {text!r} before the end in {self.seen!r}") from error
        self.seen = self.seen.split(text, 1)[1]

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def finish(self, seconds: float = 60, *, interrupting: bool = False) -> int:
        """Read to the end and return the exit status; kill what does not end.

        ``interrupting`` presses Ctrl-C, and again where nothing has come of it: a second one while the
        interpreter goes would end it by the signal.
        """
        end = time.monotonic() + seconds
        press = time.monotonic()
        while True:
            if interrupting and time.monotonic() >= press:
                os.kill(self.pid, signal.SIGINT)
                press += 5
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
            try:
                if select.select([self.fd], [], [], 0.3)[0] and not os.read(self.fd, 4096):
                    break
            except OSError:  # what Linux says at the end of a terminal
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("more", [(), ("--isolate",)])
def test_first_interrupt_ends_the_answer_and_keeps_the_conversation(tiny_bundle: Path, more: tuple[str, ...]) -> None:
    """On an untrained model, which does not know how to stop. Ctrl-C reaches every process of the terminal."""
    terminal = Terminal("chat", SIGN, "-m", str(tiny_bundle), "--max-tokens", "900", *more)
    terminal.wait_for("> ")
    terminal.type("What does the sign say?\n")
    terminal.wait_for("reading the prompt")
    terminal.wait_for("\x1b[2K")  # the bar has gone
    assert terminal.seen or os.read(terminal.fd, 1)  # the answer has begun
    os.killpg(terminal.pid, signal.SIGINT)
    terminal.wait_for("(ended by cancel)")
    terminal.wait_for("> ")
    terminal.type("/stats\n")
    terminal.wait_for("ended by cancel")
    terminal.wait_for("> ")
    terminal.type("/quit\n")
    assert terminal.finish() == 0


def test_interrupt_at_the_prompt_leaves() -> None:
    terminal = Terminal("chat")
    terminal.wait_for("> ")
    # readline misses a signal that comes between its prompt and its wait; a person presses again
    assert terminal.finish(interrupting=True) in (0, 130)


def test_progress_bars_on_a_terminal() -> None:
    terminal = Terminal("ask", SIGN, "What does the sign say?", "--no-cache")
    terminal.wait_for("encoding tiles")
    terminal.wait_for("reading the prompt")
    assert terminal.finish() == 0


def commands() -> list[str]:
    """Every command by its words, those of ``benchmark`` included."""
    group: Any = typer.main.get_command(app)
    inner = {f"benchmark {name}" for name in group.commands["benchmark"].commands}
    return sorted({"", *group.commands} | inner)


@pytest.mark.parametrize("command", commands())
def test_help(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    assert f"Usage: llava-edge {command}".rstrip() in done.stdout


def test_help_is_asked_of_all() -> None:
    names = {path.stem.removesuffix("_") for path in COMMANDS.glob("[!_]*.py")}  # "import" is a word of Python's
    files = {name.replace("benchmark_", "benchmark ") for name in names}
    assert files | {"", "benchmark demo"} == set(commands())


def test_no_arguments_show_the_help() -> None:
    done = run()
    assert "Usage: llava-edge" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("status", "arguments", "said"),
    [
        (1, ["ask", "none.jpg", "What?"], "no such file"),
        (1, ["ask", ".", "What?"], "a directory"),
        (2, ["ask", SIGN], "a question after the picture"),
        (2, ["ask", SIGN, "  "], "a question"),
        (2, ["ask"], "Missing argument"),
        (1, ["ask", SIGN, "What?", "-m", "none"], "a bundle folder at none"),
        (2, ["ask", SIGN, "What?", "--temperature", "-1"], "temperature from 0 to 100"),
        (2, ["ask", SIGN, "What?", "--max-tokens", "many"], "max-tokens"),
        (2, ["ask", SIGN, "What?", "--context", "999999"], "the model's limit"),
        (1, ["ask", SIGN, "word " * 3000], "fewer than"),
        (1, ["chat", "none.jpg"], "no such file"),
        (2, ["chat", "--top-p", "2"], "top_p from 0 to 1"),
        (1, ["tiles", "none.jpg"], "no such file"),
        (1, ["tiles", SIGN, "--save", "none/seen.png"], "seen.png"),
        (1, ["show", "none"], "a bundle folder at none"),
        (1, ["verify", "none"], "a bundle folder at none"),
        (1, ["quantize", "none", "-o", "small"], "a bundle folder at none"),
        (1, ["export", "./none", "-o", "bundle"], "none"),
        (2, ["no-such-command"], "No such command"),
        (2, ["ask", "--no-such-option"], "No such option"),
    ],
)
def test_wrong_input_is_one_line(status: int, arguments: list[str], said: str, tmp_path: Path) -> None:
    assert said in refused(*arguments, folder=tmp_path, status=status)
    assert not list(tmp_path.iterdir())
