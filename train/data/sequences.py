"""A conversation as token ids and labels, in the runtime's own prompt.

Ids come from the runtime's ``render`` and ``build_segments``. Labels are ``IGNORED`` but on each of
the assistant's turns and the control token that ends it. Where a turn begins is not searched for
in the text: it is where the runtime's prompt for that answer ends, which must be the beginning of
the whole conversation's ids, or the sample is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ...runtime.prompts.conversations import Conversation, SampleError
from ...runtime.prompts.prompt import Prompt
from ...runtime.prompts.segments import ImageSegment, Tokenize, build_segments
from ...runtime.prompts.template import Control, ImageSlot, Piece, Plain, TemplateMessage, render
from ...runtime.prompts.template_spec import TemplateSpec

IGNORED = -100
"""The label that torch's cross-entropy leaves out."""


@dataclass(frozen=True)
class Encoder:
    """What turns messages into ids: the runtime's template description and a plain tokenizer."""

    spec: TemplateSpec
    tokenize: Tokenize
    image_token: int
    """Id that stands at every position of a picture."""


@dataclass(frozen=True)
class TokenSequence:
    """Token ids and labels of one sample, both of one length; pictures' positions hold the image token."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


def encode_chat(encoder: Encoder, conversation: Conversation, image_tokens: Sequence[int]) -> TokenSequence:
    """Ids and labels of a conversation whose pictures take ``image_tokens`` positions each.

    Raises :class:`SampleError` where an answer can't be told from its prompt.
    """
    messages = conversation.messages
    ids = prompt_ids(encoder, messages, image_tokens, answering=False)
    labels = [IGNORED] * len(ids)
    stops = encoder.spec.stop_ids
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = prompt_ids(encoder, messages[:index], image_tokens, answering=True)
        start = len(prompt)
        if ids[:start] != prompt:
            raise SampleError(
                conversation.where,
                expected="a chat template that extends its own prompt",
                got=f"other ids in turn {index}",
            )
        end = next((place for place in range(start, len(ids)) if ids[place] in stops), None)
        if end is None:
            raise SampleError(
                conversation.where,
                expected="a chat template that ends each answer with a stop token",
                got="no such token",
            )
        labels[start : end + 1] = ids[start : end + 1]
    return TokenSequence(tuple(ids), tuple(labels))


def encode_plain(encoder: Encoder, conversation: Conversation, image_tokens: Sequence[int]) -> TokenSequence:
    """Stage 1's sequence: the pictures, then the caption and the end token, without chat markup.

    Only the caption and the end token carry labels; what the human asked is left out.
    """
    caption = "\n".join(message.text for message in conversation.messages if message.role == "assistant")
    spec = encoder.spec
    start: list[Piece] = [Control(spec.special_tokens[spec.bos_token], added=True)] if spec.add_bos else []
    pictures: list[Piece] = [ImageSlot() for _ in image_tokens]
    before = _flat(encoder, [*start, *pictures], image_tokens)
    answer = _flat(encoder, [*start, *pictures, Plain(caption)], image_tokens)[len(before) :]
    answer.append(spec.special_tokens[spec.eos_token])
    return TokenSequence(tuple(before + answer), tuple([IGNORED] * len(before) + answer))


def prompt_ids(
    encoder: Encoder, messages: Sequence[TemplateMessage], image_tokens: Sequence[int], *, answering: bool
) -> list[int]:
    """The runtime's ids of ``messages``, the image token at each position of a picture."""
    pieces = render(encoder.spec, messages, answering=answering)
    return _flat(encoder, pieces, image_tokens[: sum(message.images for message in messages)])


def _flat(encoder: Encoder, pieces: Sequence[Piece], image_tokens: Sequence[int]) -> list[int]:
    images = [ImageSegment(str(index), positions) for index, positions in enumerate(image_tokens)]
    segments = build_segments(pieces, images, spec=encoder.spec, tokenize=encoder.tokenize)
    return Prompt(tuple(segments)).ids(encoder.image_token)


def cut(sequence: TokenSequence, length: int, *, image_token: int, sample: str) -> TokenSequence:
    """The first ``length`` positions. Raises :class:`SampleError` where a picture or every answer would be lost."""
    if len(sequence.ids) <= length:
        return sequence
    shorter = dataclasses.replace(sequence, ids=sequence.ids[:length], labels=sequence.labels[:length])
    if image_token in sequence.ids[length:] or all(label == IGNORED for label in shorter.labels):
        raise SampleError(
            sample, expected=f"pictures and an answer within {length} positions", got=f"{len(sequence.ids)} positions"
        )
    return shorter
