"""What a row of each published data set means: the picture, the prompt, the answers and how they are scored.

Prompts are those of the lmms-eval tasks that LLaVA-NeXT was evaluated with (its default
``lmms_eval_specific_kwargs``); each function names its task.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .parquet import Row
from .questions import Metric, Question

LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."
FREE_FORM_TOKENS = 1024
"""Room for answers in free form; lmms-eval's tasks give 1024 to 4096."""


@dataclass(frozen=True)
class Published:
    """A data set as its hosts publish it. ``split`` is the one whose answers are public."""

    hub: str
    split: str
    columns: tuple[str, ...]
    question: Callable[[int, Row], Question]


def mmmu(index: int, row: Row) -> Question:
    """MMMU, as task ``mmmu_val``: pictures first, ``<image 1>`` in the text stays a name for one of them."""
    multiple = {"multiple-choice": True, "open": False}[row["question_type"]]
    choices = tuple(str(one) for one in ast.literal_eval(row["options"])) if multiple else ()
    asked = _text(row, "question")
    question = f"{asked}\n{_options(choices)}" if multiple else asked
    answers = _literal_list(row["answer"])
    return Question(
        id=_text(row, "id"),
        type=_subject(row["id"]),
        prompt=f"{question}\n\n{LETTER if multiple else SHORT}",
        images=tuple(_picture(row[name]) for name in _named_pictures(question)),
        answers=answers,
        metric="choice" if multiple else _number_or_exact(answers),
        choices=choices,
        max_tokens=128,
    )


def mathvista(index: int, row: Row) -> Question:
    """MathVista, as task ``mathvista_testmini_format``, scored without its answer-extracting model."""
    choices = tuple(row["choices"] or ())
    unit = f" (Unit: {row['unit']})" if row["unit"] else ""
    lines = [f"{_text(row, 'question')}{unit}", *([_options(choices)] if choices else []), _mathvista_hint(row)]
    listed = row["answer_type"] == "list"
    return Question(
        id=str(row["pid"]),
        type=(row["metadata"] or {}).get("task") or "mathvista",
        prompt="\n".join(lines),
        images=(_picture(row["decoded_image"]),),
        answers=(_letter(choices.index(row["answer"])) if choices else row["answer"],),
        metric="choice" if choices else "exact" if listed else "number",
        choices=choices,
        max_tokens=128,
    )


def ai2d(index: int, row: Row) -> Question:
    """AI2D, as task ``ai2d``: the answer is published as the option's index."""
    choices = tuple(row["options"])
    answer = int(row["answer"])
    if not 0 <= answer < len(choices):
        raise ValueError(f"answer {answer} of {len(choices)} options")
    return Question(
        id=str(index),
        type="ai2d",
        prompt=f"{_text(row, 'question')}\n{_options(choices)}\n{LETTER}",
        images=(_picture(row["image"]),),
        answers=(_letter(answer),),
        metric="choice",
        choices=choices,
        max_tokens=16,
    )


def realworldqa(index: int, row: Row) -> Question:
    """RealWorldQA, as task ``realworldqa``: options and instruction are part of the published question."""
    prompt = _text(row, "question").strip()
    answer = _text(row, "answer").strip()
    choices = _written_options(prompt)
    multiple = answer.upper() in [_letter(one) for one in range(len(choices))]
    return Question(
        id=str(index),
        type="multiple choice" if multiple else "short answer",
        prompt=prompt,
        images=(_picture(row["image"]),),
        answers=(answer.upper() if multiple else answer,),
        metric="choice" if multiple else _number_or_exact((answer,)),
        choices=choices if multiple else (),
        max_tokens=16,
    )


def llava_w(index: int, row: Row) -> Question:
    """LLaVA-Bench (In-the-Wild), as task ``llava_in_the_wild``. Captions are left out: our judge sees the picture."""
    return _free_form(
        str(row["question_id"]), row["category"], _text(row, "question"), row["image"], _text(row, "gpt_answer")
    )


def llava_wilder(index: int, row: Row) -> Question:
    """LLaVA-Bench (Wilder), as task ``llava_wilder_small``."""
    return _free_form(
        str(index), row.get("Category") or "llava-wilder", _text(row, "Question"), row["image"], _text(row, "Answer")
    )


PUBLISHED = {
    "mmmu": Published(
        "lmms-lab/MMMU", "validation", ("id", "question", "options", "image_1", "answer", "question_type"), mmmu
    ),
    "mathvista": Published(
        "AI4Math/MathVista",
        "testmini",
        ("pid", "question", "decoded_image", "choices", "unit", "precision", "answer", "answer_type", "metadata"),
        mathvista,
    ),
    "ai2d": Published("lmms-lab/ai2d", "test", ("question", "options", "answer", "image"), ai2d),
    "realworldqa": Published("lmms-lab/RealWorldQA", "test", ("image", "question", "answer"), realworldqa),
    "llava-w": Published(
        "lmms-lab/llava-bench-in-the-wild",
        "train",
        ("question_id", "question", "image", "category", "gpt_answer"),
        llava_w,
    ),
    "llava-wilder": Published("lmms-lab/LLaVA-Bench-Wilder", "test", ("image", "Question", "Answer"), llava_wilder),
}


def _free_form(name: str, kind: str, prompt: str, image: Any, reference: str) -> Question:
    return Question(name, kind, prompt, (_picture(image),), (reference,), "judged", max_tokens=FREE_FORM_TOKENS)


def _text(row: Row, name: str) -> str:
    """A column that has to hold words: None would be asked as "None"."""
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {value!r}")
    return value


def _options(choices: tuple[str, ...]) -> str:
    return "\n".join(f"{_letter(index)}. {choice}" for index, choice in enumerate(choices))


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _written_options(prompt: str) -> tuple[str, ...]:
    """Texts of the options that stand in a prompt as lines ``A. text``, as far as the letters run on."""
    found: list[str] = []
    for letter, text in re.findall(r"^\s*([A-Z])[.)]\s+(\S.*?)\s*$", prompt, re.MULTILINE):
        if letter == _letter(len(found)):
            found.append(text)
    return tuple(found)


def _named_pictures(question: str) -> list[str]:
    """Columns of the pictures that a question or its options name, ``image_1`` first."""
    return [f"image_{number}" for number in sorted(set(re.findall(r"<image (\d+)>", question)))]


def _picture(cell: Any) -> bytes:
    encoded = cell["bytes"] if isinstance(cell, dict) else cell
    if not isinstance(encoded, bytes) or not encoded:
        raise ValueError("no picture in it")
    return encoded


def _subject(name: str) -> str:
    """``validation_Art_Theory_12`` is about Art_Theory."""
    match = re.fullmatch(r"[^_]+_(.+)_\d+", name)
    return match[1] if match else "mmmu"


def _literal_list(answer: str) -> tuple[str, ...]:
    """MMMU writes several accepted answers as a Python list."""
    if answer.startswith("["):
        return tuple(str(one) for one in ast.literal_eval(answer))
    return (answer,)


def _number_or_exact(answers: tuple[str, ...]) -> Metric:
    try:
        [float(one.replace(",", "")) for one in answers]
    except ValueError:
        return "exact"
    return "number"


def _mathvista_hint(row: Row) -> str:
    kind = row["answer_type"]
    if row["choices"]:
        return LETTER
    if kind == "integer":
        return "Answer the question using a single integer number."
    if kind == "float":
        places = {1: "one decimal place", 2: "two decimal places"}[int(row["precision"])]
        return f"Answer the question using a single floating-point number with {places}."
    if kind == "list":
        return "Answer the question using a Python list."
    raise ValueError(f"answer_type {kind!r}")
