"""The importance matrix of a bundle: its own language model run on calibration data, pictures and all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime.engine.engine import Engine
from ...runtime.errors import OptionError
from ...runtime.language.llm import Llm
from ...runtime.model import Model, load
from ...runtime.prompts.conversations import Conversation
from ...runtime.prompts.prompt import Prompt
from ...runtime.prompts.segments import ImageSegment, TextSegment
from .activations import ActivationSums
from .matrix import ImportanceMatrix

CHUNK = 512
"""Positions computed at once, and tokens of a chunk of plain text: what ``llama-imatrix`` takes."""


@dataclass(frozen=True)
class Collected:
    """A matrix, and on how much it was computed."""

    matrix: ImportanceMatrix
    prompts: int
    pictures: int
    image_positions: int
    positions: int


def collect(
    bundle: Path,
    prompts: Callable[[Model], Iterable[Prompt]],
    *,
    dataset: str,
    threads: int = 0,
) -> Collected:
    """Compute ``prompts`` with the bundle at ``bundle`` and add up the squares of all activations.

    ``prompts`` makes them for the loaded model. Every position counts, of pictures and of text; in
    the last layer's feed-forward and in the output only those of text do, because the others
    lead to no logits. Raises what ``load`` raises, NativeError, and OptionError where no prompt fits.
    """
    with load(bundle, repack=False, batch=CHUNK, micro_batch=CHUNK, images_kept=0, threads=threads) as model:
        sums = ActivationSums()
        assert isinstance(model.engine.llm, Llm)  # in this process: its native side calls back
        model.engine.llm.watch(sums.callback)
        counts = [0, 0, 0, 0]
        for prompt in prompts(model):
            images = [len(segment) for segment in prompt.segments if isinstance(segment, ImageSegment)]
            total = len(prompt)
            if total > model.context_limit:
                continue
            _compute(model.engine, prompt)
            sums.check()
            counts = [old + new for old, new in zip(counts, (1, len(images), sum(images), total), strict=True)]
    if not counts[0]:
        raise OptionError(
            expected="a conversation that fits the model's context", got="none", fix="give shorter calibration data"
        )
    chunks = -(-counts[3] // CHUNK)
    return Collected(ImportanceMatrix(sums.entries(), (dataset,), chunks, CHUNK), *counts)


def conversation_prompts(model: Model, conversations: Sequence[Conversation]) -> Iterator[Prompt]:
    """Each conversation as the runtime would see it with its answers given, pictures encoded one by one."""
    for conversation in conversations:
        encoded = [model.encode_image(path) for path in conversation.images]
        yield model.engine.prompt(conversation.messages, encoded, answering=False)


def text_prompts(model: Model, text: str) -> Iterator[Prompt]:
    """Plain text in chunks, each beginning as the tokenizer begins a text."""
    spec = model.manifest.template
    begin = [spec.special_tokens[spec.bos_token]] if spec.add_bos else []
    tokens = model.engine.llm.tokenize(text)
    room = min(CHUNK, model.context_limit) - len(begin)
    for start in range(0, len(tokens), room):
        yield Prompt((TextSegment((*begin, *tokens[start : start + room])),))


def _compute(engine: Engine, prompt: Prompt) -> None:
    """Run all segments from an empty cache, asking for the logits of every text position."""
    llm, position = engine.llm, 0
    engine.cache.clear()
    llm.ensure_context(len(prompt))
    for segment in prompt.segments:
        for start in range(0, len(segment), CHUNK):
            stop = min(start + CHUNK, len(segment))
            if isinstance(segment, TextSegment):
                llm.decode_tokens(segment.tokens[start:stop], position + start, logits=True, every=True)
            else:
                llm.decode_embeddings(prompt.rows[segment.digest][start:stop], position + start)
        position += len(segment)
    llm.truncate(0)
