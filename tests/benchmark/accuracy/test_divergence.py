"""Reference rows against transformers, candidates against logits of every prefix prefilled from scratch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.benchmark.accuracy import divergence as module
from llava_edge.benchmark.accuracy.answer_store import ReferenceAnswer
from llava_edge.benchmark.accuracy.divergence import answer_as_candidate, answer_as_reference
from llava_edge.benchmark.data.questions import Question
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.runtime import load
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.prompts.template import TemplateMessage
from PIL import Image

pytestmark = pytest.mark.slow

TOKENS = 8


def png(size: tuple[int, int], seed: int) -> bytes:
    low = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(low).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def question(prompt: str, *images: bytes, max_tokens: int = TOKENS) -> Question:
    return Question("1", "type", prompt, images, ("red",), "exact", max_tokens=max_tokens)


PICTURE, OTHER = png((150, 70), 1), png((60, 110), 2)
QUESTIONS = [
    question("What is in this picture?", PICTURE),
    question("What is its colour?", PICTURE),
    question("Which of the two is larger?", PICTURE, OTHER),
    question("Hello there, how are you today?"),
    question("How many are there?", OTHER),
]


@pytest.fixture(scope="module")
def small(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "bundle"
    quantize_bundle(tiny_bundle, folder, llm="q4_0", vision="int8")
    return folder


@pytest.fixture(scope="module")
def references(tiny_bundle: Path) -> list[ReferenceAnswer]:
    with load(tiny_bundle) as model:
        return [answer_as_reference(model, one) for one in QUESTIONS]


def test_rows_are_those_of_transformers(exported: Any, references: list[ReferenceAnswer]) -> None:
    """Generation in PyTorch, f32, on the reference processor's own inputs."""
    import torch
    from transformers import AutoProcessor, LlavaNextForConditionalGeneration

    checkpoint, _ = exported()
    model = LlavaNextForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    content = [{"type": "image"}, {"type": "text", "text": QUESTIONS[0].prompt}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    image = Image.open(io.BytesIO(PICTURE))
    inputs = processor(text=text, images=[image], return_tensors="pt", add_special_tokens=False)
    ours = references[0]
    forced = torch.cat([inputs["input_ids"], torch.tensor([ours.tokens])], dim=1)
    inputs["input_ids"], inputs["attention_mask"] = forced, torch.ones_like(forced)
    with torch.no_grad():
        logits = model(**inputs).logits[0, -len(ours.tokens) - 1 : -1]
    expected = logits.double().log_softmax(-1)
    assert ours.tokens == tuple(logits.argmax(-1).tolist())
    assert ours.rows.shape == tuple(expected.shape)
    kl = (expected.exp() * (expected - torch.tensor(ours.rows.astype(np.float64)).log_softmax(-1))).sum(-1)
    assert float(kl.max()) <= 1e-4  # rung 5 of the fidelity ladder


def test_the_reference_answers_as_a_chat_does(tiny_bundle: Path, references: list[ReferenceAnswer]) -> None:
    with load(tiny_bundle) as model:
        for asked, ours in zip(QUESTIONS, references, strict=True):
            answer = model.ask(asked.prompt, asked.images, max_tokens=TOKENS)
            assert ours.text == answer.text
            assert tuple(one for one in ours.tokens if not model.engine.llm.is_end(one)) == answer.tokens
            assert len(ours.rows) == len(ours.tokens)


def from_scratch(model: Any, asked: Question, tokens: tuple[int, ...]) -> np.ndarray:
    """Log-probabilities behind the prompt, prefilled whole into an empty cache, and ``tokens``, one at a time."""
    encoded = [model.encode_image(one) for one in asked.images]
    segments = model.engine.prompt([TemplateMessage("user", asked.prompt, len(encoded))], encoded).segments
    model.engine.cache.clear()
    model.engine.llm.ensure_context(sum(map(len, segments)) + len(tokens) + 1)
    model.engine.cache.prefill(segments, {one.key: one.embeddings for one in encoded})
    for position, token in enumerate(tokens, start=model.engine.cache.positions):
        model.engine.llm.decode_tokens([token], position, logits=True)
    logits = model.engine.llm.logits().astype(np.float64)
    model.engine.cache.clear()
    return np.asarray(logits - np.logaddexp.reduce(logits))


def test_candidates_are_judged_on_the_references_tokens(
    tiny_bundle: Path, small: Path, references: list[ReferenceAnswer]
) -> None:
    with load(small) as model:
        answers = [answer_as_candidate(model, *each) for each in zip(QUESTIONS, references, strict=True)]
    away = []
    with load(tiny_bundle) as exact, load(small) as model:
        for asked, known, ours in zip(QUESTIONS, references, answers, strict=True):
            for index in range(len(known.tokens)):
                p, q = (from_scratch(one, asked, known.tokens[:index]) for one in (exact, model))
                expected = float(np.sum(np.exp(p) * (p - q)))
                # q4_0 products round activations to 8 bits; in other chunks of the prompt a few round the other way
                assert ours.kl[index] == pytest.approx(expected, rel=0.03, abs=ours.kl_error[index])
                away.append(abs(ours.kl[index] - expected) / expected)
                assert ours.top1[index] == (int(q.argmax()) == known.tokens[index])
            assert ours.text == model.ask(asked.prompt, asked.images, max_tokens=TOKENS).text
    assert np.median(away) <= 2e-3
    assert any(not all(one.top1) for one in answers)  # else the way on from a parting was not tried
    assert max(max(one.kl) for one in answers) > 1e-3


def test_a_bundle_does_not_diverge_from_itself(tiny_bundle: Path, references: list[ReferenceAnswer]) -> None:
    """In another order, so that nothing rests on what the cache held."""
    pairs = list(zip(QUESTIONS, references, strict=True))
    with load(tiny_bundle) as model:
        for asked, known in reversed(pairs):
            ours = answer_as_candidate(model, asked, known)
            assert set(ours.kl) == {0.0}
            assert all(ours.top1)
            assert (ours.text, ours.tokens) == (known.text, known.tokens)


def test_only_the_first_tokens_of_a_long_answer_are_measured(
    tiny_bundle: Path, small: Path, references: list[ReferenceAnswer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEASURED", 3)
    with load(tiny_bundle) as model:
        short = answer_as_reference(model, QUESTIONS[0])
        again = answer_as_candidate(model, QUESTIONS[0], short)
    assert np.array_equal(short.rows, references[0].rows[:3])
    assert short.tokens == again.tokens == references[0].tokens
    assert len(again.kl) == 3


def test_a_prompt_that_does_not_fit_is_no_answer(tiny_bundle: Path, small: Path) -> None:
    asked = question("word " * 300)
    with load(tiny_bundle, context=256) as model:
        known = answer_as_reference(model, asked)
    assert "of text" in known.refused
    with load(small, context=256) as model:
        ours = answer_as_candidate(model, asked, known)
    assert (ours.refused, ours.kl, ours.text) == (known.refused, (), "")


def test_another_vocabulary_is_refused(tiny_bundle: Path) -> None:
    known = ReferenceAnswer("", (1,), np.zeros((1, 7), np.float16))
    with load(tiny_bundle) as model, pytest.raises(OptionError, match="vocabulary of 7 tokens"):
        answer_as_candidate(model, QUESTIONS[0], known)
