"""Rungs 2 to 5 and greedy decoding: our bundle against the checkpoint in transformers, eager f32."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.runtime import load
from llava_edge.runtime.prompts.segments import ImageSegment, Segment, TextSegment
from llava_edge.runtime.prompts.template import TemplateMessage
from PIL import Image
from support.checkpoints import make_checkpoint
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

pytestmark = pytest.mark.slow

FAMILIES = ("llama3", "vicuna", "mistral", "qwen", "yi")
GREEDY = 32
NOISE = 0.05
"""Nats: where the reference's two best tokens are closer, float noise may decide."""


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    low = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


@functools.cache
def reference(checkpoint: Path) -> tuple[Any, Any]:
    model = LlavaNextForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    return model, AutoProcessor.from_pretrained(checkpoint)


def as_reference_messages(turns: list[TemplateMessage]) -> list[dict[str, Any]]:
    return [
        {"role": turn.role, "content": [*[{"type": "image"}] * turn.images, {"type": "text", "text": turn.text}]}
        for turn in turns
    ]


def flat(segments: list[Segment]) -> list[int]:
    """Ids with -1 for every position of a picture."""
    ids: list[int] = []
    for segment in segments:
        ids.extend(segment.tokens if isinstance(segment, TextSegment) else (-1,) * len(segment))
    return ids


CONVERSATIONS = {
    "one picture": [TemplateMessage("user", "What is in this picture?", 1)],
    "no picture": [TemplateMessage("user", "Hello there, how are you today?")],
    "two pictures": [TemplateMessage("user", "Which of the two is larger?", 2)],
    "several turns": [
        TemplateMessage("user", "What is this?", 1),
        TemplateMessage("assistant", "A cat sits on the mat."),
        TemplateMessage("user", "And in this one?", 1),
        TemplateMessage("assistant", "  Two dogs,\n\nrunning."),
        TemplateMessage("user", "How many\tanimals are there?  "),
    ],
    "scripts and white space": [
        TemplateMessage("user", " \n Ünïcödé 日本語 العربية 🦙🏽  x=[1,2];\n\tprint('a  b')\n\n\n12345 ", 1)
    ],
}


def prompt(checkpoint: Path, turns: list[TemplateMessage], pictures: list[Image.Image]) -> Any:
    _, processor = reference(checkpoint)
    text = processor.apply_chat_template(as_reference_messages(turns), add_generation_prompt=True)
    bos = processor.tokenizer.bos_token
    added = not (bos and text.startswith(bos))
    return processor(text=text, images=pictures or None, return_tensors="pt", add_special_tokens=added)


@pytest.mark.parametrize("family", [*FAMILIES, "granite"])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_prompt_ids_are_the_reference_processors(family: str, conversation: str, exported: Any) -> None:
    """Rung 4: identical ids, multi-turn and multi-image."""
    checkpoint, bundle = exported(family, "transformers")
    turns = CONVERSATIONS[conversation]
    pictures = [picture((90 + 40 * index, 70), index) for index in range(sum(turn.images for turn in turns))]
    model, _ = reference(checkpoint)
    expected = prompt(checkpoint, turns, pictures)["input_ids"][0].tolist()
    expected = [-1 if token == model.config.image_token_id else token for token in expected]
    with load(bundle) as ours:
        encoded = [ours.encode_image(one) for one in pictures]
        assert ours.engine.prompt(turns, encoded).ids(-1) == expected
        chat = ours.chat()
        chat.restore(turns[:-1], encoded[: len(encoded) - turns[-1].images])
        answer = chat.generate(turns[-1].text, images=encoded[len(encoded) - turns[-1].images :], max_tokens=1)
        assert answer.prompt_tokens == len(expected)
        assert flat(ours.engine.cache.segments())[: len(expected)] == expected


@pytest.mark.parametrize("family", [*FAMILIES, "granite"])
def test_embeddings_logits_and_greedy_tokens(family: str, exported: Any) -> None:
    """Rungs 3 and 5 on a picture with padding, through everything a user's question goes through."""
    checkpoint, bundle = exported(family, "transformers")
    model, _ = reference(checkpoint)
    turns, seen = CONVERSATIONS["one picture"], picture((150, 70), 3)
    inputs = prompt(checkpoint, turns, [seen])
    with torch.no_grad():
        packed = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output[0].numpy()
        out = model.generate(
            **inputs, max_new_tokens=GREEDY, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    expected = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    logprobs = torch.stack(out.logits)[:, 0].log_softmax(-1)
    with load(bundle) as ours:
        encoded = ours.encode_image(seen)
        assert encoded.embeddings.shape == packed.shape
        error = np.linalg.norm(encoded.embeddings - packed) / np.linalg.norm(packed)
        assert error <= 1e-5
        answer = ours.ask(turns[0].text, [encoded], max_tokens=GREEDY)
        first = first_logits(ours, turns[0], encoded)
    kl = float((logprobs[0].exp() * (logprobs[0] - torch.tensor(first).log_softmax(-1))).sum())
    assert kl <= 1e-4
    assert first.argmax() == logprobs[0].argmax()
    margins = logprobs.topk(2).values
    for index, token in enumerate(answer.tokens):
        if token != expected[index]:
            assert margins[index, 0] - margins[index, 1] < NOISE, f"token {index} differs"
            return
    ended = len(answer.tokens) < GREEDY
    assert answer.finish_reason == ("stop" if ended else "length")
    assert len(expected) == len(answer.tokens) + ended


def first_logits(ours: Any, turn: TemplateMessage, encoded: Any) -> np.ndarray:
    prompt = ours.engine.prompt([turn], [encoded])
    ours.engine.cache.clear()
    ours.engine.llm.ensure_context(len(prompt) + 1)
    ours.engine.cache.prefill(prompt.segments, {encoded.key: encoded.embeddings})
    return ours.engine.llm.logits()


@pytest.mark.parametrize("family", FAMILIES)
def test_original_layout_gives_the_same_greedy_tokens(family: str, exported: Any, tmp_path: Path) -> None:
    """The original layout: the reference is a transformers twin of the same weights, fed our ids."""
    original, bundle = exported(family, "original")
    vocabulary = json.loads((original / "config.json").read_text())["vocab_size"]
    twin = make_checkpoint(tmp_path / "twin", family, text={"vocab_size": vocabulary})
    model, _ = reference(twin)
    seen = picture((70, 150), 4)
    with load(bundle) as ours:
        encoded = ours.encode_image(seen)
        answer = ours.ask("What is this?", [encoded], max_tokens=8)
        segments = ours.engine.prompt([TemplateMessage("user", "What is this?", 1)], [encoded]).segments
    ids = torch.tensor([flat(segments)])
    inputs = model.get_input_embeddings()(ids.clamp(min=0))
    inputs[ids == -1] = torch.tensor(encoded.embeddings)
    with torch.no_grad():
        expected, margins = greedy(model, inputs, len(answer.tokens))
    for index, token in enumerate(answer.tokens):
        if token != expected[index]:
            assert margins[index] < NOISE, f"token {index} differs"
            break
    assert any(isinstance(segment, ImageSegment) for segment in segments)


def greedy(model: Any, inputs: torch.Tensor, count: int) -> tuple[list[int], list[float]]:
    """Plain greedy decoding without a cache, on the language model alone."""
    tokens, margins = [], []
    for _ in range(count):
        hidden = model.model.language_model(inputs_embeds=inputs).last_hidden_state[:, -1]
        best = model.lm_head(hidden)[0].log_softmax(-1).topk(2)
        tokens.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        inputs = torch.cat([inputs, model.get_input_embeddings()(best.indices[:1])[None]], dim=1)
    return tokens, margins


def test_first_logits_of_a_long_prompt(exported: Any) -> None:
    """Rung 5 near the context's end."""
    checkpoint, bundle = exported("llama3", "transformers")
    model, _ = reference(checkpoint)
    turn, seen = TemplateMessage("user", "how many words are here " * 70, 1), picture((150, 150), 5)
    inputs = prompt(checkpoint, [turn], [seen])
    with torch.no_grad():
        expected = model(**inputs).logits[0, -1].log_softmax(-1)
    with load(bundle) as ours:
        first = first_logits(ours, turn, ours.encode_image(seen))
    assert inputs["input_ids"].shape[1] > 700
    assert float((expected.exp() * (expected - torch.tensor(first).log_softmax(-1))).sum()) <= 1e-4
