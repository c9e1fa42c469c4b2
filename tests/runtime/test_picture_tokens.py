"""Fewer positions of a picture, from the option to the answer: counted, said, kept and found again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime import Model, load
from llava_edge.runtime.engine.asking import AskedPicture, Conversation
from llava_edge.runtime.options import GenerationOptions
from llava_edge.runtime.pictures.encoder import PictureEncoder
from llava_edge.runtime.pictures.pack import keep
from llava_edge.runtime.pictures.tiles import lay_out
from llava_edge.runtime.planning.shape_sources import bundle_shape
from llava_edge.runtime.planning.vision_memory import picture_bytes
from llava_edge.runtime.prompts.template import TemplateMessage
from PIL import Image


def picture(seed: int = 1, size: tuple[int, int] = (140, 130)) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with load() as loaded:
        yield loaded


@pytest.mark.parametrize("detail", ["high", "low"])
@pytest.mark.parametrize("wanted", [2, 25, "10%"])
def test_an_answer_is_given_to_so_many(model: Model, detail: str, wanted: int | str) -> None:
    geometry = model.manifest.geometry
    low = detail == "low"
    expected = lay_out((140, 130), geometry, overview_only=low, picture_tokens=wanted)
    answer = model.ask("What?", picture(), max_tokens=2, detail=detail, picture_tokens=wanted)  # type: ignore[arg-type]
    assert answer.image_tokens == (expected.image_tokens,)
    whole = lay_out((140, 130), geometry, overview_only=low).image_tokens
    (said,) = answer.warnings
    assert said == (
        f"Of picture {expected.image_tokens} of {whole} positions were kept (picture tokens): "
        "small text and places are lost first."
    )
    counted = model.count_tokens("What?", picture(), detail=detail, picture_tokens=wanted)  # type: ignore[arg-type]
    assert counted == answer.prompt_tokens
    assert model.ask("What?", picture(), max_tokens=2, detail=detail).warnings == ()  # type: ignore[arg-type]


def test_however_it_comes_it_is_the_same(model: Model) -> None:
    """From a file and from the encoded picture: the rows are those of the whole."""
    whole = model.encode_image(picture())
    geometry = model.manifest.geometry
    layout = lay_out((140, 130), geometry, picture_tokens=31)
    rows = keep(whole.embeddings, whole=whole.layout, layout=layout, geometry=geometry)
    with load() as fresh:  # in which the whole is not known
        ours = [model.encode_image(whole, picture_tokens=31), fresh.encode_image(picture(), picture_tokens="31")]
        assert fresh.engine.pictures.remembered(whole.key) is None
        assert len({one.key for one in (*ours, whole)}) == 2
        for one in ours:
            assert one.layout == layout
            np.testing.assert_array_equal(one.embeddings, rows)
        assert model.encode_image(ours[0], picture_tokens=5) is ours[0]  # what is gone does not come back


def test_read_while_it_is_encoded_it_is_the_same(model: Model) -> None:
    """The overview's rows are handed over with the first tile, the others with the last."""
    pictures, early = model.engine.pictures, []
    opened = pictures.open(picture(3), picture_tokens=60)
    whole = pictures.encode(opened, on_rows=lambda rows, ready: early.append(rows[:ready].copy()))
    assert [len(rows) for rows in early] == [30]
    np.testing.assert_array_equal(early[0], whole.embeddings[:30])


def test_a_lowered_one_keeps_what_is_the_overviews(model: Model) -> None:
    fewer = model.encode_image(picture(), picture_tokens=30)
    lowered = model.encode_image(fewer, detail="low")
    again = model.encode_image(picture(), detail="low", picture_tokens=15)
    assert (lowered.key, lowered.layout) == (again.key, again.layout)
    np.testing.assert_array_equal(lowered.embeddings, again.embeddings)


def test_a_chat_goes_on_with_what_was_kept(model: Model) -> None:
    chat = model.chat()
    first = chat.generate("What is this?", images=picture(), max_tokens=2, picture_tokens=20)
    second = chat.generate("And now?", max_tokens=2)
    assert second.image_tokens == first.image_tokens == (21,)
    assert second.cached_tokens >= first.prompt_tokens
    assert second.warnings == first.warnings  # which hold for this answer too


def test_earlier_pictures_of_a_request_are_said_too(model: Model) -> None:
    """Messages that come all at once, as over HTTP, with pictures in the first question: one sentence for all."""
    messages = (
        TemplateMessage("user", "What?", 2),
        TemplateMessage("assistant", "A sign."),
        TemplateMessage("user", "And?"),
    )
    asked = [AskedPicture(picture(seed), name, "high", 20) for seed, name in ((1, "a.png"), (2, "b.png"))]
    checked = model.engine.check(Conversation(messages, tuple(asked), GenerationOptions()))
    whole = 2 * lay_out((140, 130), model.manifest.geometry).image_tokens
    assert checked.warnings == (
        f"Of a.png, b.png together 42 of {whole} positions were kept (picture tokens): "
        "small text and places are lost first.",
    )


def test_what_fits_with_fewer_is_not_lowered(tiny_bundle: Path) -> None:
    with load(tiny_bundle, context=128) as small:
        large = picture(1, (190, 190))
        answer = small.ask("Hi?", large, max_tokens=1, detail="auto", picture_tokens=60)
        assert answer.image_tokens == (61,)
        assert len(answer.warnings) == 1


def test_it_is_part_of_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pictures nor what was read of them are taken for those of another number; a whole one serves all."""
    folder = {"cache": tmp_path, "cache_min_free_disk": 0, "cache_min_positions": 0}
    with load(**folder) as model:
        whole = model.ask("What?", picture(), max_tokens=2)
        model.encode_image(picture(2), picture_tokens=20)
    monkeypatch.setattr(PictureEncoder, "_encode_tiles", None)  # whoever calls it fails
    with load(**folder) as model:
        fewer = model.ask("What?", picture(), max_tokens=2, picture_tokens=20)
        assert fewer.image_tokens == (21,)
        assert fewer.cached_tokens < whole.prompt_tokens - whole.image_tokens[0]
        assert model.encode_image(picture(2), picture_tokens=20).layout.image_tokens == 21
        with pytest.raises(TypeError):
            model.encode_image(picture(2), picture_tokens=21)
    with load(**folder) as model:
        again = model.ask("What?", picture(), max_tokens=2, picture_tokens=20)
        assert (again.tokens, again.cached_tokens) == (fewer.tokens, fewer.prompt_tokens - 1)


@pytest.mark.slow
def test_so_it_is_in_a_process_of_its_own(model: Model) -> None:
    expected = model.ask("What is this?", picture(), max_tokens=6, picture_tokens="20%")
    with load(isolate="engine") as apart:
        chat = apart.chat()
        answer = chat.generate("What is this?", images=picture(), max_tokens=6, picture_tokens="20%")
        assert (answer.tokens, answer.image_tokens) == (expected.tokens, expected.image_tokens)
        assert answer.warnings == expected.warnings
        kept = apart.encode_image(picture(), picture_tokens="20%")
        np.testing.assert_array_equal(kept.embeddings, model.encode_image(picture(), picture_tokens="20%").embeddings)
        assert chat.generate("And?", max_tokens=2).image_tokens == answer.image_tokens


def test_more_than_all_is_all(model: Model) -> None:
    """However large the number is; it costs the plan nothing either."""
    assert GenerationOptions(picture_tokens=10**30) == GenerationOptions(picture_tokens=str(10**30))
    assert model.count_tokens("Hi?", picture(), picture_tokens=10**30) == model.count_tokens("Hi?", picture())
    shape = bundle_shape(model.engine.bundle)
    sizes = [picture_bytes(replace(shape, kept=kept), 2) for kept in (None, 10**6, "100%", 20)]
    assert sizes[0] == sizes[1] == sizes[2] != sizes[3]
