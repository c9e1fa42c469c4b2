"""Samples of the demo's pretraining: conversations in the runtime's prompt, about pictures in one tile or in words.

Ids, labels and tiles come from the code that also serves LLaVA's two stages (``sequences``, the runtime's ``tiles``),
so what is learnt here is in the form that is asked for later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaNextProcessor

from ...runtime.pictures.geometry import Geometry
from ...runtime.pictures.tiles import lay_out, pixels_of
from ...runtime.prompts.conversations import Conversation
from ...runtime.prompts.template import TemplateMessage
from ..data.sequences import IGNORED, Encoder, TokenSequence, encode_chat
from ..model.prompt import plain_tokenizer, read_template_spec
from .model import build_geometry
from .pictures import Scene, draw, sample_scale, sample_scene, sample_small_scene
from .questions import Exchange, converse, facts
from .recipe import DemoRecipe

OVERVIEW_SHARE = 0.3
"""Share of the one-tile samples that show a whole picture squeezed into its overview instead of a small picture."""


@dataclass(frozen=True)
class Prompting:
    """What turns turns and pictures into the model's input; can be sent to a worker process."""

    encoder: Encoder
    geometry: Geometry
    pad_token: int


def build_prompting(recipe: DemoRecipe, processor: LlavaNextProcessor) -> Prompting:
    tokenizer = processor.tokenizer
    spec = read_template_spec(tokenizer, chat_template=processor.chat_template, image_token=processor.image_token)
    encoder = Encoder(spec, plain_tokenizer(tokenizer, spec), spec.special_tokens[processor.image_token])
    return Prompting(encoder, build_geometry(recipe), tokenizer.pad_token_id)


@dataclass(frozen=True)
class Sample:
    """Ids and labels; the overview tile, (1, 3, S, S), where there is a picture."""

    sequence: TokenSequence
    tile: Tensor | None = None


def encode_turns(
    prompting: Prompting, turns: Sequence[Exchange], image: Image.Image | None, preface: str = ""
) -> Sample:
    """A conversation about ``image``, seen by its overview alone; ``preface`` opens the first question."""
    messages = []
    for index, turn in enumerate(turns):
        opening, pictures = (preface, int(image is not None)) if index == 0 else ("", 0)
        messages.append(TemplateMessage("user", opening + turn.question, pictures))
        messages.append(TemplateMessage("assistant", turn.answer))
    conversation = Conversation("drawn", ("drawn",) if image else (), tuple(messages), "a drawn sample")
    if image is None:
        return Sample(encode_chat(prompting.encoder, conversation, []))
    layout = lay_out(image.size, prompting.geometry, overview_only=True)
    tile = torch.from_numpy(pixels_of(image, prompting.geometry, layout))
    return Sample(encode_chat(prompting.encoder, conversation, [layout.image_tokens]), tile)


def sample_overview(random: np.random.Generator, prompting: Prompting) -> Sample:
    """A picture in one tile, small or squeezed, and a conversation about it."""
    if random.random() < OVERVIEW_SHARE:
        scene = sample_scene(random)
    else:
        scene = sample_small_scene(random, prompting.geometry.image_size)
    return encode_turns(prompting, converse(scene, random), draw(scene, scale=sample_scale(random)))


def sample_description(random: np.random.Generator, prompting: Prompting) -> Sample:
    """A conversation about a picture that is described in words instead of shown."""
    scene: Scene = sample_scene(random, random_text=0.3)
    return encode_turns(prompting, converse(scene, random), None, preface=f"{facts(scene, random)}\n")


@dataclass(frozen=True)
class Batch:
    """Samples padded on the right: causal attention never looks there, so no mask is needed."""

    token_ids: Tensor
    """(samples, T)."""
    labels: Tensor
    """(samples, T)."""
    tiles: Tensor | None
    """(pictures, 3, S, S), one a picture, in the order of their samples."""


def collate(samples: Sequence[Sample], pad_token: int) -> Batch:
    length = max(len(sample.sequence.ids) for sample in samples)
    token_ids = torch.full((len(samples), length), pad_token)
    labels = torch.full((len(samples), length), IGNORED)
    for row, sample in enumerate(samples):
        token_ids[row, : len(sample.sequence.ids)] = torch.tensor(sample.sequence.ids)
        labels[row, : len(sample.sequence.labels)] = torch.tensor(sample.sequence.labels)
    tiles = [sample.tile for sample in samples if sample.tile is not None]
    return Batch(token_ids, labels, torch.cat(tiles) if tiles else None)
