"""Accuracy of a checkpoint in PyTorch, f32, by question type, with the tiles or with the overview alone.

Run with `python -m llava_edge.train.evaluate CHECKPOINT benchmark/demo_heldout`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration, LlavaNextProcessor

from .loop import answer_logits
from .questions import Turn
from .samples import IGNORED, Sample, collate, conversation, prepare_picture

BATCH: Final = 20


def accuracy(checkpoint: Path, heldout: Path, *, overview_only: bool = False) -> dict[str, float]:
    """Share of right answers by question type.

    An answer is right when greedy decoding would give exactly it: then, and only then, every one of its tokens and the
    end of turn after it have the highest logit given the tokens before, which one forward pass shows.
    """
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = LlavaNextForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    records = json.loads((heldout / "questions.json").read_text(encoding="utf-8"))
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        samples = [_sample(processor, record, heldout, overview_only=overview_only) for record in batch]
        for record, verdict in zip(batch, greedy_right(model, processor, samples), strict=True):
            right[record["type"]].append(verdict)
    return {name: sum(verdicts) / len(verdicts) for name, verdicts in sorted(right.items())}


def _sample(processor: LlavaNextProcessor, record: dict[str, Any], heldout: Path, *, overview_only: bool) -> Sample:
    question, answer = (turn["value"] for turn in record["conversations"])
    with Image.open(heldout / record["image"]) as image:
        picture = prepare_picture(processor, image.convert("RGB"), overview_only=overview_only)
    turn = Turn(record["type"], question.removeprefix("<image>\n"), answer)
    return conversation(processor.tokenizer, [turn], picture)


@torch.inference_mode()
def greedy_right(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, samples: Sequence[Sample]
) -> list[bool]:
    """Whether greedy decoding answers each sample's one question exactly."""
    logits, labels = answer_logits(model, collate(samples, processor.tokenizer.pad_token_id))
    lengths = [sum(label != IGNORED for label in sample.labels) for sample in samples]
    return [bool(hits.all()) for hits in torch.split(logits.argmax(-1) == labels, lengths)]


def main() -> None:
    parser = argparse.ArgumentParser(description=accuracy.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("heldout", type=Path)
    arguments = parser.parse_args()
    tiles = accuracy(arguments.checkpoint, arguments.heldout)
    overview = accuracy(arguments.checkpoint, arguments.heldout, overview_only=True)
    records = json.loads((arguments.heldout / "questions.json").read_text(encoding="utf-8"))
    print(f"{'type':10} {'questions':>9} {'tiles':>7} {'overview':>9} {'chance':>7}")
    for name in tiles:
        asked = [record for record in records if record["type"] == name]
        chance = 1 / len(asked[0]["answers"])
        print(f"{name:10} {len(asked):9d} {tiles[name]:7.1%} {overview[name]:9.1%} {chance:7.1%}")


if __name__ == "__main__":
    main()
