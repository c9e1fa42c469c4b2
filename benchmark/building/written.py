"""The folder that a build writes: pictures, questions, the card, contact sheets, and a task of lmms-eval."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...runtime.prompts.conversations import QUESTIONS_FILE
from ...runtime.system.storage import writing_folder
from ..copies.sheet import Cell, Row, contact_sheet
from .asked import PICTURES, Item
from .card import CARD, Chosen, Facts, card
from .choosing import cluster_sheet
from .clusters import Cluster

PAIRS, PAIR_SHEET, CLUSTER_SHEET, TASK = "pairs.json", "pairs.png", "clusters.png", "lmms-eval.yaml"
SHOWN_PAIRS = 24
"""Pairs on the contact sheet."""


def write_benchmark(output: Path, facts: Facts, items: Sequence[Item], clusters: Sequence[Cluster]) -> None:
    """Write the folder, whole or not at all. Raises StorageError."""
    photographs = {one.name: one for one in facts.photographs}
    with writing_folder(output) as folder:
        for name in facts.pictures:
            target = folder / PICTURES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(photographs[name].path.read_bytes())
        _write_json(folder / QUESTIONS_FILE, [_record(number, one) for number, one in enumerate(facts.chosen, start=1)])
        _write_text(folder / CARD, card(facts))
        (folder / CLUSTER_SHEET).write_bytes(cluster_sheet(clusters, items, photographs))
        _write_text(folder / TASK, lmms_eval_task(facts.name))
        if pairs := list(_pairs(facts)):
            _write_json(folder / PAIRS, pairs)
        if facts.copies.borderline:
            (folder / PAIR_SHEET).write_bytes(_pair_sheet(facts))


def _record(number: int, chosen: Chosen) -> dict[str, Any]:
    """A question in our folder format. Every record has every key: readers of tables want that."""
    item, more = chosen.item, chosen.item.more or {}
    asked = item.asked(Path())
    return {
        "id": f"{number:04d}",
        "image": f"{PICTURES}/{item.name}",
        "type": item.type,
        "metric": item.metric,
        "conversations": [
            {"from": "human", "value": f"<image>\n{item.question}"},
            {"from": "gpt", "value": item.answer},
        ],
        "accepted": list(map(str, more.get("accepted", ()))),
        "choices": list(map(str, more.get("choices", ()))),
        "max_tokens": asked.max_tokens,
        "confirmed": item.confirmed,
        "drafted_by": item.drafted_by,
        "blind": item.blind,
        "cluster": chosen.cluster,
    }


def _pairs(facts: Facts) -> Iterator[dict[str, Any]]:
    gone = {frozenset({one.copy, one.kept}) for one in facts.copies.left_out}
    decided = [one for one in facts.copies.pairs if one.told is not None and one not in facts.copies.borderline]
    for number, pair in enumerate([*facts.copies.borderline, *decided], start=1):
        yield {
            "number": number,
            "pictures": [facts.photographs[pair.one].name, facts.photographs[pair.other].name],
            "difference": round(pair.difference, 6),
            "taken_for": "copies" if frozenset({pair.one, pair.other}) in gone else "different pictures",
            "same": pair.told,
        }


def _pair_sheet(facts: Facts) -> bytes:
    rows = []
    for pair, said in zip(facts.copies.borderline[:SHOWN_PAIRS], _pairs(facts), strict=False):
        title = (
            f"{said['number']}: difference {pair.difference:.3f}, limit {facts.copies.limit:.3f}: {said['taken_for']}"
        )
        both = (facts.photographs[pair.one], facts.photographs[pair.other])
        rows.append(Row(title, tuple(Cell(one.look.small, f"{one.name} {one.size[0]}x{one.size[1]}") for one in both)))
    return contact_sheet(rows)


def lmms_eval_task(name: str) -> str:
    """A task of lmms-eval over the folder: run there, with ``--include_path .``."""
    task = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "own"
    place = "llava_edge.benchmark.lmms_eval_task"
    return (
        f"task: own_{task}\n"
        "dataset_path: json\n"
        f"dataset_kwargs:\n  data_files:\n    test: {QUESTIONS_FILE}\n"
        "test_split: test\n"
        "output_type: generate_until\n"
        f"process_docs: !function {place}.confirmed\n"
        f"doc_to_visual: !function {place}.pictures\n"
        f"doc_to_text: !function {place}.prompt\n"
        f"doc_to_target: !function {place}.target\n"
        f"process_results: !function {place}.results\n"
        "generation_kwargs:\n  max_new_tokens: 1024\n  temperature: 0\n  do_sample: false\n"
        "metric_list:\n  - metric: accuracy\n    aggregation: mean\n    higher_is_better: true\n"
        "metadata:\n  - version: 1.0\n"
    )


def _write_json(path: Path, value: object) -> None:
    _write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def _write_text(path: Path, text: str) -> None:
    """As UTF-8; what is none (in the folder's own name, say) as JSON would escape it."""
    path.write_bytes(text.encode("utf-8", "backslashreplace"))
