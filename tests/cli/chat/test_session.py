"""Sessions with the demo model: what each entry does to the conversation, beside the library's own answers."""

from __future__ import annotations

import base64
import io
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from llava_edge.cli.chat.history import History
from llava_edge.cli.chat.lines import Entry, Lines
from llava_edge.cli.chat.session import Session
from llava_edge.runtime.errors import Cancelled
from llava_edge.runtime.model import Model, load
from llava_edge.runtime.options import GenerationOptions

SIGN = Path(__file__).parents[3] / "examples" / "sign.png"
QUESTION = "What does the sign say?"


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with load(threads=1) as loaded:
        yield loaded


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("sign.png", "My Photo.png", "bad\x1b[31m.png"):
        shutil.copy(SIGN, tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def session(model: Model, folder: Path) -> Session:
    return Session(model, None, GenerationOptions(max_tokens=8))


def enter(session: Session, *lines: str) -> None:
    for line in lines:
        assert session.take(Entry(line))


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def messages(session: Session) -> list[tuple[str, str, list[str]]]:
    turns = session.conversation.turns
    return [(turn.message.role, turn.message.text, [image.name for image in turn.images]) for turn in turns]


def test_a_dropped_picture_alone_waits_for_its_question(
    session: Session, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(session, f"'{folder}/My Photo.png' ")
    assert said(capsys)[0] == ""
    enter(session, QUESTION)
    assert said(capsys)[0] == "OPEN\n"
    enter(session, f"{folder}/sign.png {QUESTION}")
    assert messages(session) == [
        ("user", QUESTION, ["My Photo.png"]),
        ("assistant", "OPEN", []),
        ("user", QUESTION, ["sign.png"]),  # the same picture under the name it was given now
        ("assistant", messages(session)[3][1], []),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "/image none.png",
        "/image broken.png",
        "/image sign.png none.png",
        "/image",
        "/image 'sign.png",
        "/image https://example.org/a.png",
        "/set temperature 1000",
        "/save",
        "/save a b",
        "/save a\0b",
        "/save " + "n" * 400,
        "/save none.png/x.md/" + "n" * 400,
        "/save " + "n/" * 4000,
        "/save none/x.md",
        "/save HOME/none/below/x.md",
        "/save ~/none/it's.md",
        "/retry x",
        "/undo 5",
        "/clear all",
        "/stats now",
        "/help /set",
        "/quit now",
        "/Bye\nnow",
        "https://example.org/a.png",
        "https://example.org/page",
        "s3://bucket/a.png what?",
        "./sign.png https://example.org/a.png what?",
        "HOME/none's.png what's this?",
        "/image ~\0",
        "/image " + "n" * 5000,
        "/nonsense",
        "/data/none.png what?",
        "HOME/sign.png HOME/broken.png what?",
        "/image bad\x1b[31m.pn",
    ],
)
def test_what_is_wrong_is_one_line_and_changes_nothing(
    session: Session, folder: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(session, f"'{folder}/My Photo.png' {QUESTION}")
    before = messages(session)
    said(capsys)
    enter(session, line.replace("HOME", str(folder)))
    out, err = said(capsys)
    assert out == ""
    assert err.splitlines()[-1].startswith("expected ")
    assert "\x1b" not in err
    assert len(err.splitlines()) == 1  # and nothing was said to be done
    assert messages(session) == before
    assert session.conversation.waiting == []
    assert not (folder / "none").exists()
    enter(session, QUESTION)
    assert said(capsys)[0].strip()


@pytest.mark.parametrize("lines", [["/image sign.png"], ["/image sign.png 'My Photo.png'"], ["./sign.png ./sign.png"]])
def test_pictures_are_said_when_all_are_added(
    session: Session, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    enter(session, *lines)
    said_of = [line.split(": ")[0] for line in said(capsys)[1].splitlines()]
    assert said_of == [image.name for image in session.conversation.waiting]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("/data/none's.png", "no file /data/none's.png|at /data/none's.png"),
        ("/data/it's.txt what's up", "no file /data/it's.txt;"),
        ("/image none's.png", "at none's.png;"),
    ],
)
def test_a_file_that_is_not_there_is_named_as_it_was_typed(
    session: Session, line: str, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(session, line)
    assert re.search(names, said(capsys)[1])


def test_apostrophes_in_names(session: Session, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(SIGN, folder / "it's.png")
    enter(session, f"{folder}/it's.png", f"{folder}/it's.png {QUESTION}", "/save it's.md")
    assert [image.name for image in session.conversation.turns[0].images] == ["it's.png", "it's.png"]
    assert (folder / "it's.md").is_file()


def test_an_address_within_a_question_is_hinted_at(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    enter(session, "What is in https://example.org/a.png?")
    assert "nothing is fetched from the web: save https://example.org/a.png as a file" in said(capsys)[1]
    assert len(messages(session)) == 2
    assert session.take(Entry("https://example.org/a.png", literal=True))
    assert len(messages(session)) == 4


def test_a_data_url_is_no_name(session: Session, folder: Path) -> None:
    enter(session, "/image data:image/png;base64," + base64.b64encode(SIGN.read_bytes()).decode())
    assert [image.name for image in session.conversation.waiting] == ["picture"]


LONG = "word " * 5000


@pytest.mark.parametrize(
    ("lines", "named", "unnamed"),
    [
        ([], ["shorten"], ["/clear", "/undo", "/set"]),
        ([f"./sign.png {QUESTION}"], ["shorten", "/clear", "/undo takes back the last question"], ["/set"]),
        (["/image sign.png"], ["/set detail low", "/undo takes back a waiting picture"], ["/clear"]),
        (
            ["/set detail low", "/image sign.png"],
            ["/set picture-tokens 25%", "/undo takes back a waiting"],
            ["/clear", "/set detail"],
        ),
        (["/set picture-tokens 9", "/image sign.png"], ["/set detail low"], ["/set picture-tokens"]),
        ([QUESTION, "/image sign.png"], ["/clear", "/set detail low", "/undo takes back a waiting"], []),
    ],
)
def test_a_full_context_names_what_makes_room_here(
    session: Session, lines: list[str], named: list[str], unnamed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    enter(session, *lines)
    said(capsys)
    enter(session, LONG)
    (line,) = said(capsys)[1].splitlines()
    assert line.startswith("expected a prompt of fewer than")
    assert all(one in line for one in named)
    assert not any(one in line for one in unnamed)
    assert "detail=" not in line  # which is Python's


def test_what_is_advised_makes_room(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    limit = session.conversation._model.context_limit
    enter(session, "/set max-tokens 1")
    enter(session, *["word " * (limit // 4)] * 4)  # until the context is full
    assert "/clear" in (full := said(capsys)[1]), full
    enter(session, "/undo", "Why?")
    assert said(capsys)[0]


@pytest.mark.parametrize(("tokens", "full"), [(8, False), (9, True)])
def test_an_answer_that_fills_the_context_says_so(
    session: Session, tokens: int, full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(session, QUESTION)
    said(capsys)
    answer = session.conversation.answer
    assert answer is not None
    session.conversation.answer = replace(answer, finish_reason="length", tokens=(1,) * 8)
    session._sampling = replace(session._sampling, max_tokens=tokens)
    session._say_how_it_ended()
    err = said(capsys)[1]
    assert "(ended by length)" in err
    assert ("/clear" in err) == full


def test_names_are_visible(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    enter(session, "/image 'bad\x1b[31m.png'")
    assert r"bad\x1b[31m.png: 2x2 tiles" in said(capsys)[1]


def test_retry_asks_the_same_again(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    enter(session, "/retry")
    assert "ask one" in said(capsys)[1]
    enter(session, f"./sign.png {QUESTION}")
    before = messages(session)
    enter(session, "/retry", "/retry")
    assert messages(session) == before
    assert said(capsys)[0] == "OPEN\n" * 3


def test_retry_after_a_question_without_an_answer(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    enter(session, f"./sign.png {'word ' * 5000}")
    assert "expected" in said(capsys)[1]
    assert [image.name for image in session.conversation.waiting] == ["sign.png"]
    enter(session, "/retry")
    assert session.conversation.turns == ()
    assert len(session.conversation.waiting) == 1


def test_undo_goes_back_step_by_step(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    enter(session, f"./sign.png {QUESTION}")
    first = messages(session)
    enter(session, "How many?", "/undo")
    assert messages(session) == first
    enter(session, "/image 'My Photo.png'", "/undo")
    assert messages(session) == first
    enter(session, "/undo")
    assert messages(session) == []
    assert [image.name for image in session.conversation.waiting] == ["sign.png"]
    enter(session, "/undo", "/undo")
    assert session.conversation.waiting == []
    assert "none left" in said(capsys)[1]


def test_the_conversation_after_undo_is_one_without_that_question(
    session: Session, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(session, f"./sign.png {QUESTION}", "What colour is it?", "/undo", "How many shapes are there?")
    chat = model.chat()
    chat.generate(QUESTION, images=[SIGN], max_tokens=8)
    expected = chat.generate("How many shapes are there?", max_tokens=8)
    assert session.conversation.answer is not None
    assert session.conversation.answer.tokens == expected.tokens
    assert session.conversation.answer.prompt_tokens == expected.prompt_tokens


def test_system_changes_the_prompt_and_keeps_the_conversation(
    session: Session, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(session, f"./sign.png {QUESTION}", "/system Answer like a poet.")
    assert messages(session)[0] == ("system", "Answer like a poet.", [])
    assert messages(session)[1:] == [("user", QUESTION, ["sign.png"]), ("assistant", "OPEN", [])]
    enter(session, "/clear", f"./sign.png {QUESTION}")
    expected = model.chat(system="Answer like a poet.").generate(QUESTION, images=[SIGN], max_tokens=8)
    assert session.conversation.answer is not None
    assert session.conversation.answer.prompt_tokens == expected.prompt_tokens
    enter(session, '/system ""', "/system")
    assert "system message: none" in said(capsys)[1]
    assert messages(session)[0][0] == "user"


def test_set_takes_effect(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    enter(session, "/set max-tokens 1", f"./sign.png {QUESTION}")
    assert session.conversation.answer is not None
    assert len(session.conversation.answer.tokens) == 1
    assert "(ended by length)" in said(capsys)[1]


def test_what_a_picture_has_lost_is_said_not_to_come_back(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    enter(session, "/set detail low", "/image sign.png")
    assert said(capsys)[1] == "detail low\nsign.png: the overview alone, 37 positions\n"
    enter(session, "/set detail low", "/set temperature 0.5", "/set picture-tokens 20")
    assert "waiting" not in said(capsys)[1]
    enter(session, "/undo", "/image sign.png")
    for change in ("/set detail high", "/set picture-tokens all"):
        said(capsys)
        enter(session, change)
        assert said(capsys)[1].endswith(
            "(what a waiting picture has lost does not come back: /undo, and add it again)\n"
        )
    assert session.conversation.waiting[0].layout.image_tokens == 21


def test_verbose_says_what_each_answer_took(model: Model, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(model, None, GenerationOptions(max_tokens=8), verbose=True)
    for _ in range(2):
        enter(session, f"'{folder}/sign.png' {QUESTION}")
        out, err = said(capsys)
        assert out == "OPEN\n"
        stages = [line.split()[0] for line in err.splitlines()[-8:]]
        assert stages == ["threads", "memory", "cache", "load", "encode", "prefill", "decode", "seed"]
        assert "by llama.cpp" in err


def test_save_writes_a_transcript_whole_or_not_at_all(
    session: Session, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(session, "/save talk.md")
    assert "ask something first" in said(capsys)[1]
    enter(session, "/system Be short.", f"./sign.png {QUESTION}", "/save 'my talk.md'")
    text = (folder / "my talk.md").read_text()
    parts = [
        "# Conversation with",
        "## System",
        "Be short.",
        "## You",
        "*Picture: sign.png*",
        QUESTION,
        "## Model",
        session.conversation.turns[-1].message.text,
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    (folder / "my talk.md").write_text("mine")
    enter(session, "/save 'my talk.md'", "/save none/", "/save .", "/save broken.png/x.md")
    assert (folder / "my talk.md").read_text() == "mine"
    assert "--force" in said(capsys)[1]
    enter(session, "/save --force 'my talk.md'")
    assert (folder / "my talk.md").read_text() == text
    assert not list(folder.rglob(".*"))


def test_questions_that_look_like_commands(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert session.take(Entry("/quit", literal=True))
    assert session.take(Entry("// a pasted line\nof code"))
    assert [text for role, text, _ in messages(session) if role == "user"] == ["/quit", "// a pasted line\nof code"]
    assert not any(session.take(Entry(word)) for word in ("/quit", "/exit", "/bye", "/QUIT"))


def test_undecodable_and_odd_questions_are_asked(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    enter(session, "caf\udce9?", "\x00?", "\x1b[31m?", "x" * 300)
    _, err = said(capsys)
    assert len(messages(session)) == 8, err


def test_warnings_of_an_answer_are_said(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    enter(session, f"./sign.png {QUESTION}")
    said(capsys)
    answer = session.conversation.answer
    assert answer is not None
    session.conversation.answer = replace(answer, warnings=("a\x1b picture of one colour",))
    session._say_how_it_ended()
    assert said(capsys)[1] == "a\\x1b picture of one colour\n"


def test_a_pipe_is_read_line_by_line(
    session: Session, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its bytes need not be UTF-8, which names of files on a disk need not be either."""
    (folder / "caf\udce9.png").write_bytes(SIGN.read_bytes())
    lines = ["\ufeff/image caf\udce9.png", QUESTION + "\r", "", 'a "quoted" \\', '"""', "/quit", '"""', "/bye", "never"]
    raw = io.BytesIO("\n".join(lines).encode("utf-8", "surrogateescape"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw, encoding="utf-8"))
    session.run(Lines(History(None), lambda _: []))
    asked = [text for role, text, _ in messages(session) if role == "user"]
    assert asked == [QUESTION, 'a "quoted" \\', "/quit"]
    assert said(capsys)[0].startswith("OPEN\n")


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_closed_streams_are_said_before_anything_is_loaded(name: str) -> None:
    closed = {"stdin": "<&-", "stdout": ">&-"}[name]
    program = shlex.join([sys.executable, "-m", "llava_edge.cli.main", "chat", "-m", "no-such-bundle"])
    done = subprocess.run(["bash", "-c", f"{program} {closed}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"a closed standard {'input' if name == 'stdin' else 'output'}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_all_sets_picture_tokens_back(session: Session) -> None:
    enter(session, "/set picture-tokens 20")
    assert session._sampling.picture_tokens == 20
    enter(session, "/set picture-tokens all")
    assert session._sampling.picture_tokens is None


def test_what_was_kept_is_said_once_a_picture(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    enter(session, "/set picture-tokens 20", f"./sign.png {QUESTION}")
    assert "positions were kept" in said(capsys)[1]
    enter(session, QUESTION)
    assert "positions were kept" not in said(capsys)[1]
    assert session.conversation.answer is not None
    assert session.conversation.answer.warnings
    enter(session, f"./sign.png {QUESTION}")
    assert "positions were kept" in said(capsys)[1]


class _Silent:
    """Nobody at a terminal."""

    interactive = False


def test_an_interrupt_at_a_picture_ends_a_chat_only_where_it_begins_with_that(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **_given: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise Cancelled

    monkeypatch.setattr(session.conversation, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):  # exit status 130
        session.begin(_Silent(), ["sign.png"])  # type: ignore[arg-type]
    assert said(capsys) == ("", "")
    enter(session, "/image sign.png")
    assert "nothing was added" in said(capsys)[1]
