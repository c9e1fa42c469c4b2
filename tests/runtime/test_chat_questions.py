"""What a question may be: its pictures and their places, its detail, its warnings, and when it is refused."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime import EncodedImage, Model, TemplateMessage, load
from llava_edge.runtime.errors import BusyError, ContextError, ImageError, OptionError
from llava_edge.runtime.pictures.picture import load_picture
from llava_edge.runtime.prompts.prompt import Prompt, build_prompt, keeps_places
from llava_edge.runtime.prompts.segments import ImageSegment
from PIL import Image
from transformers import AutoProcessor

LOOKS_INSIDE = pytest.mark.parametrize("model", [False], ids=["here"], indirect=True)
"""For what replaces or reads parts of an engine in this process."""


def picture(seed: int, size: tuple[int, int] = (130, 70)) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", params=[False, "engine"], ids=["here", "isolated"])
def model(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Model]:
    with load(tiny_bundle, isolate=request.param) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def encoded(model: Model) -> EncodedImage:
    return model.encode_image(picture(1))


WAYS: dict[str, Any] = {
    "str": str,
    "Path": Path,
    "Pillow": lambda path: Image.open(path).convert("RGB"),
    "bytes": Path.read_bytes,
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "array": lambda path: np.asarray(Image.open(path)),
    "opened": load_picture,
    "tuple": lambda path: (path,),
    "generator": lambda path: (one for one in [path]),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("way", WAYS)
def test_one_picture_in_every_form(way: str, model: Model, encoded: EncodedImage, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(picture(1)))
    expected = model.ask("What is this?", [encoded], max_tokens=3)
    assert model.ask("What is this?", WAYS[way](path), max_tokens=3).tokens == expected.tokens


def test_none_is_no_picture(model: Model) -> None:
    assert model.ask("What?", None, max_tokens=1).image_tokens == ()
    with pytest.raises(ImageError, match="got None"):
        model.ask("What?", [None], max_tokens=1)  # type: ignore[list-item]


REFUSED: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "a picture that is not there": ({"images": ["nothing.png"]}, ImageError),
    "no picture": ({"images": 3}, ImageError),
    "no question": ({"question": None}, OptionError),
    "bytes": ({"question": b"What?"}, OptionError),
    "a wrong option": ({"temperature": -1}, OptionError),
    "an unknown option": ({"temprature": 1}, OptionError),
    "a wrong detail": ({"detail": "original"}, OptionError),
    "too long": ({"question": "word " * 1200}, ContextError),
    "too long with a picture": ({"question": ["word " * 1200, picture(1)]}, ContextError),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_question_is_refused_where_it_is_asked(case: str, model: Model) -> None:
    wrong, error = REFUSED[case]
    chat = model.chat()
    with pytest.raises(error):
        chat.stream(**{"question": "What?", **wrong})
    with pytest.raises(error):
        model.ask(**{"question": "What?", **wrong})
    assert chat.turns == ()


def test_an_iterator_that_is_not_read_holds_nothing(model: Model) -> None:
    unread = model.chat().stream("What?", images=picture(1), max_tokens=2)
    model.ask("And?", max_tokens=1)
    unread.close()
    other = model.chat().stream("What?", images=picture(1), max_tokens=2)
    del other
    model.ask("And?", max_tokens=1)


def test_a_second_question_is_refused_where_it_is_asked(model: Model) -> None:
    pieces = model.chat().stream("What?", images=picture(1), max_tokens=8)
    next(pieces)
    with pytest.raises(BusyError):
        model.chat().stream("And?")
    pieces.close()


def test_answers_that_are_read_in_another_order_follow_each_other(model: Model) -> None:
    """The second question was asked before the first was answered, and is answered behind it."""
    chat, plain = model.chat(), model.chat()
    first, second = chat.stream("What?", images=picture(1), max_tokens=4), chat.stream("Why?", max_tokens=4)
    for pieces in (first, second):
        list(pieces)
    plain.generate("What?", images=picture(1), max_tokens=4)
    expected = plain.generate("Why?", max_tokens=4)
    assert chat.answer is not None
    assert chat.answer.tokens == expected.tokens
    assert [turn.message for turn in chat.turns] == [turn.message for turn in plain.turns]


@pytest.mark.parametrize("how", ["clear", "restore"])
def test_clearing_during_an_answer_forgets_it(how: str, model: Model) -> None:
    chat = model.chat(system="Be brief.")
    pieces = chat.stream("What?", images=picture(1), max_tokens=6)
    said = next(pieces)
    chat.clear() if how == "clear" else chat.restore([TemplateMessage("system", "Be brief.")], [])
    said += "".join(pieces)
    assert said
    assert [turn.message.role for turn in chat.turns] == ["system"]
    assert chat.answer is None
    assert model.ask("What?", picture(1), max_tokens=6).tokens  # and the model goes on


@pytest.mark.parametrize(
    ("messages", "images"),
    [
        (["hi"], []),
        ("hi", []),
        (None, []),
        ([{"role": "user", "content": "hi"}], []),
        ([TemplateMessage("user", "hi", 1)], ["a.png"]),
        ([TemplateMessage("user", "hi", 1)], [picture(1)]),
        ([TemplateMessage("user", "hi", 1)], None),
    ],
)
def test_restoring_something_else_is_refused(messages: Any, images: Any, model: Model) -> None:
    chat = model.chat()
    with pytest.raises(OptionError, match="a list of"):
        chat.restore(messages, images)
    assert chat.turns == ()


# --- places


INTERLEAVED = [
    ["Before: ", picture(1), "\nAfter: ", picture(2, (70, 70)), "\nWhat changed?"],
    [picture(1), "is the first, ", picture(2, (70, 70)), picture(3), "are others, <image> is text"],
    ["  text first\n", picture(1)],
    [picture(1), picture(2), "in front"],
    ["a", "b", picture(1), "", "c"],
]
IN_ORDER = (
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|eot_id|>{% endfor %}"
)


def as_reference(parts: list[Any]) -> list[dict[str, str]]:
    return [{"type": "text", "text": one} if isinstance(one, str) else {"type": "image"} for one in parts]


@pytest.mark.parametrize("parts", INTERLEAVED, ids=range(len(INTERLEAVED)))
@pytest.mark.parametrize("template", ["the checkpoint's own", IN_ORDER], ids=["own", "in order"])
def test_places_are_those_of_the_reference(parts: list[Any], template: str, exported: Any) -> None:
    """transformers' processor on the same parts; the checkpoint's own template puts pictures in front, there too."""
    checkpoint, bundle = exported("llama3", "transformers")
    processor = AutoProcessor.from_pretrained(checkpoint)
    given = {} if template != IN_ORDER else {"chat_template": template}
    text = processor.apply_chat_template([{"role": "user", "content": as_reference(parts)}], **given)
    pictures = [one for one in parts if not isinstance(one, str)]
    typed = sum(one.count("<image>") for one in parts if isinstance(one, str))
    text = text.replace("<image> is text", "\0 is text")
    expected = processor(text=text, images=pictures, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    with load(bundle) as ours:
        chat = ours.chat()
        chat.generate(parts, max_tokens=1)
        message = chat.turns[0].message
        images = chat.turns[0].images
        spec = ours.manifest.template
        if template == IN_ORDER:
            spec = dataclasses.replace(spec, chat_template=template, add_bos=False)
        prompt = build_prompt(
            [message], [one.segment for one in images], spec=spec, tokenize=ours.engine.llm.tokenize, answering=False
        )
        assert keeps_places(spec) == (template == IN_ORDER)
    token = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert [one.size for one in pictures] == [one.layout.size for one in images]
    got = prompt.ids(token)
    assert got.count(token) == int((expected == token).sum())
    if not typed:  # typed marks are text here, and pictures there: tested by themselves
        assert got == expected.tolist()


def order(prompt: Prompt) -> list[str]:
    return ["picture" if isinstance(one, ImageSegment) else "text" for one in prompt.segments]


@pytest.mark.parametrize("content", ["list", "string"])
def test_pictures_stand_where_the_parts_have_them(content: str, model: Model) -> None:
    template = IN_ORDER if content == "list" else "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    spec = dataclasses.replace(model.manifest.template, chat_template=template, content=content, add_bos=False)
    segments = [ImageSegment(name, 3) for name in "ab"]
    message = TemplateMessage("user", "Before:After:", 2, (7, 13))
    prompt = build_prompt([message], segments, spec=spec, tokenize=lambda text: list(text.encode()))
    assert order(prompt)[:4] == ["text", "picture", "text", "picture"]
    text, first, between, second = prompt.segments[:4]
    assert bytes(text.tokens[-7:]) == b"Before:"  # type: ignore[union-attr]
    assert bytes(between.tokens).strip() == b"After:"  # type: ignore[union-attr]
    assert (first, second) == tuple(segments)


@LOOKS_INSIDE
def test_marks_in_a_text_stay_text(model: Model, encoded: EncodedImage) -> None:
    typed = model.ask("<image> one <image> two", [encoded, encoded], max_tokens=1)
    plain = model.ask("[image] one [image] two", [encoded, encoded], max_tokens=1)
    assert typed.image_tokens == plain.image_tokens == (encoded.layout.image_tokens,) * 2
    segments = [one for one in model.engine.cache.segments() if isinstance(one, ImageSegment)]
    assert len(segments) == 2


def test_a_template_that_moves_pictures_is_said_to(model: Model, encoded: EncodedImage) -> None:
    moved = model.ask(["Before:", encoded, "?"], max_tokens=1)
    assert moved.warnings == ("The chat template puts all pictures of a message in front of its text.",)
    assert model.ask([encoded, "?"], max_tokens=1).warnings == ()


@pytest.mark.parametrize(
    ("message", "texts"),
    [
        (TemplateMessage("user", "abc", 2, (1, 2)), ("a", "b", "c")),
        (TemplateMessage("user", "abc", 2), ("", "", "abc")),
        (TemplateMessage("user", "abc"), ("abc",)),
        (TemplateMessage("user", "abc", 1, (3,)), ("abc", "")),
    ],
)
def test_a_message_knows_its_parts(message: TemplateMessage, texts: tuple[str, ...]) -> None:
    assert message.texts == texts
    assert message.with_texts(str.upper).texts == tuple(map(str.upper, texts))
    assert message.with_texts(lambda text: text) == message


@pytest.mark.parametrize(
    "wrong",
    [
        ("tool", "hi"),
        ("user", None),
        ("user", b"hi"),
        ("user", "hi", -1),
        ("user", "hi", True),
        ("user", "hi", 1.0),
        ("user", "hi", 1, (3,)),
        ("user", "hi", 1, (1, 2)),
        ("user", "hi", 2, (2, 1)),
        ("user", "hi", 1, (-1,)),
    ],
)
def test_a_message_of_other_values_is_refused(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(OptionError):
        TemplateMessage(*wrong)


# --- detail


def test_detail_low_is_the_overview_alone(model: Model, encoded: EncodedImage) -> None:
    alone = model.manifest.geometry.features_per_tile + 1
    assert model.ask("What?", picture(1), max_tokens=1, detail="low").image_tokens == (alone,)
    assert model.ask("What?", picture(1), max_tokens=1).image_tokens == (encoded.layout.image_tokens,)
    assert model.ask("What?", encoded, max_tokens=1, detail="low").image_tokens == (alone,)
    assert model.chat().generate("What?", images=picture(1), max_tokens=1, detail="low").image_tokens == (alone,)


def test_an_encoded_picture_can_be_lowered(model: Model, encoded: EncodedImage) -> None:
    """Its first rows are the overview's."""
    low, again = model.encode_image(picture(1), detail="low"), model.encode_image(encoded, detail="low")
    assert (low.key, low.layout) == (again.key, again.layout)
    assert np.array_equal(low.embeddings, again.embeddings)
    assert model.encode_image(low, detail="low") is low
    assert model.encode_image(encoded) is encoded
    answers = [model.ask("What is this?", one, max_tokens=8).tokens for one in (low, again)]
    assert answers[0] == answers[1]


def test_detail_auto_lowers_what_does_not_fit(tiny_bundle: Path) -> None:
    with load(tiny_bundle, context=256) as small:
        tall = small.encode_image(picture(1))
        alone = small.manifest.geometry.features_per_tile + 1
        room = 256 - tall.layout.image_tokens
        fitting, crowded = "Hi?", "word " * (room // 5 + 12)
        answer = small.ask(fitting, picture(1), max_tokens=1, detail="auto")
        assert (answer.image_tokens, answer.warnings) == ((tall.layout.image_tokens,), ())
        with pytest.raises(ContextError, match='detail="low"'):
            small.ask(crowded, picture(1), max_tokens=1)
        expected = small.ask(crowded, picture(1), max_tokens=4, detail="low")
        answer = small.ask(crowded, picture(1), max_tokens=4, detail="auto")
        assert answer.image_tokens == expected.image_tokens == (alone,)
        assert answer.tokens == expected.tokens
        (said,) = answer.warnings
        assert said.startswith("The detail of picture was lowered")
        assert expected.warnings == ()
        with pytest.raises(ContextError) as caught:
            small.ask("word " * 300, max_tokens=1, detail="auto")
        assert "detail" not in caught.value.fix
        with pytest.raises(ContextError):
            small.ask("word " * 300, picture(1), max_tokens=1, detail="auto")


def test_the_names_of_many_lowered_pictures_are_not_all_repeated(tiny_bundle: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{'holiday' * 8} {number}.png" for number in range(20)]
    for path in paths:
        picture(1).save(path)
    with load(tiny_bundle) as model:
        high, low = (model.chat().count_tokens("What?", images=paths[:1], detail=one) for one in ("high", "low"))
    assert high > low
    with load(tiny_bundle, context=low * len(paths) + 256) as small:
        *_, said = small.ask("What?", paths, max_tokens=1, detail="auto").warnings
    assert "more was lowered to the overview" in said
    assert str(paths[0]) in said or paths[0].name in said
    assert len(said) < 400


def test_detail_auto_of_one_picture_fits_the_context(tiny_bundle: Path, model: Model, encoded: EncodedImage) -> None:
    assert model.encode_image(picture(1), detail="auto").key == encoded.key
    with load(tiny_bundle, context=64) as small:
        large = picture(1, (190, 190))
        assert small.encode_image(large).layout.image_tokens > 64
        alone = small.manifest.geometry.features_per_tile + 1
        assert small.encode_image(large, detail="auto").layout.image_tokens == alone
    with pytest.raises(OptionError, match="detail among high, low, auto"):
        model.encode_image(picture(1), detail="overview")  # type: ignore[arg-type]


# --- warnings


def test_warnings_are_the_questions_own_in_order(model: Model, tmp_path: Path) -> None:
    flat, cut = tmp_path / "flat.png", tmp_path / "cut.png"
    flat.write_bytes(png(Image.new("RGB", (60, 60), "white")))
    cut.write_bytes(png(picture(1))[:-100])
    chat = model.chat()
    first = chat.generate("What?", images=[flat, picture(2), cut], max_tokens=1)
    assert [sentence.split()[0] for sentence in first.warnings] == [str(flat), str(cut)]
    assert first.as_dict()["warnings"] == first.warnings
    assert chat.generate("And?", max_tokens=1).warnings == ()
    unnamed = model.ask("What?", [picture(2), flat.read_bytes()], max_tokens=1)
    assert unnamed.warnings[0].startswith("picture 2 shows one colour")


def test_an_encoded_picture_keeps_its_warnings_and_name(model: Model, tmp_path: Path) -> None:
    """Equal pixels are encoded once, and each file is still told of by its own name."""
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    for path in (one, other):
        path.write_bytes(png(Image.new("RGB", (60, 60), "white")))
    images = [model.encode_image(path) for path in (one, other)]
    assert [image.name for image in images] == [str(one), str(other)]
    assert images[0].embeddings is images[1].embeddings
    answer = model.ask("What?", images, max_tokens=1)
    assert [sentence.split()[0] for sentence in answer.warnings] == [str(one), str(other)]


def test_warnings_are_never_pythons(model: Model, recwarn: pytest.WarningsRecorder) -> None:
    model.ask("What?", png(Image.new("RGB", (60, 60)))[:-14], max_tokens=1)
    assert not recwarn.list


# --- pictures of other models


@pytest.fixture(scope="module")
def other(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the same width whose newline differs."""
    import shutil

    from llava_edge.runtime.bundle.bundle import Bundle, write_manifest

    folder = tmp_path_factory.mktemp("other") / "bundle"
    shutil.copytree(tiny_bundle, folder)
    name = Bundle.open(folder).manifest.newline
    np.save(folder / name, np.load(folder / name) + 1)
    write_manifest(folder, Bundle.open(tiny_bundle).manifest)
    return folder


def test_a_picture_of_another_bundle_is_refused(other: Path, model: Model, tiny_bundle: Path) -> None:
    with load(other) as foreign:
        image = foreign.encode_image(picture(1))
    assert image.embeddings.shape[1] == model.manifest.vision.dim
    for refuse in (
        lambda: model.ask("What?", image),
        lambda: model.ask(["What?", image]),
        lambda: model.encode_image(image),
        lambda: model.chat().restore([TemplateMessage("user", "hi", 1)], [image]),
    ):
        with pytest.raises(ImageError, match="encoded with another one"):
            refuse()
    with load(tiny_bundle) as same:
        assert model.ask("What?", same.encode_image(picture(1)), max_tokens=1).tokens
