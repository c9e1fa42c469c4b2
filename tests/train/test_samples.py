"""Training sequences: labels token by token, and the same ids and embeddings that transformers makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.train.loop import answer_logits, image_embeddings
from llava_edge.train.model import build_model
from llava_edge.train.pictures import draw, sample_scene
from llava_edge.train.questions import Turn, ask
from llava_edge.train.samples import (
    IGNORED,
    collate,
    conversation,
    prepare_picture,
    sample_description,
    sample_picture,
)
from PIL import Image

from .conftest import Demo

TURNS = [Turn("read", "What does the sign say?", "STOP"), Turn("count", "How many circles are there?", "2")]
SIZES = [(96, 96), (100, 90), (96, 48), (48, 144), (200, 47), (384, 400), (31, 97)]


def messages(turns: list[Turn], image: Image.Image) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for index, turn in enumerate(turns):
        parts: list[dict[str, Any]] = [{"type": "image", "image": image}] if index == 0 else []
        result.append({"role": "user", "content": [*parts, {"type": "text", "text": turn.question}]})
        result.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return result


def test_labels_are_the_answers_and_their_ends_and_nothing_else(demo: Demo) -> None:
    picture = prepare_picture(demo.processor, Image.new("RGB", (96, 96)))
    sample = conversation(demo.tokenizer, TURNS, picture)

    expected = [IGNORED] * len(sample.token_ids)
    end = demo.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    ends = [index for index, token_id in enumerate(sample.token_ids) if token_id == end]
    assert len(ends) == 4  # question, answer, question, answer
    for turn, stop in zip(TURNS, (ends[1], ends[3]), strict=True):
        answer = demo.tokenizer.encode(turn.answer, add_special_tokens=False)
        assert sample.token_ids[stop - len(answer) : stop] == answer
        expected[stop - len(answer) : stop + 1] = [*answer, end]
    assert sample.labels == expected


@pytest.mark.parametrize("size", SIZES)
def test_token_ids_are_those_of_the_chat_template(demo: Demo, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (10, 200, 30))
    expected = demo.processor.apply_chat_template(messages(TURNS, image), tokenize=True, return_dict=True)
    sample = conversation(demo.tokenizer, TURNS, prepare_picture(demo.processor, image))
    assert sample.token_ids == list(expected["input_ids"][0])


def test_every_byte_can_be_encoded(demo: Demo) -> None:
    text = "naïve 中文 \x00\t🙂 'S"
    assert demo.tokenizer.decode(demo.tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("size", SIZES)
def test_embeddings_are_those_of_transformers(demo: Demo, size: tuple[int, int]) -> None:
    model = build_model(demo.recipe, demo.tokenizer).eval()
    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = prepare_picture(demo.processor, Image.fromarray(noise))
    with torch.inference_mode():
        ours = image_embeddings(model, [picture])[0]
        theirs = model.get_image_features(picture.pixel_values[None], torch.tensor([picture.size])).pooler_output[0]
    assert ours.shape == (picture.tokens, demo.recipe.llm.hidden)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_overview_alone_is_its_features_and_one_newline(demo: Demo) -> None:
    model = build_model(demo.recipe, demo.tokenizer).eval()
    image = draw(sample_scene(np.random.default_rng(5)))
    whole = prepare_picture(demo.processor, image)
    overview = prepare_picture(demo.processor, image, overview_only=True)
    side = demo.recipe.tile.size // demo.recipe.tile.patch
    with torch.inference_mode():
        whole_embeddings, embeddings = image_embeddings(model, [whole, overview])
    assert overview.tokens == len(embeddings) == side * side + 1
    torch.testing.assert_close(embeddings[:-1], whole_embeddings[: side * side], rtol=0, atol=1e-6)
    assert torch.equal(embeddings[-1], model.model.image_newline)


def test_padding_does_not_change_a_sample(demo: Demo) -> None:
    model = build_model(demo.recipe, demo.tokenizer).eval()
    random = np.random.default_rng(7)
    samples = [sample_picture(random, demo.processor), sample_description(random, demo.processor)]
    padding = demo.tokenizer.pad_token_id
    with torch.inference_mode():
        together, labels = answer_logits(model, collate(samples, padding))
        apart = [answer_logits(model, collate([sample], padding)) for sample in samples]
    assert torch.equal(labels, torch.cat([one[1] for one in apart]))
    torch.testing.assert_close(together, torch.cat([one[0] for one in apart]), rtol=1e-4, atol=1e-4)


def test_answers_follow_from_the_scene() -> None:
    for seed in range(200):
        scene = sample_scene(np.random.default_rng(seed))
        for turn in ask(scene, np.random.default_rng(seed)):
            words = turn.question.strip("?.").split()
            if turn.type == "read":
                assert turn.answer == scene.signs[0].text
            elif turn.type == "count":
                kinds = [shape.kind for shape in scene.shapes if f"{shape.kind}s" in words or "shapes" in words]
                assert turn.answer == str(len(kinds))
            else:
                named = [
                    shape
                    for shape in scene.shapes
                    if shape.kind in words or (shape.colour in words and not set(words) & {"circle", "square"})
                ]
                found = {"colour": "colour", "shape": "kind", "position": "quadrant"}[turn.type]
                assert turn.answer in {getattr(shape, found) for shape in named}
