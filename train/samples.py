"""Training sequences: a conversation as token ids and labels, with the tiles of its picture.

Labels are `IGNORED` everywhere but on the assistant's answers and the end-of-turn token after each, as in LLaVA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaNextProcessor, PreTrainedTokenizerFast

from .pictures import Scene, draw, sample_scale, sample_scene, sample_small_scene
from .questions import Turn, ask
from .tokenizer import BEGIN, END_HEADER, END_OF_TURN, IMAGE, START_HEADER

IGNORED: Final = -100  # the label that torch's cross-entropy leaves out


@dataclass(frozen=True)
class Picture:
    """What the tower gets of one picture: every tile, or the overview alone."""

    pixel_values: Tensor  # (tiles, 3, tile size, tile size); tile 0 is the overview
    size: tuple[int, int]  # height, width in pixels, as transformers has it
    tokens: int  # positions in the sequence


@dataclass(frozen=True)
class Sample:
    token_ids: list[int]
    labels: list[int]
    picture: Picture | None


def prepare_picture(processor: LlavaNextProcessor, image: Image.Image, *, overview_only: bool = False) -> Picture:
    """Tiles by transformers' own processor. The overview alone takes one position a feature and one for the newline."""
    inputs = processor(images=image, text=IMAGE, return_tensors="pt")
    height, width = inputs["image_sizes"][0].tolist()
    tiles: Tensor = inputs["pixel_values"][0]
    if overview_only:
        side = tiles.shape[-1] // processor.patch_size
        return Picture(tiles[:1], (height, width), side * side + 1)
    tokens = int((inputs["input_ids"] == processor.image_token_id).sum())
    return Picture(tiles, (height, width), tokens)


def conversation(
    tokenizer: PreTrainedTokenizerFast, turns: Sequence[Turn], picture: Picture | None, *, preface: str = ""
) -> Sample:
    """The chat template written out with labels; the picture, or else `preface`, opens the first question."""
    token_ids, labels = _encode(tokenizer, BEGIN, learn=False)
    opening = preface if picture is None else IMAGE * picture.tokens + "\n"
    for index, turn in enumerate(turns):
        question = f"{opening if index == 0 else ''}{turn.question}{END_OF_TURN}"
        for text, learn in (
            (f"{START_HEADER}user{END_HEADER}\n\n{question}{START_HEADER}assistant{END_HEADER}\n\n", False),
            (f"{turn.answer}{END_OF_TURN}", True),
        ):
            more_ids, more_labels = _encode(tokenizer, text, learn=learn)
            token_ids, labels = token_ids + more_ids, labels + more_labels
    return Sample(token_ids, labels, picture)


def _encode(tokenizer: PreTrainedTokenizerFast, text: str, *, learn: bool) -> tuple[list[int], list[int]]:
    token_ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return token_ids, list(token_ids) if learn else [IGNORED] * len(token_ids)


def sample_picture(
    random: np.random.Generator, processor: LlavaNextProcessor, *, overview_share: float = 0.0
) -> Sample:
    """A fresh picture and a conversation about it; a share of the pictures is seen by its overview alone."""
    scene = sample_scene(random, random_text=0.3)
    image = draw(scene, scale=sample_scale(random))
    picture = prepare_picture(processor, image, overview_only=random.random() < overview_share)
    return conversation(processor.tokenizer, ask(scene, random), picture)


def sample_small_picture(random: np.random.Generator, processor: LlavaNextProcessor) -> Sample:
    """A small picture in one tile and a conversation about it: few places to look, so looking is learnt fast."""
    scene = sample_small_scene(random, processor.image_processor.crop_size.height)
    picture = prepare_picture(processor, draw(scene, scale=sample_scale(random)), overview_only=True)
    return conversation(processor.tokenizer, ask(scene, random), picture)


def sample_description(random: np.random.Generator, processor: LlavaNextProcessor) -> Sample:
    """The same conversation about a picture that is described in words instead of shown."""
    scene = sample_scene(random, random_text=0.3)
    return conversation(processor.tokenizer, ask(scene, random), None, preface=describe(scene, random) + "\n")


def describe(scene: Scene, random: np.random.Generator) -> str:
    """What is in a scene, one sentence a thing, in random order."""
    sentences = [f"A {shape.colour} {shape.kind} is {shape.quadrant}." for shape in scene.shapes]
    sentences += [f"A sign says {sign.text}." for sign in scene.signs]
    return " ".join(sentences[int(index)] for index in random.permutation(len(sentences)))


@dataclass(frozen=True)
class Batch:
    """Samples padded on the right: causal attention never looks there, so no mask is needed."""

    token_ids: Tensor  # (samples, T)
    labels: Tensor  # (samples, T)
    pictures: tuple[Picture, ...]  # in the order of their samples


def collate(samples: Sequence[Sample], padding_id: int) -> Batch:
    length = max(len(sample.token_ids) for sample in samples)
    token_ids = torch.full((len(samples), length), padding_id)
    labels = torch.full((len(samples), length), IGNORED)
    for row, sample in enumerate(samples):
        token_ids[row, : len(sample.token_ids)] = torch.tensor(sample.token_ids)
        labels[row, : len(sample.labels)] = torch.tensor(sample.labels)
    return Batch(token_ids, labels, tuple(sample.picture for sample in samples if sample.picture is not None))
