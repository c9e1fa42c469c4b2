"""The demo's data set for LLaVA's two stages, in the LLaVA format: pictures in a tar, conversations in JSON.

Most pictures are drawn by ``pictures``; the public easy-VQA training set is mixed in where its package is installed.
Its test questions are for measuring only (``llava-edge benchmark demo --easy-vqa``).
"""

from __future__ import annotations

import importlib.resources
import io
import json
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from ...runtime.errors import needing_extra
from ...runtime.system.storage import write_text, write_whole
from .pictures import draw, sample_scale, sample_scene
from .questions import Exchange, ask_for_description, converse
from .recipe import DrawnData

DATA_SEED = 5
"""Picture ``n`` is drawn from [recipe seed, this, n]; the held-out set has numbers of its own."""
CAPTIONS, CONVERSATIONS, PICTURES = "captions.json", "conversations.json", "pictures.tar"
EASY_VQA_TURNS = 3
"""A conversation: more would mostly repeat what has been said about the one shape."""

Record = dict[str, Any]


def write_data(folder: Path, data: DrawnData, *, seed: int) -> None:
    """Write the data set to ``folder``, whole or not at all; one that is there already is kept."""
    if (folder / CONVERSATIONS).is_file():
        return
    captions: list[Record] = []
    conversations: list[Record] = []

    def write(file: IO[bytes]) -> None:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for number in range(data.pictures):
                name, records = f"drawn/{number:06d}.png", _drawn(seed, number, tar)
                conversations.append(llava_record(f"drawn-{number}", name, records[0]))
                if number < data.captions:
                    captions.append(llava_record(f"caption-{number}", name, records[1]))
                if (number + 1) % 10000 == 0:
                    print(f"pictures {number + 1}/{data.pictures}", file=sys.stderr, flush=True)
            if data.easy_vqa:
                conversations.extend(_easy_vqa(seed, tar))

    write_whole(folder / PICTURES, write)
    write_text(folder / CAPTIONS, json.dumps(captions))
    write_text(folder / CONVERSATIONS, json.dumps(conversations))  # last: its presence says that all is there


def _drawn(seed: int, number: int, tar: tarfile.TarFile) -> tuple[list[Exchange], list[Exchange]]:
    """Draw one picture into the tar; its conversation, and its description alone."""
    random = np.random.default_rng([seed, DATA_SEED, number])
    scene = sample_scene(random, random_text=0.3)
    _add(tar, f"drawn/{number:06d}.png", draw(scene, scale=sample_scale(random)))
    return converse(scene, random), [ask_for_description(scene, random)]


def _add(tar: tarfile.TarFile, name: str, image: Image.Image) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    member = tarfile.TarInfo(name)
    member.size = buffer.tell()
    buffer.seek(0)
    tar.addfile(member, buffer)


def llava_record(identifier: str, image: str, exchanges: list[Exchange]) -> Record:
    """A conversation about one picture as LLaVA's JSON format has it."""
    conversations = []
    for index, exchange in enumerate(exchanges):
        opening = "<image>\n" if index == 0 else ""
        conversations.append({"from": "human", "value": opening + exchange.question})
        conversations.append({"from": "gpt", "value": exchange.answer})
    return {"id": identifier, "image": image, "conversations": conversations}


def _easy_vqa(seed: int, tar: tarfile.TarFile) -> Iterator[Record]:
    """The public training set: its pictures go into the tar, its questions into short conversations."""
    folder = easy_vqa_folder() / "train"
    random = np.random.default_rng([seed, DATA_SEED])
    questions: dict[int, list[Exchange]] = defaultdict(list)
    for question, answer, picture in json.loads((folder / "questions.json").read_text(encoding="utf-8")):
        questions[picture].append(Exchange("easy-vqa", question, answer))
    for picture, turns in questions.items():
        name = f"easy-vqa/{picture}.png"
        tar.add(folder / "images" / f"{picture}.png", name)
        order = [turns[int(index)] for index in random.permutation(len(turns))]
        for start in range(0, len(order), EASY_VQA_TURNS):
            yield llava_record(f"easy-vqa-{picture}-{start}", name, order[start : start + EASY_VQA_TURNS])


def easy_vqa_text() -> list[str]:
    """Questions and answers of the public training set."""
    records = json.loads((easy_vqa_folder() / "train" / "questions.json").read_text(encoding="utf-8"))
    return [text for question, answer, _ in records for text in (question, answer)]


def easy_vqa_folder() -> Path:
    """Where the installed package keeps its data. Raises :class:`MissingExtraError` without it."""
    with needing_extra("train"):
        return Path(str(importlib.resources.files("easy_vqa"))) / "data"
