"""Copies planted among public photographs and among easy-VQA's pictures: all found, and nothing else."""

from __future__ import annotations

import importlib.resources
import json
from collections import Counter
from pathlib import Path

import pytest
from llava_edge.benchmark.copies.duplicates import find_copies
from llava_edge.benchmark.copies.overlap import overlap_with
from llava_edge.benchmark.copies.photographs import Photograph, Survey, survey
from llava_edge.runtime import load
from support.kept import Nowhere
from support.public_photographs import photographs, plant

pytestmark = pytest.mark.slow


def surveyed(folder: Path) -> Survey:
    """The folder as the demo model sees it."""
    with load() as model:
        return survey(
            folder,
            lambda picture: model.encode_image(picture, detail="low").embeddings[:-1].mean(axis=0),
            Nowhere(),
            identity="",
        )


def origin(photograph: Photograph) -> str:
    return photograph.name.split(".")[0].split("~")[0]


@pytest.mark.network
def test_planted_copies_are_found_and_no_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = photographs()
    planted = plant(tmp_path, files)
    found = surveyed(tmp_path)
    copies = find_copies(found.photographs)
    everything = found.photographs
    for one in copies.left_out:
        assert origin(everything[one.copy]) == origin(everything[one.kept])
    left = {everything[index].name for index in copies.kept}
    missed = Counter(kind for name, kind in planted.items() if any(one.startswith(name) for one in left))
    crops = 1 - missed["crop"] / len(files)
    with capsys.disabled():
        print(f" {crops:.0%} of {len(files)} crops of at least 80 % found, limit {copies.limit:.3f}", end="")
    assert not set(missed) - {"crop"}
    assert crops >= 0.9
    assert {origin(everything[index]) for index in copies.kept} == {name.split(".")[0] for name in files}
    near = {frozenset({origin(everything[pair.one]), origin(everything[pair.other])}) for pair in copies.borderline}
    assert frozenset({"motorcycle_left", "motorcycle_right"}) in near, "one scene from two places is for a person"


@pytest.mark.network
def test_overlap_finds_what_a_training_set_has_too(tmp_path: Path) -> None:
    """Half of the photographs are in the training set, each as another kind of copy."""
    files = dict(sorted(photographs().items())[:8])
    (tmp_path / "all").mkdir()
    plant(tmp_path / "all", files)
    training, ours = tmp_path / "training", tmp_path / "ours"
    training.mkdir()
    ours.mkdir()
    records = []
    for index, name in enumerate(files):
        (ours / name).write_bytes(files[name])
        if index % 2 == 0:
            kind = ("copy", "encoded", "half", "crop")[index // 2]
            (source,) = (tmp_path / "all").glob(f"{name.split('.')[0]}~{kind}.*")
            (training / f"{index}{source.suffix}").write_bytes(source.read_bytes())
            records.append({"image": f"{index}{source.suffix}", "conversations": []})

    (training / "train.json").write_text(json.dumps([*records, *records, {"image": "gone.jpg"}]))
    found = surveyed(ours).photographs
    overlap = overlap_with(training / "train.json", found, limit=0.25)
    assert (overlap.pictures, overlap.missing) == (4, 1)
    assert [found[one.photograph].name for one in overlap.found] == list(files)[::2]


def test_exact_copies_among_easy_vqa(tmp_path: Path) -> None:
    """Drawn shapes of few kinds: what is not an exact copy is one shape in nearly one place."""
    source = Path(str(importlib.resources.files("easy_vqa"))) / "data" / "test" / "images"
    names = sorted(one.name for one in source.glob("*.png"))[:24]
    for name in names:
        (tmp_path / name).write_bytes((source / name).read_bytes())
    for name in names[::6]:
        (tmp_path / f"{name[:-4]}~copy.png").write_bytes((source / name).read_bytes())
    found = surveyed(tmp_path).photographs
    copies = find_copies(found)
    by_pixels: dict[str, set[str]] = {}
    for one in found:
        by_pixels.setdefault(one.digest, set()).add(one.name)
    exact = {frozenset(names) for names in by_pixels.values() if len(names) > 1}
    told = {frozenset({found[one.copy].name, found[one.kept].name}) for one in copies.left_out if not one.difference}
    assert len(exact) == 4
    assert told == exact
    others = [one for one in copies.left_out if one.difference]
    assert all(one.difference < 0.1 for one in others)
    assert len(others) <= 2
