"""LLaVA's JSON format read by the one reader: what it takes, and what it says about what it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime.errors import DataError
from llava_edge.runtime.prompts.conversations import Conversation, SampleError, SampleFile, find_samples, read_samples
from llava_edge.runtime.prompts.template import TemplateMessage

FILE = Path("data.json")


def talk(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"from": role, "value": value} for role, value in pairs]


def sample(**changes: Any) -> dict[str, Any]:
    turns = talk(("human", "What is this?\n<image>"), ("gpt", " A cat. "))
    return {"id": "s1", "image": "0.png", "conversations": turns, **changes}


def read(raw: Any, *, strict: bool) -> Conversation:
    """``raw`` as the file's record 5."""
    return SampleFile(FILE, [None] * 5 + [raw]).conversation(5, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_a_sample_is_read_as_the_runtime_will_see_it(strict: bool) -> None:
    turns = (TemplateMessage("user", "What is this?", 1), TemplateMessage("assistant", "A cat.", 0))
    expected = Conversation("s1", ("0.png",), turns, "record 5 ('s1') of data.json")
    assert read(sample(), strict=strict) == expected


@pytest.mark.parametrize("strict", [True, False])
def test_several_pictures_turns_and_a_system_message(strict: bool) -> None:
    turns = talk(
        ("system", "Be brief."), ("human", "<image>\n<image>\nBoth?"), ("gpt", "Yes."), ("human", "<image> And?"),
        ("gpt", "No."),
    )  # fmt: skip
    got = read({"image": ["a", "b", "c"], "conversations": turns}, strict=strict)
    assert got.id == "5"
    assert got.images == ("a", "b", "c")
    assert [message.images for message in got.messages] == [0, 2, 0, 1, 0]
    assert [message.role for message in got.messages] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize("absent", [{}, {"image": None}, {"image": []}])
@pytest.mark.parametrize("strict", [True, False])
def test_a_sample_without_pictures(strict: bool, absent: dict[str, Any]) -> None:
    got = read({"conversations": talk(("human", "Hello?"), ("gpt", "Hi.")), **absent}, strict=strict)
    assert got.images == ()
    assert [message.images for message in got.messages] == [0, 0]


BROKEN = [
    ("text", "an object"),
    (sample(conversations=None), "a list of conversations"),
    (sample(conversations=[]), "a list of conversations"),
    (sample(conversations=["hello"]), "turns with 'from' and 'value'"),
    (sample(conversations=talk(("human", 3), ("gpt", "x"))), "turns with 'from' and 'value'"),
    (sample(conversations=talk(("robot", "<image>"), ("gpt", "x"))), "turns from human, gpt, system"),
    (sample(conversations=talk((["human"], "<image>"), ("gpt", "x"))), "turns from human, gpt, system"),
    (sample(conversations=talk(("human", "<image><image>"), ("gpt", "x"))), "1 <image>, one a picture"),
    (sample(image=None), "0 <image>, one a picture"),
    (sample(image=["0.png", "1.png"]), "2 <image>, one a picture"),
    (sample(image=[3]), "picture names"),
    (sample(image=""), "picture names"),
    (sample(image={"path": "0.png"}), "picture names"),
    (sample(conversations=talk(("human", "<image>"))), "gpt last|end with an answer"),
    (sample(conversations=talk(("gpt", "x"), ("human", "<image>"))), "gpt last|end with an answer"),
    (sample(conversations=talk(("system", "x"))), "gpt last|end with an answer"),
    (sample(conversations=talk(("gpt", "x")), image=None), "gpt last|end with an answer"),
]
BROKEN_FOR_TRAINING = [
    (sample(conversations=talk(("human", "no picture"), ("gpt", "x"))), "1 <image>, one a picture"),
    (sample(conversations=talk(("user", "<image>"), ("gpt", "x"))), "turns from human, gpt, system"),
    (sample(conversations=talk(("human", "x"), ("gpt", "<image>"))), "<image> in human turns only"),
    (sample(conversations=talk(("human", "<image>"), ("gpt", "  "))), "an answer in every gpt turn"),
    (sample(conversations=talk(("human", "<image>"), ("human", "x"), ("gpt", "y"))), "human and gpt turns in turn"),
]


@pytest.mark.parametrize(
    ("strict", "raw", "said"),
    [(strict, raw, said) for strict in (True, False) for raw, said in BROKEN]
    + [(True, raw, said) for raw, said in BROKEN_FOR_TRAINING],
)
def test_a_broken_sample_is_named(strict: bool, raw: Any, said: str) -> None:
    with pytest.raises(SampleError, match=said) as caught:
        read(raw, strict=strict)
    where = "record 5 of data.json" if raw == "text" else "record 5 ('s1') of data.json"
    assert caught.value.sample == where
    assert where in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_outside_training_the_mark_may_be_missing_and_roles_have_other_names() -> None:
    turns = talk(
        ("system", "Be brief."), ("user", "Is it?"), ("assistant", "An <image> tag."), ("user", "x"), ("gpt", "")
    )
    got = read(sample(conversations=turns, image=["a", "b"]), strict=False)
    assert got.messages == (
        TemplateMessage("system", "Be brief.", 0),
        TemplateMessage("user", "Is it?", 2),
        TemplateMessage("assistant", "An <image> tag.", 0),
        TemplateMessage("user", "x", 0),
        TemplateMessage("assistant", "", 0),
    )


@pytest.mark.parametrize(
    "raw",
    [
        sample(id="x" * 5000, image=["y" * 5000, 3]),
        sample(id="a\nb\x1b[2J\ud800", conversations=talk(("human\n" * 99, "<image>"), ("gpt", "z"))),
        sample(id={"deep": ["x" * 999] * 9}, conversations=["line\n" * 999]),
    ],
)
def test_an_error_repeats_at_most_200_characters_and_no_control_characters(raw: dict[str, Any]) -> None:
    with pytest.raises(SampleError) as caught:
        read(raw, strict=False)
    line = str(caught.value)
    own = len("expected turns from human, gpt, system, user, assistant in record 5 () of data.json; got ; ")
    assert len(line) <= 200 + own + len("correct or drop the sample")
    assert line.isprintable()


ONE, TWO = sample(id="1"), sample(id="2", image=None, conversations=talk(("human", "line\u2028break"), ("gpt", "b")))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([ONE, TWO]),
        json.dumps([ONE, TWO], indent=1),
        "\n".join(json.dumps(one, ensure_ascii=False) for one in (ONE, TWO)),
        "\r\n".join(json.dumps(one) for one in (ONE, TWO)) + "\r\n\r\n",
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_list_or_an_object_a_line_with_or_without_a_byte_order_mark(text: str, mark: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes((mark + text).encode())
    assert read_samples(tmp_path / "data") == SampleFile(tmp_path / "data", [ONE, TWO])


def test_a_file_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps(ONE))
    assert read_samples(tmp_path / "data.jsonl").records == [ONE]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1,", "JSON in /"),
        (b"", "JSON in /"),
        (b"[" * 100_000, "JSON in /"),
        (b'{"a": 1}\n{"b": ', "JSON in line 2 of /"),
        (b'{"a": 1}\n' + b"[" * 100_000, "JSON in line 2 of /"),
        (b"\xff\xfe[]", "UTF-8 text in /"),
        (b"{}", "a JSON list of samples, or one a line, in .* got dict"),
        (b"[]", "a JSON list of samples, or one a line, in .* got an empty list"),
    ],
)
def test_a_broken_file_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "samples.json").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_samples(tmp_path / "samples.json")
    assert len(str(caught.value).splitlines()) == 1
    assert "samples.json" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for place in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError, match="samples at"):
            read_samples(place)


def test_which_file_of_a_folder_is_meant_must_be_clear(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got none"):
        find_samples(tmp_path)
    with pytest.raises(DataError, match="got nothing there"):
        find_samples(tmp_path / "gone")
    (tmp_path / "b.jsonl").touch()
    (tmp_path / "picture.png").touch()
    assert find_samples(tmp_path) == tmp_path / "b.jsonl"
    (tmp_path / "a.json").touch()
    with pytest.raises(DataError, match=r"got a\.json, b\.jsonl"):
        find_samples(tmp_path)
    assert find_samples(tmp_path / "a.json") == tmp_path / "a.json"
    (tmp_path / "questions.json").touch()
    assert find_samples(tmp_path) == tmp_path / "questions.json"
