"""Accuracy reports as a table of recipes, and reports that are none, or not about the same thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llava_edge.benchmark.regression import recipes as module
from llava_edge.benchmark.regression.recipes import recipes, table
from llava_edge.benchmark.regression.scores import read_scores
from llava_edge.runtime.errors import DataError

REFERENCE = {"name": "f16", "bytes": 100, "vision": "f32", "llm": "f16", "accuracy": 0.99}


def candidate(name: str, text: float | None, picture: float | None, llm: str = "q4_k_m") -> dict[str, Any]:
    whole = {"name": name, "bytes": 50, "vision": "int8", "llm": llm, "kl_mean": picture, "accuracy": 0.9}
    return whole | {"text": {"kl_mean": text, "accuracy": 0.4}}


def report(path: Path, *candidates: dict[str, Any], **other: Any) -> Path:
    found = {"reference": REFERENCE, "questions": 10, "pictures": 5, "bootstrap": {"seed": 1}} | other
    path.write_text(json.dumps(found | {"candidates": list(candidates)}))
    return path


def test_the_table_is_one_that_regress_reads(tmp_path: Path) -> None:
    a = report(tmp_path / "a.json", candidate("q4", 0.25, 1e-06), candidate("small, smaller", 0.125, 0.0625))
    b = report(tmp_path / "b.json", candidate("q4", 0.25, 1e-06), candidate("q8", 0.0, 0.0))
    (tmp_path / "t.csv").write_text(table(recipes([a, b])))
    read = read_scores(tmp_path / "t.csv")
    assert read.models == ("q4", "small, smaller", "q8")
    assert (read.text, read.benchmarks) == ((0.25, 0.125, 0.0), {"picture KL": (1e-06, 0.0625, 0.0)})
    assert read.parameters == (None,) * 3
    (tmp_path / "t.csv").write_text(table(recipes([a], "accuracy"), "accuracy"))
    read = read_scores(tmp_path / "t.csv")
    assert (read.text, read.benchmarks) == ((0.4, 0.4), {"picture accuracy": (0.9, 0.9)})


def test_two_bundles_of_one_name_are_told_apart(tmp_path: Path) -> None:
    a = report(tmp_path / "a.json", candidate("bundle", 0.5, 0.25), candidate("Bundle", 0.125, 0.0625, llm="q8_0"))
    (tmp_path / "t.csv").write_text(table(recipes([a])))
    assert read_scores(tmp_path / "t.csv").models == ("bundle (int8 + q4_k_m)", "Bundle (int8 + q8_0)")


@pytest.mark.parametrize(
    "other", [{"questions": 11}, {"pictures": 4}, {"bootstrap": None}, {"reference": REFERENCE | {"bytes": 101}}]
)
def test_reports_about_different_things_are_refused(other: dict[str, Any], tmp_path: Path) -> None:
    a = report(tmp_path / "a.json", candidate("q4", 0.25, 0.5))
    b = report(tmp_path / "b.json", candidate("q8", 0.25, 0.5), **other)
    with pytest.raises(DataError, match=r"the reference and the questions of .*a\.json in .*b\.json"):
        recipes([a, b])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "got no JSON"),
        ("{", "got no JSON"),
        ("[" * 100_000, "got no JSON"),
        ("\ud800".encode("utf-8", "surrogatepass"), "got no JSON"),
        ("[]", "got other JSON"),
        ("{}", "got JSON of nothing"),
        ('{"error": 1}', "got JSON of error"),
        ('{"reference": {}, "candidates": 7}', "got other JSON"),
        ('{"reference": {}, "candidates": [7]}', "got other JSON"),
        ('{"reference": {}, "candidates": [{"name": 7, "vision": "", "llm": ""}]}', "got other JSON"),
    ],
)
def test_what_is_no_report(content: str | bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said):
        recipes([path])


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "none", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match="check the path"):
            recipes([path])
    monkeypatch.setattr(module, "LARGEST_FILE", 20)
    with pytest.raises(DataError, match="got more than"):
        recipes([report(tmp_path / "a.json")])


def test_without_a_measurement_of_text(tmp_path: Path) -> None:
    older = candidate("q4", 0.5, 0.25)
    del older["text"]
    with pytest.raises(DataError, match=r"a measurement of q4 without pictures.*--text; answers that are kept"):
        recipes([report(tmp_path / "a.json", older)])
    (tmp_path / "b.json").write_text(json.dumps(json.loads((tmp_path / "a.json").read_text()) | {"pictures": 0}))
    with pytest.raises(DataError, match="no pictures to leave out"):
        recipes([tmp_path / "b.json"])
    for text, picture in ((None, 0.5), (0.5, None), (float("nan"), 0.5), (True, 0.5)):
        with pytest.raises(DataError, match="kl_mean of q4 with and without pictures"):
            recipes([report(tmp_path / "a.json", candidate("q4", text, picture))])
    unscored = candidate("q4", 0.5, 0.5) | {"accuracy": None}
    with pytest.raises(DataError, match="questions that are scored"):
        recipes([report(tmp_path / "a.json", unscored)], "accuracy")
