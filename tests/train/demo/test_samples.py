"""Pretraining's samples: the prompt and tiles of transformers, and answers that follow from the scene."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.train.data.sequences import IGNORED
from llava_edge.train.demo.loop import answer_logits, overview_embeddings
from llava_edge.train.demo.model import build_model
from llava_edge.train.demo.pictures import Scene, sample_scene
from llava_edge.train.demo.questions import Exchange, ask, converse, describe, facts
from llava_edge.train.demo.samples import collate, encode_turns, sample_description, sample_overview
from PIL import Image

from .conftest import Demo

TURNS = [Exchange("read", "What does the sign say?", "STOP"), Exchange("count", "How many circles are there?", "2")]


def messages(turns: list[Exchange]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for index, turn in enumerate(turns):
        parts: list[dict[str, Any]] = [{"type": "image"}] if index == 0 else []
        result.append({"role": "user", "content": [*parts, {"type": "text", "text": turn.question}]})
        result.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return result


def test_token_ids_are_those_of_transformers_and_labels_the_answers(demo: Demo) -> None:
    sample = encode_turns(demo.prompting, TURNS, Image.new("RGB", (60, 90)))
    side = demo.recipe.tile.size // demo.recipe.tile.patch
    text = demo.processor.apply_chat_template(messages(TURNS)).replace("<image>", "<image>" * (side * side + 1))
    assert list(sample.sequence.ids) == demo.tokenizer.encode(text, add_special_tokens=False)

    expected = [IGNORED] * len(sample.sequence.ids)
    end = demo.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    ends = [index for index, token_id in enumerate(sample.sequence.ids) if token_id == end]
    for turn, stop in zip(TURNS, (ends[1], ends[3]), strict=True):
        answer = demo.tokenizer.encode(turn.answer, add_special_tokens=False)
        expected[stop - len(answer) : stop + 1] = [*answer, end]
    assert list(sample.sequence.labels) == expected


def test_every_byte_can_be_encoded(demo: Demo) -> None:
    text = "naïve 中文 \x00\t🙂 'S"
    assert demo.tokenizer.decode(demo.tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("size", [(96, 96), (200, 47), (384, 400), (31, 97)])
def test_the_overview_is_the_one_that_transformers_sees(demo: Demo, size: tuple[int, int]) -> None:
    """The first features of transformers' packed sequence are the overview's; ours are these and one newline."""
    model = build_model(demo.recipe, demo.tokenizer).eval()
    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    sample = encode_turns(demo.prompting, TURNS, Image.fromarray(noise))
    assert sample.tile is not None
    inputs = demo.processor(images=Image.fromarray(noise), text="<image>", return_tensors="pt")
    side = demo.recipe.tile.size // demo.recipe.tile.patch
    with torch.inference_mode():
        ours = overview_embeddings(model, sample.tile)[0]
        theirs = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output[0]
    assert len(ours) == side * side + 1
    torch.testing.assert_close(ours[:-1], theirs[: side * side], rtol=0, atol=1e-5)
    assert torch.equal(ours[-1], model.model.image_newline)


def test_padding_does_not_change_a_sample(demo: Demo) -> None:
    model = build_model(demo.recipe, demo.tokenizer).eval()
    random = np.random.default_rng(7)
    samples = [sample_overview(random, demo.prompting), sample_description(random, demo.prompting)]
    padding = demo.prompting.pad_token
    with torch.inference_mode():
        together, labels = answer_logits(model, collate(samples, padding))
        apart = [answer_logits(model, collate([sample], padding)) for sample in samples]
    assert torch.equal(labels, torch.cat([one[1] for one in apart]))
    torch.testing.assert_close(together, torch.cat([one[0] for one in apart]), rtol=1e-4, atol=1e-4)


def named_shapes(scene: Scene, words: list[str]) -> list[Any]:
    """The shapes that a question's words are about, by kind and colour where they are said."""
    kinds = {shape.kind for shape in scene.shapes} & set(words)
    colours = {shape.colour for shape in scene.shapes} & set(words)
    return [
        shape
        for shape in scene.shapes
        if (not kinds or shape.kind in kinds) and (not colours or shape.colour in colours)
    ]


def test_answers_follow_from_the_scene() -> None:
    asked = set()
    for seed in range(300):
        scene = sample_scene(np.random.default_rng(seed))
        heights = {bar.colour: bar.box[3] - bar.box[1] for bar in scene.bars}
        for turn in ask(scene, np.random.default_rng(seed)):
            asked.add(turn.type)
            words = turn.question.strip("?.").split()
            if turn.type == "read":
                assert turn.answer == scene.signs[0].text
            elif turn.type == "table":
                assert turn.answer == next(number for day, number in scene.tables[0].rows if day in words)
            elif turn.type == "count":
                things = [bar for bar in scene.bars if "bars" in words]
                shapes = [shape for shape in scene.shapes if f"{shape.kind}s" in words or "shapes" in words]
                assert turn.answer == str(len(things) + len(shapes))
            elif turn.type == "chart" and turn.answer in ("yes", "no"):
                one, other = (word for word in words if word in heights)
                assert turn.answer == ("yes" if heights[one] > heights[other] else "no")
            elif turn.type == "chart":
                best = max if {"tallest", "highest"} & set(words) else min
                assert turn.answer == best(heights, key=heights.__getitem__)
            elif turn.type in ("colour", "shape", "position"):
                found = {"colour": "colour", "shape": "kind", "position": "quadrant"}[turn.type]
                assert turn.answer in {getattr(shape, found) for shape in named_shapes(scene, words)}
    assert asked == {"read", "table", "count", "chart", "colour", "shape", "position", "yes/no"}


def test_yes_and_no_are_true_of_the_scene_and_about_as_frequent() -> None:
    kinds, answers = {"circle", "rectangle", "triangle", "star"}, []
    for seed in range(600):
        scene = sample_scene(np.random.default_rng(seed))
        for turn in ask(scene, np.random.default_rng(seed)):
            if turn.type != "yes/no":
                continue
            words = turn.question.strip("?").split()
            kind, colour = kinds & set(words), set(words) - kinds - {"shape"}
            there = any(
                (not kind or shape.kind in kind) and (shape.colour in colour or not colour & _COLOURS)
                for shape in scene.shapes
            )
            assert turn.answer == ("yes" if there else "no"), (turn, scene.shapes)
            answers.append(turn.answer)
    assert 0.4 < answers.count("yes") / len(answers) < 0.6


_COLOURS = {"red", "green", "blue", "yellow", "purple", "orange", "black", "brown", "gray", "teal"}


def test_a_description_says_everything_and_facts_say_no_more() -> None:
    for seed in range(100):
        scene = sample_scene(np.random.default_rng(seed))
        said, told = describe(scene), facts(scene, np.random.default_rng(seed))
        for shape in scene.shapes:
            assert f"{shape.colour} {shape.kind} is {shape.quadrant}." in said
            assert f"{shape.colour} {shape.kind} is {shape.quadrant}." in told
        for table in scene.tables:
            assert all(f"{day} {number}" in said and f"{day} has {number}" in told for day, number in table.rows)
        for bar in scene.bars:
            assert bar.colour in said
            assert f"The {bar.colour} bar is number" in told
        assert said.count(".") == max(1, len(scene.shapes) + len(scene.tables) + len(scene.signs)) + bool(scene.bars)


def test_conversations_have_several_turns_and_some_begin_with_a_description() -> None:
    talks = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        talks.append(converse(sample_scene(random), random))
    assert all(2 <= len(talk) <= 8 for talk in talks)
    described = sum(talk[0].type == "describe" for talk in talks)
    assert 50 < described < 110
    assert all(turn.type != "describe" for talk in talks for turn in talk[1:])
