"""What applications hand in, and what they are handed: checked at once, and nothing of ours can be altered."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime import Bundle, EncodedImage, LoadOptions, Model, demo_bundle, load
from llava_edge.runtime.errors import ImageError, LlavaEdgeError, OptionError
from PIL import Image

NO_FUNCTIONS = [5, "x", [print], True]


def picture(seed: int = 1, size: tuple[int, int] = (130, 70)) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", params=[False, "llm", "engine"], ids=["here", "llm isolated", "isolated"])
def model(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Model]:
    with load(tiny_bundle, isolate=request.param, context=512) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def encoded(tiny_bundle: Path) -> EncodedImage:
    with load(tiny_bundle) as loaded:
        return loaded.encode_image(picture())


# --- pictures that were encoded ---


def test_rows_cannot_be_altered(model: Model) -> None:
    image = model.encode_image(picture(2))
    expected = model.ask("What is this?", [picture(2)], max_tokens=4).tokens
    chat = model.chat()
    chat.generate("What is this?", images=[picture(2)], max_tokens=1)
    for one in (image, chat.turns[0].images[0]):
        with pytest.raises(ValueError, match="read-only"):
            one.embeddings[:] = 0
    model.ask("Something else", max_tokens=1)
    assert model.ask("What is this?", [image], max_tokens=4).tokens == expected
    assert model.ask("What is this?", [picture(2)], max_tokens=4).tokens == expected


@pytest.mark.parametrize(
    "made_again",
    [lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy, dataclasses.replace],
    ids=["pickled", "copied", "deeply", "replaced"],
)
def test_made_again_it_is_as_good(made_again: Callable[[Any], Any], encoded: EncodedImage) -> None:
    again = made_again(encoded)
    assert not again.embeddings.flags.writeable
    assert np.array_equal(again.embeddings, encoded.embeddings)
    assert again == encoded


def test_an_array_of_the_application_is_copied(encoded: EncodedImage) -> None:
    own = np.asfortranarray(encoded.embeddings)
    image = dataclasses.replace(encoded, embeddings=own)
    own[:] = 0
    assert np.array_equal(image.embeddings, encoded.embeddings)
    assert image.embeddings.flags.c_contiguous


MALFORMED: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "few rows": (lambda rows: rows[:5], "of shape"),
    "no rows": (lambda rows: rows[:0], "of shape"),
    "a row too many": (lambda rows: np.concatenate([rows, rows[:1]]), "of shape"),
    "flat": (lambda rows: rows.reshape(-1), "of shape"),
    "a batch": (lambda rows: rows[None], "of shape"),
    "narrow": (lambda rows: rows[:, :8], "width 8"),
    "double": (lambda rows: rows.astype(np.float64), "got float64"),
    "half": (lambda rows: rows.astype(np.float16), "got float16"),
    "NaN": (lambda rows: rows * np.nan, "NaN or infinity"),
    "one infinite": (lambda rows: np.where(np.arange(rows.size).reshape(rows.shape) == 7, np.inf, rows), "NaN or inf"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_rows_are_refused(kind: str, model: Model, encoded: EncodedImage) -> None:
    change, said = MALFORMED[kind]
    image = dataclasses.replace(encoded, embeddings=change(encoded.embeddings))
    calls: list[Callable[[], Any]] = [
        lambda: model.ask("What?", [image], max_tokens=1),
        lambda: model.chat().stream("What?", images=[image]),
        lambda: model.count_tokens("What?", [image]),
        lambda: model.encode_image(image),
    ]
    for call in calls:
        with pytest.raises(OptionError, match=said):
            call()


@pytest.mark.parametrize("wrong", [{"embeddings": [[0.0]]}, {"embeddings": None}, {"key": 3}, {"layout": (1, 2)}])
def test_values_of_other_types_are_no_picture(wrong: dict[str, Any], encoded: EncodedImage) -> None:
    with pytest.raises(OptionError, match=f"an encoded picture with {next(iter(wrong))} as"):
        dataclasses.replace(encoded, **wrong)


def test_rows_are_looked_at_once(model: Model, encoded: EncodedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    image, looks = dataclasses.replace(encoded, name="looked at"), []
    finite = np.isfinite
    monkeypatch.setattr(np, "isfinite", lambda rows: looks.append(1) or finite(rows))
    for _ in range(3):
        model.ask("What?", [image], max_tokens=1)
    assert len(looks) == 1


# --- counting ---


@pytest.mark.parametrize("detail", ["high", "low", "auto"])
@pytest.mark.parametrize("size", [(130, 70), (70, 300)])
@pytest.mark.parametrize("filler", [0, 200, 400])
def test_what_is_counted_is_what_is_asked(model: Model, detail: Any, size: tuple[int, int], filler: int) -> None:
    question, images = "What? " + "x " * filler, [picture(3, size), picture(4, size)]
    counted = model.count_tokens(question, images, detail=detail)
    chat = model.chat()
    assert chat.count_tokens(question, images=images, detail=detail) == counted
    if counted < model.context_limit:
        assert model.ask(question, images, detail=detail, max_tokens=1).prompt_tokens == counted
    else:
        with pytest.raises(LlavaEdgeError, match=f"got {counted} "):
            model.ask(question, images, detail=detail, max_tokens=1)


# --- values ---


@pytest.mark.parametrize("no_function", NO_FUNCTIONS, ids=repr)
def test_callbacks_are_functions(no_function: Any, model: Model, tiny_bundle: Path) -> None:
    chat = model.chat()
    calls: list[tuple[Callable[..., Any], tuple[str, ...]]] = [
        (lambda **given: load(tiny_bundle, **given), ("on_load", "cancelled")),
        (lambda **given: model.encode_image(picture(), **given), ("on_progress", "cancelled")),
        (lambda **given: chat.stream("What?", **given), ("on_encode", "on_prefill", "cancelled")),
        (lambda **given: chat.generate("What?", **given), ("on_encode", "on_prefill", "cancelled")),
        (lambda **given: chat.astream("What?", **given), ("on_encode", "on_prefill", "cancelled")),
    ]
    for call, names in calls:
        for name in names:
            with pytest.raises(OptionError, match=f"expected {name} as a function"):
                call(**{name: no_function})
    assert chat.turns == ()


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"typo": 1}, {"wait": "x"}])
def test_an_asynchronous_answer_is_checked_before_it_is_awaited(wrong: dict[str, Any], model: Model) -> None:
    with pytest.raises(OptionError):
        model.chat().astream("What?", **wrong)


@pytest.mark.parametrize("wait", [10**400, float("inf"), sys.float_info.max, np.int64(3), np.float32(0.5), True])
def test_any_number_of_seconds_is_a_wait(wait: Any, model: Model) -> None:
    assert model.ask("What?", wait=wait, max_tokens=1).finish_reason


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickled", "copied", "deeply"])
def test_models_and_chats_are_not_copied(copied: Callable[[Any], Any], model: Model) -> None:
    with pytest.raises(OptionError, match=r"got a model to be pickled or copied; call load there"):
        copied(model)
    with pytest.raises(OptionError, match=r"got a chat to be pickled or copied; keep Chat\.turns"):
        copied(model.chat())


@pytest.mark.parametrize("batch", [1, 256, 511, 512, 2048])
def test_what_is_computed_at_once_follows_the_batch(batch: int) -> None:
    assert LoadOptions(batch=batch).computed_at_once == min(batch, 512)
    assert LoadOptions(batch=batch, micro_batch=1).computed_at_once == 1
    with pytest.raises(OptionError, match=f"micro_batch from 1 to {batch}; got {batch + 1}"):
        LoadOptions(batch=batch, micro_batch=batch + 1)


def test_a_small_batch_answers_alike(tiny_bundle: Path) -> None:
    with load(tiny_bundle) as whole, load(tiny_bundle, batch=32) as small:
        answers = [one.ask("What is this?", [picture()], max_tokens=4).tokens for one in (whole, small)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("isolate", [False, "engine"])
def test_more_threads_than_processors_are_said(isolate: Any, tiny_bundle: Path) -> None:
    processors = os.cpu_count() or 1
    for threads, said in ((0, False), (processors, False), (processors + 1, True)):
        with load(tiny_bundle, threads=threads, isolate=isolate) as loaded:
            sentence = f"{threads} threads are more than this machine's {processors} processors, and so slower than"
            answer = loaded.ask("What?", max_tokens=1)
            assert [one.startswith(sentence) for one in answer.warnings] == [True] * said
            assert (sentence in loaded.placement) == said


# --- paths ---

PATHS = {
    "long": "x" * 300,
    "very long": "y/" * 5000,
    "NUL": "a\0b",
    "through a file": str(Path(__file__) / "below"),
    "a file": __file__,
    "address": "https://example.com/bundle",
    "file address": "file:///bundles/mine",
    "invisible": "a\u202eb\n",
}


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("as_path", [str, Path])
@pytest.mark.parametrize("opened", [load, Bundle.open])
def test_what_is_no_bundle_is_one_line(kind: str, as_path: Callable[[str], Any], opened: Callable[[Any], Any]) -> None:
    with pytest.raises(LlavaEdgeError) as caught:
        opened(as_path(PATHS[kind]))
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 600
    assert said.startswith("expected a bundle folder")


@pytest.mark.parametrize("as_path", [str, Path])
def test_an_address_is_repeated_as_it_is(as_path: Callable[[str], Any]) -> None:
    with pytest.raises(LlavaEdgeError, match=r"an address \(https://example\.com/bundle\)"):
        load(as_path("https://example.com/bundle"))


@pytest.mark.parametrize("value", [5, b"bundle", "", None, [], Path], ids=repr)
def test_only_a_path_is_opened(value: Any) -> None:
    with pytest.raises(OptionError, match="a bundle folder's path"):
        Bundle.open(value)


def test_a_file_that_cannot_be_read(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", "newline.npy")

    monkeypatch.setattr("llava_edge.runtime.bundle.bundle.file_sha256", refused)
    with pytest.raises(LlavaEdgeError, match="got Permission denied; check the path, and the permissions"):
        Bundle.open(tiny_bundle)


def test_home_is_home(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    picture().save(tmp_path / "a.png")
    assert Bundle.open("~/bundle").path == tmp_path / "bundle"
    with load(Path("~/bundle")) as model:
        for name in ("~/a.png", Path("~/a.png")):
            assert model.ask("What?", name, max_tokens=2).image_tokens  # type: ignore[arg-type]
        with pytest.raises(ImageError, match=r"a picture at ~/b\.png; got no such file"):
            model.ask("What?", "~/b.png")
    monkeypatch.chdir(tmp_path)
    Path("~").mkdir()  # what is really called so is meant
    picture(size=(20, 10)).save("~/a.png")
    (tmp_path / "~" / "bundle").symlink_to(demo_bundle())
    assert Bundle.open("~/bundle").manifest == Bundle.open(demo_bundle()).manifest


def test_a_picture_name_that_is_too_long_has_no_command_line() -> None:
    with load() as model, pytest.raises(ImageError, match=r"too long for a file; check the path$"):
        model.ask("What?", "x" * 300 + ".png")
