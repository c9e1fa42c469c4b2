"""Small parquet files with the columns and column types that each data set is published with.

From the hub's cards: MMMU/MMMU, AI4Math/MathVista, lmms-lab/ai2d, lmms-lab/RealWorldQA,
lmms-lab/llava-bench-in-the-wild, lmms-lab/LLaVA-Bench-Wilder. The rows are made up.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow
from PIL import Image
from pyarrow import parquet

Row = dict[str, Any]


def png(color: int) -> bytes:
    """An encoded picture of one color."""
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), (color, 10, 20)).save(buffer, "PNG")
    return buffer.getvalue()


def cell(color: int) -> dict[str, Any]:
    return {"bytes": png(color), "path": None}


def mmmu_row(name: str, question: str, options: str, answer: str, pictures: dict[int, int]) -> Row:
    row: Row = {f"image_{one}": cell(pictures[one]) if one in pictures else None for one in range(1, 8)}
    kind = "open" if options == "[]" else "multiple-choice"
    row |= {"id": name, "question": question, "options": options, "answer": answer, "question_type": kind}
    return row | {"explanation": "", "img_type": "['Tables']", "topic_difficulty": "Easy", "subfield": "any"}


def mathvista_row(name: str, kind: str, answer: str, **more: Any) -> Row:
    row = {
        "pid": name,
        "question": f"Question {name}?",
        "image": f"images/{name}.jpg",
        "decoded_image": cell(int(name)),
    }
    row |= {"choices": None, "unit": None, "precision": None, "answer": answer, "answer_type": kind}
    row |= {"question_type": "multi_choice" if "choices" in more else "free_form", "query": "unused"}
    return row | {"metadata": {"task": "figure question answering", "split": "testmini"}} | more


ROWS: dict[str, list[Row]] = {
    "mmmu": [
        mmmu_row(
            "validation_Art_Theory_1", "Who made <image 1>?", "['A child', \"Nobody's <image 2>\"]", "B", {1: 1, 2: 2}
        ),
        mmmu_row("validation_Math_12", "In <image 1>, what is x?", "[]", "['24', '24.0']", {1: 3, 2: 4}),
        mmmu_row("validation_Math_13", "Name <image 1>.", "[]", "a cone", {1: 5}),
    ],
    "mathvista": [
        mathvista_row("1", "text", "large", choices=["small", "large"]),
        mathvista_row("2", "integer", "14", unit="$"),
        mathvista_row("3", "float", "0.6", precision=1.0),
        mathvista_row("4", "list", "[2007, 2008]"),
    ],
    "ai2d": [
        {"question": "Which comes first?", "options": ["egg", "larva", "pupa"], "answer": "2", "image": cell(7)},
        {"question": "Which comes last?", "options": ["egg", "fly"], "answer": "0", "image": cell(8)},
    ],
    "realworldqa": [
        {
            "image": cell(9),
            "question": " Where to?\n\nA. Left.\nB. Right.\nPlease answer directly with only the letter of the correct "
            "option and nothing else.\n",
            "answer": "B",
        },
        {"image": cell(10), "question": "How many cars? Answer with a number.", "answer": "3"},
        {"image": cell(11), "question": "Is it raining?", "answer": "Yes"},
    ],
    "llava-w": [
        {
            "question_id": 4,
            "question": "What is this?",
            "image": cell(12),
            "category": "conv",
            "image_id": "001.jpg",
            "gpt_answer": "A lake.",
            "caption": "a lake",
        }
    ],
    "llava-wilder": [{"Question": "Read it.", "Answer": "It says so.", "Category": "OCR", "image": cell(13)}],
}
FILES = {
    "mmmu": "Art_Theory/validation-00000-of-00001.parquet",
    "mathvista": "data/testmini-00000-of-00001-725687bf7a18d64b.parquet",
    "ai2d": "data/test-00000-of-00001.parquet",
    "realworldqa": "data/test-00000-of-00001.parquet",
    "llava-w": "data/train-00000-of-00001.parquet",
    "llava-wilder": "data/test-00000-of-00001.parquet",
}


def write_published(folder: Path, name: str, rows: list[Row] | None = None) -> Path:
    """Write ``rows`` (those above) of data set ``name`` under ``folder`` where its hosts have them; the file."""
    path = folder / FILES[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = ROWS[name] if rows is None else rows
    schema = pyarrow.schema({column: _type(name, column) for column in content[0]})
    parquet.write_table(pyarrow.Table.from_pylist(content, schema), path)
    return path


def _type(name: str, column: str) -> pyarrow.DataType:
    """A column's type in data set ``name``: a picture is its bytes and its file's name, as the hub stores it."""
    text = pyarrow.string()
    pictures = {
        "decoded_image",
        *(f"image_{index}" for index in range(1, 8)),
        *(["image"] if name != "mathvista" else []),
    }
    if column in pictures:
        return pyarrow.struct({"bytes": pyarrow.binary(), "path": text})
    special = {
        "precision": pyarrow.float64(),
        "question_id": pyarrow.int64(),
        "choices": pyarrow.list_(text),
        "metadata": pyarrow.struct({"task": text, "split": text}),
    }
    if name == "ai2d":
        special["options"] = pyarrow.list_(text)
    return special.get(column, text)
