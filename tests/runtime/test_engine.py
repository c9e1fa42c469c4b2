"""Answers: reuse of what was prefilled, ends told apart, cancelling, context, sampling, refusals."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime import GenerationOptions, LoadOptions, Model, load
from llava_edge.runtime.errors import (
    BundleError,
    BusyError,
    Cancelled,
    ContextError,
    ImageError,
    NativeError,
    OptionError,
)
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import PENALTY_WINDOW
from llava_edge.runtime.pictures.picture import load_picture
from llava_edge.runtime.prompts.segments import ImageSegment, TextSegment
from llava_edge.runtime.prompts.template import TemplateMessage
from PIL import Image

LOOKS_INSIDE = pytest.mark.parametrize("model", [False], ids=["here"], indirect=True)
"""For what replaces or reads parts of an engine in this process."""
LOOKS_INSIDE_FRESH = pytest.mark.parametrize("fresh", [False], ids=["here"], indirect=True)


def picture(seed: int, size: tuple[int, int] = (130, 70)) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", params=[False, "engine"], ids=["here", "isolated"])
def model(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Model]:
    with load(tiny_bundle, isolate=request.param) as loaded:
        yield loaded


@pytest.fixture(params=[False, "engine"], ids=["here", "isolated"])
def fresh(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Model]:
    with load(tiny_bundle, isolate=request.param) as loaded:
        yield loaded


@pytest.fixture
def asked_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never within one, where ``cancelled`` is asked as often as the machine is slow."""
    monkeypatch.setattr("llava_edge.runtime.system.native_thread.POLL_SECONDS", 60.0)


def test_second_question_encodes_nothing_and_prefills_only_new_text(fresh: Model) -> None:
    chat = fresh.chat()
    first = chat.generate("What is this?", images=[picture(1)], max_tokens=8)
    tiles: list[tuple[int, int]] = []
    second = chat.generate("And its colour?", on_encode=lambda *done: tiles.append(done), max_tokens=8)
    assert first.cached_tokens == 0
    assert not tiles
    (image_tokens,) = second.image_tokens
    # all but the answer, which may tokenize otherwise once it is text behind "assistant\n\n"
    assert second.cached_tokens >= first.prompt_tokens - 2
    assert second.cached_tokens > image_tokens
    assert second.prompt_tokens - second.cached_tokens < 60


def test_same_picture_under_another_name_is_the_same_picture(fresh: Model, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    picture(1).save(tmp_path / "b.bmp")
    first = fresh.ask("What is this?", [tmp_path / "a.png"], max_tokens=4)
    tiles: list[int] = []
    again = fresh.chat().generate(
        "What is that?", images=[tmp_path / "b.bmp"], on_encode=lambda done, _: tiles.append(done), max_tokens=4
    )
    assert not tiles
    assert again.cached_tokens > first.image_tokens[0]


def test_another_picture_of_the_same_size_is_not_reused(fresh: Model) -> None:
    first = fresh.ask("What is this?", [picture(1)], max_tokens=4)
    second = fresh.ask("What is this?", [picture(2)], max_tokens=4)
    assert second.prompt_tokens == first.prompt_tokens
    assert second.cached_tokens < 20  # the template's opening alone


def test_answers_are_equal_with_and_without_reuse(fresh: Model, tiny_bundle: Path) -> None:
    questions = ["What is this?", "And its colour?", "Where is it?", "Why?"]
    chat = fresh.chat()
    reused = [
        chat.generate(one, images=[picture(5)] if not index else [], max_tokens=12)
        for index, one in enumerate(questions)
    ]
    for index, question in enumerate(questions):
        with load(tiny_bundle) as cold:
            other = cold.chat()
            messages = [turn.message for turn in chat.turns[: 2 * index]]
            images = [image for turn in chat.turns[: 2 * index] for image in turn.images]
            other.restore(messages, images)
            answer = other.generate(question, images=[picture(5)] if not index else [], max_tokens=12)
        assert answer.cached_tokens == 0
        assert answer.tokens == reused[index].tokens
        assert answer.text == reused[index].text


def test_two_chats_take_turns_on_one_model(fresh: Model) -> None:
    one, other = fresh.chat(), fresh.chat()
    first = one.generate("What is this?", images=[picture(1)], max_tokens=6)
    other.generate("What is that?", images=[picture(2)], max_tokens=6)
    one.generate("Why?", max_tokens=6)
    again = fresh.ask("What is this?", [picture(1)], max_tokens=6)
    assert again.tokens == first.tokens


def test_encoded_image_can_be_asked_about_many_times(model: Model) -> None:
    encoded = model.encode_image(picture(3))
    assert encoded.embeddings.shape == (encoded.layout.image_tokens, model.manifest.vision.dim)
    answers = {model.ask("What is this?", [encoded], max_tokens=6).tokens for _ in range(2)}
    assert answers == {model.ask("What is this?", [picture(3)], max_tokens=6).tokens}
    assert model.encode_image(encoded) is encoded


def test_low_detail_is_another_prompt(model: Model) -> None:
    whole, overview = model.encode_image(picture(3)), model.encode_image(picture(3), detail="low")
    geometry = model.manifest.geometry
    assert overview.layout.image_tokens == geometry.features_per_tile + 1
    assert whole.key != overview.key
    assert np.array_equal(whole.embeddings[: geometry.features_per_tile], overview.embeddings[:-1])


def test_few_encoded_pictures_are_remembered(tiny_bundle: Path) -> None:
    with load(tiny_bundle, images_kept=1) as small:
        first = small.encode_image(picture(1))
        assert small.encode_image(picture(1)) is first
        small.encode_image(picture(2))
        assert small.encode_image(picture(1)) is not first


def test_ends_are_told_apart(model: Model) -> None:
    by_length = model.ask("What is this?", [picture(1)], max_tokens=5)
    assert (by_length.finish_reason, len(by_length.tokens)) == ("length", 5)
    text = by_length.text
    stop = text[len(text) // 2 :]
    stopped = model.ask("What is this?", [picture(1)], max_tokens=5, stop=(stop,))
    assert stopped.finish_reason == "stop"
    assert stopped.text == text[: text.index(stop)]


@LOOKS_INSIDE
@pytest.mark.usefixtures("asked_between_steps")
def test_cancelled_answer_has_the_tokens_said_until_then(model: Model) -> None:
    encoded = model.encode_image(picture(1))
    chunks: list[int] = []
    model.engine.cache.clear()
    question: dict[str, Any] = {"question": "What is this?", "images": [encoded], "max_tokens": 5}
    whole = model.chat().generate(**question, on_prefill=lambda done, _: chunks.append(done))
    assert len(whole.tokens) == 5
    for said in range(5):
        model.engine.cache.clear()  # asked before every chunk, then behind every token
        cancelled = model.chat().generate(**question, cancelled=count_calls(len(chunks) + said - 1))
        assert (cancelled.finish_reason, cancelled.tokens) == ("cancel", whole.tokens[:said])


@LOOKS_INSIDE
def test_end_token_stops_and_is_not_part_of_the_answer(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = model.ask("What is this?", [picture(1)], max_tokens=5).tokens
    monkeypatch.setattr(model.engine.llm, "is_end", lambda token: token == tokens[3])
    answer = model.ask("What is this?", [picture(1)], max_tokens=5)
    assert answer.finish_reason == "stop"
    assert answer.tokens == tokens[: tokens.index(tokens[3])]


@LOOKS_INSIDE
def test_stop_tokens_of_the_manifest_end_an_answer(model: Model, tiny_bundle: Path) -> None:
    tokens = model.ask("What is this?", [picture(1)], max_tokens=5).tokens
    llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions(), stop_tokens=[tokens[3]])
    assert llm.is_end(tokens[3])
    assert not model.engine.llm.is_end(tokens[3])
    llm.close()


def count_calls(after: int) -> Callable[[], bool]:
    """False ``after`` times, then True."""
    calls = iter([False] * after)
    return lambda: next(calls, True)


@pytest.mark.usefixtures("asked_between_steps")
def test_cancel_between_tiles_keeps_conversation_and_encodes_no_more(
    fresh: Model, request: pytest.FixtureRequest
) -> None:
    chat = fresh.chat()
    tiles: list[int] = []
    answer = chat.generate(
        "What is this?",
        images=[picture(1)],
        cancelled=lambda: len(tiles) >= 2,
        on_encode=lambda done, _: tiles.append(done),
    )
    assert (answer.finish_reason, answer.text, chat.turns) == ("cancel", "", ())
    assert tiles[:2] == [1, 2]
    if not request.node.callspec.params["fresh"]:  # a process of its own goes on until it hears of it
        assert len(tiles) == 2
    with pytest.raises(Cancelled):
        fresh.encode_image(picture(1), cancelled=lambda: True)


@pytest.mark.usefixtures("asked_between_steps")
def test_cancel_between_prefill_chunks_keeps_the_cache_true(tiny_bundle: Path) -> None:
    with load(tiny_bundle, batch=16, micro_batch=16) as model:
        encoded = model.encode_image(picture(1))
        expected = model.ask("What is this?", [encoded], max_tokens=8)
        for after in range(1, 8):
            model.engine.cache.clear()
            progress: list[int] = []
            cut = model.chat().generate(
                "What is this?",
                images=[encoded],
                cancelled=count_calls(after),
                on_prefill=lambda done, _: progress.append(done),  # noqa: B023
            )
            assert cut.finish_reason == "cancel"
            assert len(progress) == after
            assert model.ask("What is this?", [encoded], max_tokens=8).tokens == expected.tokens


def test_cancelled_answer_keeps_what_was_said(fresh: Model) -> None:
    chat = fresh.chat()
    pieces = chat.stream("What is this?", images=[picture(1)], max_tokens=32)
    said = next(pieces) + next(pieces)
    pieces.close()
    assert chat.answer is not None
    assert chat.answer.finish_reason == "cancel"
    assert chat.answer.text.startswith(said)
    prompt = chat.answer.prompt_tokens
    assert [turn.message.role for turn in chat.turns] == ["user", "assistant"]
    assert chat.generate("Go on.", max_tokens=4).cached_tokens >= prompt - 2


def test_greedy_is_deterministic_and_seeds_decide_draws(model: Model) -> None:
    question: dict[str, Any] = {"question": "What is this?", "images": [picture(1)], "max_tokens": 12}
    assert model.ask(**question).tokens == model.ask(**question).tokens
    warm = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    drawn = [model.ask(**question, **warm, seed=seed).tokens for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    unseeded = model.ask(**question, **warm)
    assert model.ask(**question, **warm, seed=unseeded.seed).tokens == unseeded.tokens


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}])
def test_narrow_filters_draw_the_likeliest(narrow: dict[str, Any], model: Model) -> None:
    greedy = model.ask("What is this?", [picture(1)], max_tokens=8)
    drawn = model.ask("What is this?", [picture(1)], max_tokens=8, temperature=1.0, seed=5, **narrow)
    assert drawn.tokens == greedy.tokens


@LOOKS_INSIDE
@pytest.mark.parametrize("seed", range(8))
def test_repeat_penalty_is_that_of_its_paper(seed: int, model: Model) -> None:
    """Keskar et al. 2019, with the sign minded as everyone does, over the prompt's text and the answer."""
    encoded = model.encode_image(picture(seed))
    words = " ".join(chr(code) for code in range(33, 127))
    punished = model.ask(words, [encoded], max_tokens=12, repeat_penalty=5.0)
    *before, text = model.engine.cache.segments()  # all but the last token, which nothing was computed from
    assert isinstance(text, TextSegment)
    prompt = [*before, TextSegment(text.tokens[: 1 - len(punished.tokens)])]
    recent = [token for segment in prompt if isinstance(segment, TextSegment) for token in segment.tokens]
    model.engine.cache.prefill(prompt, {encoded.key: encoded.embeddings})
    for token in punished.tokens:
        logits = model.engine.llm.logits()
        for seen in set(recent[-PENALTY_WINDOW:]):
            logits[seen] *= 5 if logits[seen] < 0 else 1 / 5
        assert token == logits.argmax()
        recent.append(token)
        model.engine.cache.append(token)


@LOOKS_INSIDE_FRESH
def test_prompt_that_cannot_fit_is_refused_before_any_work(fresh: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr(fresh.engine.pictures.tower, "encode", never)
    monkeypatch.setattr(fresh.engine.llm, "decode_tokens", never)
    chat = fresh.chat()
    with pytest.raises(ContextError, match=r"fewer than 1024 positions .* of pictures, .* of text"):
        chat.generate("word " * 1200, images=[picture(1)])
    assert chat.turns == ()


def test_answer_is_cut_where_the_context_ends(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(tiny_bundle, context=256) as small:
        monkeypatch.setattr(small.engine.llm, "is_end", lambda _: False)
        answer = small.ask("What is this?", [picture(1)], max_tokens=512)
        assert answer.prompt_tokens + len(answer.tokens) == 256
        assert answer.finish_reason == "length"
        with pytest.raises(ContextError, match="fewer than 256"):
            small.ask("word " * 300)


def test_context_grows_and_keeps_its_cache(fresh: Model) -> None:
    chat = fresh.chat()
    chat.generate("What is this?", images=[picture(1)], max_tokens=4)
    small = fresh.context_size
    answer = chat.generate("word " * 150, max_tokens=4)
    assert fresh.context_size > small
    assert answer.cached_tokens > answer.image_tokens[0]
    expected = fresh.chat()
    expected.restore([turn.message for turn in chat.turns[:2]], chat.turns[0].images)
    fresh.ask("Something else.", max_tokens=1)  # displaces it
    assert expected.generate("word " * 150, max_tokens=4).tokens == answer.tokens


def test_one_request_at_a_time(model: Model) -> None:
    pieces = model.chat().stream("What is this?", images=[picture(1)], max_tokens=8)
    next(pieces)
    with pytest.raises(BusyError):
        model.ask("And now?")
    with pytest.raises(BusyError):
        model.encode_image(picture(2))
    pieces.close()
    model.ask("And now?", max_tokens=2)


def test_system_message_and_clear(model: Model) -> None:
    chat = model.chat(system="Answer in one word.")
    with_system = chat.generate("What is this?", images=[picture(1)], max_tokens=4).prompt_tokens
    assert [turn.message.role for turn in chat.turns] == ["system", "user", "assistant"]
    chat.clear()
    assert [turn.message.role for turn in chat.turns] == ["system"]
    assert chat.answer is None
    assert with_system > model.ask("What is this?", [picture(1)], max_tokens=4).prompt_tokens


@LOOKS_INSIDE_FRESH
def test_errors_leave_the_conversation_as_it_was(fresh: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = fresh.chat()
    chat.generate("What is this?", images=[picture(1)], max_tokens=4)
    before = chat.turns
    with pytest.raises(ImageError):
        chat.generate("And this?", images=["no-such-file.png"])
    with pytest.raises(OptionError, match="temperatur"):
        chat.generate("Again?", temperatur=1)

    def fail(*_: object, **__: object) -> None:
        raise NativeError(expected="positions", got="llama.cpp: broken", fix="load again")

    with monkeypatch.context() as patch:
        patch.setattr(fresh.engine.llm, "decode_tokens", fail)
        with pytest.raises(NativeError):
            chat.generate("Again?")
    assert chat.turns == before
    assert fresh.engine.cache.positions == 0
    assert chat.generate("Again?", max_tokens=2).cached_tokens == 0
    with pytest.raises(OptionError, match="0 pictures"):
        chat.restore([TemplateMessage("user", "hi")], [fresh.encode_image(picture(1))])


def test_answer_is_plain_json(model: Model) -> None:
    answer = model.ask("What is this?", [picture(1)], max_tokens=4)
    raw = json.loads(json.dumps(answer.as_dict()))
    contract = {"text", "tokens", "finish_reason", "prompt_tokens", "image_tokens", "cached_tokens", "timings"}
    assert contract <= set(raw)
    assert set(raw["timings"]) == {"load", "encode", "prefill", "decode", "first_token"}
    assert all(value >= 0 for value in raw["timings"].values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -1},
        {"top_k": -1},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"repeat_penalty": 0},
        {"seed": -1},
        {"seed": 2**32},
        {"stop": "text"},
        {"stop": ("",)},
        {"temperature": "hot"},
        {"max_tokens": True},
    ],
)
def test_wrong_generation_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        GenerationOptions(**wrong)
    assert next(iter(wrong)) in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"threads": -1}, {"batch": 0}, {"batch": 8, "micro_batch": 9}, {"context": -1}, {"gpu_layers": -2}]
)
def test_wrong_load_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        LoadOptions(**wrong)


def test_context_beyond_the_models_limit_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(OptionError, match="at most 1024"):
        load(tiny_bundle, context=4096)


def test_pictures_encoded_for_another_width_are_refused(model: Model) -> None:
    encoded = model.encode_image(picture(1))
    narrow = dataclasses.replace(encoded, embeddings=encoded.embeddings[:, :8])
    with pytest.raises(OptionError, match="width 8"):
        model.ask("What is this?", [narrow])


def test_computing_without_a_context_is_an_error_not_a_crash(tiny_bundle: Path) -> None:
    llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions())
    with pytest.raises(NativeError, match="ensure_context"):
        llm.decode_tokens([1], 0, logits=True)
    llm.close()
    llm.close()


def test_broken_gguf_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "llm.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(NativeError) as caught:
        Llm(tmp_path / "llm.gguf", options=LoadOptions())
    assert "\n" not in str(caught.value)
    assert "llama.cpp:" in str(caught.value)


@pytest.mark.slow
def test_bundle_whose_parts_do_not_fit_is_refused(exported: Any, tmp_path: Path) -> None:
    """A GGUF of another width than the vision part's, with hashes that are right."""
    import shutil

    from llava_edge.runtime.bundle.bundle import Bundle, write_manifest

    _, wide = exported("llama3")
    _, narrow = exported("yi")
    mixed = tmp_path / "mixed"
    shutil.copytree(wide, mixed)
    shutil.copy(narrow / "llm.gguf", mixed / "llm.gguf")
    write_manifest(mixed, Bundle.open(wide).manifest)
    with pytest.raises(BundleError, match="language model of width 256"):
        load(mixed)


@LOOKS_INSIDE
def test_prefill_ending_in_a_picture(model: Model) -> None:
    """No template does it, but the cache must not leave the last position without logits."""
    encoded = model.encode_image(picture(1))
    segments = [TextSegment((1, 2, 3)), encoded.segment]
    model.engine.cache.clear()
    model.engine.llm.ensure_context(512)
    assert model.engine.cache.prefill(segments, {encoded.key: encoded.embeddings}) == 0
    first = model.engine.llm.logits()
    assert model.engine.cache.prefill(segments, {encoded.key: encoded.embeddings}) == 3
    assert np.allclose(first, model.engine.llm.logits(), atol=1e-3)
    assert model.engine.cache.segments() == segments
    assert isinstance(model.engine.cache.segments()[-1], ImageSegment)


@LOOKS_INSIDE
def test_loaded_picture_can_be_given(model: Model) -> None:
    opened = load_picture(picture(1))
    expected = model.ask("What is this?", [picture(1)], max_tokens=3).tokens
    model.engine.cache.clear()
    assert model.ask("What is this?", [opened], max_tokens=3).tokens == expected


def test_flash_attention_is_off_on_a_cpu_unless_asked_for(tiny_bundle: Path) -> None:
    """Its CPU kernel for short batches sums in half precision: KL 2e-3 behind thousands of positions."""

    def logits(flash_attention: bool | None) -> np.ndarray:
        llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions(flash_attention=flash_attention))
        llm.ensure_context(512)
        llm.decode_tokens([index % 400 for index in range(500)], 0, logits=False)
        llm.decode_tokens([7], 500, logits=True)
        found = llm.logits()
        llm.close()
        return found

    assert np.array_equal(logits(None), logits(False))
    assert not np.array_equal(logits(None), logits(True))


def test_a_closed_model_is_an_error(tiny_bundle: Path) -> None:
    """Whatever is asked of it, in the middle of an answer too: llama.cpp would take the process down."""
    model = load(tiny_bundle)
    begun, chat = model.chat(), model.chat()
    answer = begun.stream("What is this?", images=[picture(1)], max_tokens=8)
    next(answer)
    model.close()
    with pytest.raises(NativeError, match="an open model; got a closed one"):
        next(answer)
    for ask in (lambda: model.ask("?"), lambda: chat.generate("?"), lambda: model.placement):
        with pytest.raises(NativeError, match="an open model; got a closed one"):
            ask()
    with pytest.raises(NativeError, match="an open model; got a closed one"):
        model.encode_image(picture(2))


@pytest.mark.parametrize("temperature", [1e-45, 1e-40, 1e-38, 1e-10, 1e-4])
def test_a_temperature_near_zero_is_greedy(temperature: float, model: Model) -> None:
    greedy = model.ask("What is this?", [picture(1)], max_tokens=4)
    assert model.ask("What is this?", [picture(1)], max_tokens=4, temperature=temperature).tokens == greedy.tokens


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_tokens": 1.5}, "max_tokens as a whole number from 1 to 2147483647; got 1.5"),
        ({"top_k": 2.5}, "top_k as a whole number from 0 to 2147483647"),
        ({"seed": 0.5}, "seed as a whole number"),
        ({"top_p": 2}, "top_p from 0 to 1; got 2"),
    ],
)
def test_whole_numbers_are_asked_for(options: dict[str, Any], said: str, model: Model) -> None:
    with pytest.raises(OptionError, match=said):
        model.ask("?", **options)
    with pytest.raises(OptionError, match=r"threads as a whole number from 0 to 1024; got 1\.5"):
        load(threads=1.5)  # type: ignore[arg-type]
