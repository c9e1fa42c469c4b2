"""Calibration data: LLaVA's JSON format read as it is written in the wild, and the bundled set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llava_edge.quantize.importance.calibration import (
    demo_calibration,
    fingerprint,
    read_conversations,
    without_pictures,
)
from llava_edge.runtime.errors import DataError
from llava_edge.runtime.pictures.picture import load_picture
from llava_edge.runtime.prompts.template import TemplateMessage

ANSWER = {"from": "gpt", "value": "Yes."}


def write(folder: Path, *records: Any) -> Path:
    (folder / "data.json").write_text(json.dumps(list(records)))
    return folder


def record(*turns: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"id": "1", "conversations": list(turns), **more}


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


@pytest.mark.parametrize("text", ["<image>\nIs it red?", "Is it red?\n<image>", "Is it red?"])
def test_the_mark_may_stand_before_behind_or_nowhere(text: str, tmp_path: Path) -> None:
    (one,) = read_conversations(write(tmp_path, record(human(text), ANSWER, image="a/b.png")), limit=0)
    assert one.messages == (TemplateMessage("user", "Is it red?", 1), TemplateMessage("assistant", "Yes.", 0))
    assert one.images == (str(tmp_path / "a" / "b.png"),)
    assert without_pictures(one).messages[0] == TemplateMessage("user", "Is it red?", 0)


def test_a_later_turn_may_show_a_second_picture(tmp_path: Path) -> None:
    turns = (human("<image>\nFirst?"), ANSWER, human("<image>\nSecond?"), ANSWER)
    (one,) = read_conversations(write(tmp_path, record(*turns, image=["a.png", "b.png"])), limit=0)
    assert [message.images for message in one.messages] == [1, 0, 1, 0]


@pytest.mark.parametrize(("limit", "expected"), [(0, 10), (3, 3), (7, 7), (10, 10), (99, 10)])
def test_a_limit_spreads_over_the_whole_set(limit: int, expected: int, tmp_path: Path) -> None:
    data = write(tmp_path, *(record(human(str(index)), ANSWER) for index in range(10)))
    texts = [int(one.messages[0].text) for one in read_conversations(data, limit=limit)]
    assert len(texts) == len(set(texts)) == expected
    assert texts == sorted(texts)
    assert texts[0] == 0
    assert texts[-1] >= 10 - -(-10 // expected)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "an empty list"),
        ([record(human("<image><image> Two?"), ANSWER, image="a.png")], "1 <image>, one a picture in record 0"),
        ([record(human("<image> One?"), ANSWER)], "0 <image>, one a picture .*; got 1"),
        ([record(human("No answer"))], "end with an answer"),
        ([record({"from": "robot", "value": "?"}, ANSWER)], "got 'robot'"),
        ([{"id": "1"}], "a list of conversations"),
        ([7], "an object in record 0 .*; got 7"),
    ],
)
def test_what_is_no_conversation_is_one_line(records: list[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_conversations(write(tmp_path, *records), limit=0)
    assert "\n" not in str(caught.value)


def test_which_file_is_meant_must_be_clear(tmp_path: Path) -> None:
    write(tmp_path, record(human("a"), ANSWER))
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match=r"got data\.json, other\.json"):
        read_conversations(tmp_path, limit=0)
    assert len(read_conversations(tmp_path / "data.json", limit=0)) == 1


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    conversations = read_conversations(write(tmp_path, record(human("a"), ANSWER, image="gone.png")), limit=0)
    with pytest.raises(DataError, match=r"the picture .*gone\.png"):
        fingerprint(conversations)


def test_the_bundled_set_has_no_held_out_picture() -> None:
    from llava_edge.benchmark.data.heldout import heldout

    ours = [load_picture(path).digest for one in read_conversations(demo_calibration(), limit=0) for path in one.images]
    held_out = {load_picture(path).digest for path in heldout().glob("*.png")}
    assert len(ours) == len(set(ours)) == 64
    assert len(held_out) == 240
    assert not held_out & set(ours)
