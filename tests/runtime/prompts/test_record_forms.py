"""Records as other tools write them: read where their meaning is clear, as the original code would, else named."""

from __future__ import annotations

import copy
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime.errors import DataError, LlavaEdgeError
from llava_edge.runtime.prompts.conversations import Conversation, SampleError, SampleFile, read_samples

FILE = Path("data.json")


def talk(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"from": role, "value": value} for role, value in pairs]


def spoken(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


def read(raw: Any, *, strict: bool = True) -> Conversation:
    return SampleFile(FILE, [raw]).conversation(0, strict=strict)


# What preprocess_multimodal and preprocess_qwen of LLaVA-NeXT (llava/train/train.py at df179663) made of each record,
# recorded by running both with a tokenizer that only notes the turns it is handed.
ORIGINAL: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    (
        {"image": "a.png", "conversations": talk(("human", "<image>\nWhat?"), ("gpt", "A cat."))},
        [("user", "<image>\nWhat?"), ("assistant", "A cat.")],
    ),
    (
        {"image": "a.png", "conversations": talk(("human", "What?\n<image>"), ("gpt", "A cat."))},
        [("user", "<image>\nWhat?"), ("assistant", "A cat.")],
    ),
    (
        {"image": "a.png", "conversations": talk(("human", "What <image> is it?"), ("gpt", "A cat."))},
        [("user", "<image>\nWhat  is it?"), ("assistant", "A cat.")],
    ),
    (
        {"image": "a.png", "conversations": talk(("human", "<image>"), ("gpt", "A cat."))},
        [("user", "<image>"), ("assistant", "A cat.")],
    ),
    (
        {
            "image": "a.png",
            "conversations": talk(("human", "Hello"), ("gpt", "Hi."), ("human", "This? <image> "), ("gpt", "A cat.")),
        },
        [("user", "Hello"), ("assistant", "Hi."), ("user", "<image>\nThis?"), ("assistant", "A cat.")],
    ),
    (
        {"conversations": talk(("human", "Hello"), ("gpt", "Hi."))},
        [("user", "Hello"), ("assistant", "Hi.")],
    ),
    (
        {"image": "a.png", "conversations": talk(("gpt", "Ask."), ("human", "<image>\nWhat?"), ("gpt", "A cat."))},
        [("user", "<image>\nWhat?"), ("assistant", "A cat.")],
    ),
    (
        {"image": ["a.png"], "conversations": talk(("human", "What? <image>"), ("gpt", "A cat."))},
        [("user", "<image>\nWhat?"), ("assistant", "A cat.")],
    ),
    (
        {"image": ["a.png", "b.png"], "conversations": talk(("human", "<image><image>\nBoth?"), ("gpt", "Yes."))},
        [("user", "<image><image>\nBoth?"), ("assistant", "Yes.")],
    ),
    (
        {
            "image": "a.png",
            "conversations": [
                {**old, **new}
                for old, new in zip(
                    talk(("human", "<image>\nWhat?"), ("gpt", "A cat.")),
                    spoken(("user", "<image>\nWhat?"), ("assistant", "A cat.")),
                    strict=True,
                )
            ],
        },
        [("user", "<image>\nWhat?"), ("assistant", "A cat.")],
    ),
]


@pytest.mark.parametrize(("record", "expected"), ORIGINAL)
def test_turns_are_the_original_codes(record: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    got = [
        (one.role, "<image>" * one.images + ("\n" if one.images and one.text else "") + one.text)
        for one in read(record).messages
    ]
    assert got == expected


QUESTION = ({"type": "image"}, {"type": "text", "text": "What?"})
PLAIN = read({"image": "a.png", "conversations": talk(("human", "<image>What?"), ("gpt", "A cat."))})
SAME: dict[str, dict[str, Any]] = {
    "role and content": {"image": "a.png", "conversations": spoken(("user", "<image>What?"), ("assistant", "A cat."))},
    "messages": {"image": "a.png", "messages": spoken(("user", "<image>What?"), ("assistant", "A cat."))},
    "messages of from and value": {"image": "a.png", "messages": talk(("human", "<image>What?"), ("gpt", "A cat."))},
    "images": {"images": ["a.png"], "messages": spoken(("user", "What?<image>"), ("assistant", "A cat."))},
    "one of images": {"images": "a.png", "messages": spoken(("user", "What?<image>"), ("assistant", "A cat."))},
    "both keys alike": {
        "image": "a.png", "images": "a.png", "messages": spoken(("user", "<image>What?"), ("assistant", "A cat."))
    },
    "parts": {"image": "a.png", "messages": spoken(("user", list(QUESTION)), ("assistant", "A cat."))},
    "parts, text first": {
        "image": "a.png", "messages": spoken(("user", list(QUESTION[::-1])), ("assistant", "A cat."))
    },
    "text parts with a mark": {
        "image": "a.png",
        "messages": spoken(
            ("user", [{"type": "text", "text": "<image>What?"}]), ("assistant", [{"type": "text", "text": "A cat."}])
        ),
    },
    "a named part": {
        "messages": spoken(("user", [{"type": "image", "image": "a.png"}, "What?"]), ("assistant", "A cat."))
    },
    "image_url": {
        "messages": spoken(
            ("user", [{"type": "image_url", "image_url": {"url": "a.png"}}, QUESTION[1]]), ("assistant", "A cat.")
        )
    },
    "input_image": {
        "messages": spoken(
            ("user", [{"type": "input_image", "image_url": "a.png"}, {"type": "input_text", "text": "What?"}]),
            ("assistant", "A cat."),
        )
    },
    "parts without types": {
        "messages": spoken(("user", [{"image": "a.png"}, {"text": "What?"}]), ("assistant", "A cat."))
    },
    "named twice alike": {
        "images": ["a.png"],
        "messages": spoken(("user", [{"image": "a.png"}, {"text": "What?"}]), ("assistant", "A cat.")),
    },
    "gpt first": {
        "image": "a.png", "messages": spoken(("assistant", "Hi!"), ("user", "<image>What?"), ("assistant", "A cat."))
    },
}  # fmt: skip


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", SAME)
def test_other_tools_forms_say_the_same(name: str, strict: bool) -> None:
    got = read(SAME[name], strict=strict)
    assert (got.images, got.messages) == (PLAIN.images, PLAIN.messages)


def test_a_system_turn_stays_in_front_of_the_first_question() -> None:
    turns = talk(("system", "Be brief."), ("gpt", "Hi!"), ("human", "What?"), ("gpt", "That."))
    assert [one.text for one in read({"conversations": turns}).messages] == ["Be brief.", "What?", "That."]


def with_parts(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"messages": spoken(("user", list(parts)), ("assistant", "A cat.")), **more}


UNCLEAR = [
    (with_parts(*QUESTION), "0 <image>, one a picture"),
    (with_parts(*QUESTION, image=["a.png", "b.png"]), "2 <image>, one a picture"),
    (with_parts({"type": "image"}, {"text": "<image>What?"}, image=["a", "b"]), "as parts or as <image>"),
    (with_parts({"image": "a.png"}, {"type": "image"}, image=["a.png", "b.png"]), "all pictures named in the parts"),
    (with_parts({"image": "a.png"}, image="b.png"), "all pictures named in the parts"),
    (with_parts({"type": "audio", "audio": "a.wav"}), "parts of type text, image or image_url"),
    (with_parts({"type": "image", "image": 3}), "parts of type text, image or image_url"),
    (with_parts({"type": ["text"], "text": "a"}), "parts of type text, image or image_url"),
    (with_parts(3), "parts of type text, image or image_url"),
    ({"messages": spoken(("user", "Hi"), ("assistant", [{"image": "a.png"}]))}, "pictures in human turns only"),
    ({"messages": spoken(("tool", "Hi"), ("assistant", "Ho"))}, "turns from human, gpt, system, user, assistant"),
    ({"messages": spoken((["user"], "Hi"), ("assistant", "Ho"))}, "turns from human, gpt, system, user, assistant"),
    ({"messages": spoken(("user", None), ("assistant", "Ho"))}, "turns with 'from' and 'value', or 'role'"),
    ({"conversations": talk(("human", ["Hi"]), ("gpt", "Ho"))}, "turns with 'from' and 'value', or 'role'"),
    ({"messages": spoken(("user", "Hi")), "conversations": talk(("human", "Ho"))}, "'conversations' or 'messages'"),
    ({"image": "a", "images": ["b"], "messages": spoken(("user", "Hi"), ("assistant", "Ho"))}, "'image' or 'images'"),
    ({"video": "a.mp4", "conversations": talk(("human", "<image>"), ("gpt", "Ho"))}, "pictures and text .*'a.mp4'"),
    ({"conversations": talk(("human", "half a pair \ud83d"), ("gpt", "Ho"))}, "Unicode text"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "said"), UNCLEAR)
def test_what_is_not_clear_is_named(record: dict[str, Any], said: str) -> None:
    with pytest.raises(SampleError, match=said) as caught:
        read(record)
    assert "record 0 of data.json" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        '[{"conversations": [], },]',
        '[{"conversations": [ ] ,\n}\n,\n]',
        '{"conversations": [],}\n{"conversations": [],}',
    ],
)
def test_commas_that_nothing_follows(text: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(text)
    assert {json.dumps(one) for one in read_samples(tmp_path / "data.json").records} == {'{"conversations": []}'}


def test_commas_inside_strings_stay(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('[{"id": "a,]\\",}", "conversations": []},]')
    assert read_samples(tmp_path / "data.json").records[0]["id"] == 'a,]",}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PAR1\x15\x04\xff\xff", "a Parquet file; write its rows as JSON"),
        (gzip.compress(b"[]", mtime=0), "a gzip file; unpack it"),
        ("[]".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer; fetch the file"),
        (b"\n<!DOCTYPE html><html>", "a web page; fetch the file"),
        (b"datasets:\n  - json_path: a.json\n", "YAML; name each of its files"),
        (b"id,image\n1,a.png\n", "JSON in .*; get the file again"),
    ],
)
def test_a_file_that_holds_no_samples_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_samples(tmp_path / "data.json")


def test_one_record_of_messages_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps(SAME["messages"]))
    assert len(read_samples(tmp_path / "data.jsonl")) == 1


JUNK = (
    None,
    True,
    -1,
    1e308,
    float("nan"),
    "",
    "\0",
    "\ud800",
    "<image>" * 9,
    [],
    {},
    [[]],
    [None],
    {"": None},
    ["x"] * 99,
)


def mutated(value: Any, chance: random.Random) -> Any:
    """``value`` with one place somewhere in it replaced, dropped, doubled or renamed."""
    if chance.random() < 0.25 or not isinstance(value, list | dict) or not value:
        return copy.deepcopy(chance.choice(JUNK))
    if isinstance(value, list):
        at = chance.randrange(len(value))
        kept = list(value)
        kept[at : at + 1] = chance.choice([[mutated(value[at], chance)], [], [value[at]] * 2])
        return kept
    key = chance.choice(sorted(value))
    renamed = {"from": "role", "value": "content", "image": "images", "conversations": "messages"}.get(key, key)
    return {**{one: other for one, other in value.items() if one != key}, renamed: mutated(value[key], chance)}


@pytest.mark.parametrize("strict", [True, False])
def test_whatever_a_record_holds_it_is_read_or_named(strict: bool) -> None:
    chance = random.Random(10)
    records = [*SAME.values(), *(record for record, _ in ORIGINAL)]
    read_well = 0
    for _ in range(3000):
        record = chance.choice(records)
        for _ in range(chance.randint(1, 3)):
            record = mutated(record, chance)
        said = ""
        try:
            read(record, strict=strict)
            read_well += 1
        except LlavaEdgeError as error:
            said = str(error)
        assert len(said) < 400
        assert said.isprintable()
    assert read_well > 30


def test_a_value_too_deep_to_show(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(SampleError, match="a list of many levels"):
        read(deep)
