"""User input becomes a list of pictures, and a question its text with places; what is neither is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.errors import ImageError, OptionError
from llava_edge.runtime.pictures.inputs import picture_list, read_question
from llava_edge.runtime.pictures.picture import load_picture
from PIL import Image

GREY = Image.new("RGB", (4, 4), "grey")
ARRAY = np.zeros((4, 5, 3), np.uint8)
FILE = io.BytesIO(b"x")
PICTURE = load_picture(GREY)
ONE: dict[str, Any] = {
    "str": "sign.png",
    "data URL": "data:image/png;base64,AAAA",
    "Path": Path("sign.png"),
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "memoryview": memoryview(b"x"),
    "open file": FILE,
    "Pillow": GREY,
    "array": ARRAY,
    "opened": PICTURE,
}


@pytest.mark.parametrize("kind", ONE)
def test_one_picture_is_a_list_of_one(kind: str) -> None:
    one = ONE[kind]
    (taken,) = picture_list(one)
    assert taken is one
    for several in ([one, one], (one, one), iter([one, one]), (each for each in (one, one))):
        assert [each is one for each in picture_list(several)] == [True, True]


@pytest.mark.parametrize("none", [None, [], (), iter(())])
def test_no_pictures(none: Any) -> None:
    assert picture_list(none) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (7, "got int 7"),
        (True, "got bool True"),
        (object(), "got a object"),
        ([None], "got None"),
        (["a.png", None], "got None"),
        ([["a.png"]], "got a list"),
        ({"url": "a.png"}, "got a dict"),
        ({"a.png"}, "got a set"),
        ([{"type": "image_url"}], "got a dict"),
        (range(3), "got int 0"),
        (Path, "got a type"),
    ],
)
def test_what_is_no_picture_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        picture_list(wrong)
    assert len(str(caught.value)) < 300


def test_a_generators_own_error_is_its_own() -> None:
    def broken() -> Any:
        yield "a.png"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        picture_list(broken())


@pytest.mark.parametrize(
    ("question", "images", "text", "places", "count"),
    [
        ("What?", None, "What?", (), 0),
        ("What?", GREY, "What?", (), 1),
        ("<image> What <image>?", [GREY, GREY], "<image> What <image>?", (), 2),
        (["What?"], None, "What?", (), 0),
        (["a", "b", "c"], None, "abc", (), 0),
        ([GREY, "What?"], None, "What?", (), 1),
        ([GREY, GREY, "What?"], None, "What?", (), 2),
        (["Before:", GREY, "After:", GREY], None, "Before:After:", (7, 13), 2),
        (["a", GREY, GREY, "b"], None, "ab", (1, 1), 2),
        ([GREY, "a", GREY, "b"], None, "ab", (0, 1), 2),
        (("a", Path("b.png"), "c"), GREY, "ac", (0, 1), 2),
        (["a.png", "<image>", GREY], None, "a.png<image>", (12,), 1),
        (["", GREY, ""], None, "", (), 1),
        ([GREY], None, "", (), 1),
        ("", None, "", (), 0),
    ],
)
def test_a_question_is_its_text_and_places(
    question: Any, images: Any, text: str, places: tuple[int, ...], count: int
) -> None:
    taken = read_question(question, images)
    assert (taken.text, taken.places, len(taken.pictures)) == (text, places, count)


@pytest.mark.parametrize("wrong", [None, b"What?", 3, GREY, Path("a.png"), [], (), {"a": 1}, ARRAY, FILE, iter("ab")])
def test_what_is_no_question_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionError, match="a question as text, or as a list of texts and pictures") as caught:
        read_question(wrong)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("part", [None, 3, ["a"], {"type": "text"}])
def test_a_part_that_is_neither_is_refused(part: Any) -> None:
    with pytest.raises(ImageError, match="expected a picture"):
        read_question(["a", part])


def test_pictures_without_a_name_are_told_apart() -> None:
    assert read_question("?", GREY).names == ("picture",)
    assert read_question("?", [GREY, GREY]).names == ("picture 1", "picture 2")
