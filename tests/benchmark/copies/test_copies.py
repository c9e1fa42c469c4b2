"""Looks, differences, the limit and who stays, on drawn pictures whose kinship is known."""

from __future__ import annotations

import io
import itertools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.benchmark.copies.alignment import FAR, difference
from llava_edge.benchmark.copies.duplicates import LARGEST_LIMIT, Copies, centred, find_copies, histogram, limit_of
from llava_edge.benchmark.copies.looks import HASH_BITS, hash_distances, look_of
from llava_edge.benchmark.copies.overlap import overlap_with, training_pictures
from llava_edge.benchmark.copies.photographs import Photograph, picture_paths, survey
from llava_edge.benchmark.copies.sheet import THUMB, Cell, Row, contact_sheet
from llava_edge.runtime.errors import DataError
from PIL import Image
from support.kept import Nowhere
from support.public_photographs import cropped


def drawn(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """A picture with large and small things in it, as photographs have."""
    random = np.random.default_rng(seed)
    layers = np.zeros((size[1], size[0], 3), np.float32)
    for cells, strength in ((3, 90.0), (9, 60.0), (40, 30.0)):
        noise = random.standard_normal((cells, cells, 3)).astype(np.float32)
        channels = [Image.fromarray(noise[..., one]).resize(size, Image.Resampling.BICUBIC) for one in range(3)]
        layers += strength * np.stack([np.asarray(one) for one in channels], axis=2)
    return Image.fromarray(np.clip(layers + 128, 0, 255).astype(np.uint8))


def written(folder: Path, **pictures: Image.Image) -> tuple[Photograph, ...]:
    for name, image in pictures.items():
        image.save(folder / f"{name}.png")

    def describe(picture: Any) -> Any:
        return np.asarray(picture.image.resize((6, 6)), np.float32).ravel()

    return survey(folder, describe, Nowhere(), identity="").photographs


def names(copies: Copies, photographs: tuple[Photograph, ...]) -> set[tuple[str, str]]:
    return {(photographs[one.copy].name[:-4], photographs[one.kept].name[:-4]) for one in copies.left_out}


def encoded(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def test_hashes_against_one_cell_after_another() -> None:
    image = drawn(1)
    grey = np.asarray(image.convert("L").resize((17, 17), Image.Resampling.BOX)).astype(int)
    right = [grey[y, x + 1] > grey[y, x] for y in range(16) for x in range(16)]
    below = [grey[y + 1, x] > grey[y, x] for y in range(16) for x in range(16)]
    bits = np.unpackbits(look_of(image).bits)
    assert bits.tolist() == [int(one) for one in (*right, *below)]
    others = [look_of(drawn(seed)).bits for seed in range(4)]
    distances = hash_distances(others[0], np.stack(others))
    assert distances.tolist() == [int((np.unpackbits(one) != np.unpackbits(others[0])).sum()) for one in others]
    assert (distances[1:] > HASH_BITS / 4).all()


@pytest.mark.parametrize("share", [1.0, 0.95, 0.9, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_a_crop_is_near_whichever_way_round(share: float, seed: int) -> None:
    whole = drawn(seed)
    part = cropped(whole, share, np.random.default_rng(seed))
    half = encoded(part.resize((part.width // 2, part.height // 2), Image.Resampling.LANCZOS), 60)
    looks = [look_of(one) for one in (whole, half)]
    assert difference(*looks) < 0.15
    assert difference(*looks[::-1]) < 0.15


def test_a_smaller_crop_is_none() -> None:
    whole = drawn(5)
    assert difference(look_of(whole), look_of(cropped(whole, 0.5, np.random.default_rng(5)))) > LARGEST_LIMIT


def test_others_are_far() -> None:
    looks = [look_of(drawn(seed)) for seed in range(5)]
    for one, other in itertools.combinations(looks, 2):
        assert difference(one, other) > 1


def test_one_changed_place_makes_another_picture() -> None:
    """A form filled in differently: everywhere the same but in one place."""
    form = drawn(7)
    other = form.copy()
    other.paste(drawn(8).crop((0, 0, 40, 40)), (100, 60))
    squared = np.square(np.asarray(form, float) - np.asarray(other, float)).mean()
    assert squared < 0.1 * np.asarray(form, float).var()
    assert difference(look_of(form), look_of(other)) > LARGEST_LIMIT
    red, blue = (Image.new("RGB", (60, 60), colour) for colour in ((200, 30, 30), (30, 30, 200)))
    assert difference(look_of(red), look_of(blue)) == FAR
    assert difference(look_of(red), look_of(red.resize((90, 90)))) == 0


def test_the_limit_is_in_the_widest_gap() -> None:
    """On the logarithmic scale, above what copies have, and never beyond the largest."""
    made = [0.001, 0.002, 0.01]
    low = float(np.quantile(made, 0.95))
    assert limit_of(made, [0.001, 0.7, 0.9, 3.0]) == pytest.approx(math.sqrt(low * 0.7))
    assert limit_of(made, [0.001, 0.05, 0.9]) == pytest.approx(math.sqrt(0.05 * 0.9))
    assert limit_of([0.1], [3.0]) == LARGEST_LIMIT  # the middle of 0.1 and 1 would be 0.32
    assert low < limit_of(made, [0.05, 0.06, 0.07, 0.09, 0.12, 0.2, 0.3, 0.5, 0.7]) < 0.05
    assert limit_of([], []) <= LARGEST_LIMIT
    counted = histogram(made, [0.5, 0.5, 9.0])
    assert sum(own for _, _, own, _ in counted) == 3
    assert sum(found for *_, found in counted) == 3
    assert counted[-1][1] == pytest.approx(FAR)


def test_the_better_copy_stays(tmp_path: Path) -> None:
    large = drawn(1, (360, 270))
    half = large.resize((180, 135), Image.Resampling.LANCZOS)
    crop = cropped(large, 0.85, np.random.default_rng(0))
    photographs = written(tmp_path, half=half, crop=crop, z_large=large, other=drawn(2), another=drawn(3))
    (tmp_path / "larger.png").write_bytes((tmp_path / "z_large.png").read_bytes())
    photographs = written(tmp_path)
    copies = find_copies(photographs)
    assert names(copies, photographs) == {("half", "larger"), ("crop", "larger"), ("z_large", "larger")}
    whys = {photographs[one.copy].name: one.why for one in copies.left_out}
    assert whys == {"half.png": "near hash, another size", "crop.png": "a crop", "z_large.png": "equal pixels"}
    assert {photographs[one].name for one in copies.kept} == {"larger.png", "other.png", "another.png"}


def test_a_lossless_file_stays(tmp_path: Path) -> None:
    drawn(1).save(tmp_path / "b.png")
    Image.open(tmp_path / "b.png").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert (tmp_path / "a.jpg").stat().st_size > 0
    photographs = written(tmp_path, c=drawn(2))
    copies = find_copies(photographs)
    assert {photographs[one].name for one in copies.kept} == {"b.png", "c.png"}


def test_nothing_goes_without_a_copy_of_it_that_stays(tmp_path: Path) -> None:
    """A crop of a crop that a person holds to be another picture than the whole stays, though the middle one goes."""
    whole = drawn(4, (400, 300))
    middle = whole.crop((0, 0, 360, 270))
    smallest = middle.crop((30, 24, 360, 270))
    photographs = written(tmp_path, whole=whole, middle=middle, smallest=smallest, other=drawn(9))
    found = {one.name: one.look for one in photographs}
    assert difference(found["middle.png"], found["smallest.png"]) < 0.1
    copies = find_copies(photographs, decisions={frozenset({"whole.png", "smallest.png"}): False})
    assert names(copies, photographs) == {("middle", "whole")}


def test_a_person_decides(tmp_path: Path) -> None:
    base = drawn(1)
    changed = base.copy()
    changed.paste(Image.blend(base.crop((90, 60, 150, 120)), drawn(8).crop((0, 0, 60, 60)), 0.7), (90, 60))
    photographs = written(tmp_path, a=base, b=changed, c=drawn(2), d=drawn(3), e=encoded(drawn(3), 50))
    copies = find_copies(photographs)
    assert names(copies, photographs) == {("e", "d")} or names(copies, photographs) == {("d", "e")}
    said = {
        frozenset({"a.png", "b.png"}): True,
        frozenset({"d.png", "e.png"}): False,
        frozenset({"a.png", "c.png"}): True,
    }
    decided = find_copies(photographs, decisions=said)
    assert {one.why for one in decided.left_out} == {"said to be the same"}
    assert len(decided.left_out) == 2
    assert {photographs[one].name for one in decided.kept} >= {"d.png", "e.png"}
    assert not decided.borderline


def test_the_same_seed_gives_the_same(tmp_path: Path) -> None:
    photographs = written(tmp_path, **{f"p{seed}": drawn(seed) for seed in range(6)}, copy=encoded(drawn(2), 50))
    assert find_copies(photographs, seed=3) == find_copies(photographs, seed=3)


def test_centred_rows() -> None:
    rows = np.random.default_rng(0).normal(5, 1, (7, 4)).astype(np.float32)
    found = centred(rows)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(7), abs=1e-5)
    assert not centred(np.ones((3, 4), np.float32)).any()


def test_a_folder_is_walked(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.JPG", ".hidden.png", ".secret/d.png", "notes.txt", "out/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        drawn(0, (20, 20)).save(tmp_path / name, "PNG") if not name.endswith("txt") else (tmp_path / name).touch()
    found = [one.relative_to(tmp_path).as_posix() for one in picture_paths(tmp_path, (tmp_path / "out",))]
    assert found == ["a/c.JPG", "b.png"]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    seen = survey(tmp_path, lambda _: np.zeros(3, np.float32), Nowhere(), identity="")
    assert [one.name for one in seen.photographs] == ["a/c.JPG", "b.png", "out/e.png"]
    assert len(seen.unreadable) == 1
    assert "broken.png" in seen.unreadable[0]
    for folder in (tmp_path / "gone", tmp_path / "b.png", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError):
            picture_paths(folder)


def test_what_a_build_wrote_and_names_that_are_no_text(tmp_path: Path) -> None:
    for name in (b"a.png", b"caf\xe9.png", b"own/pictures/a.png", b"mine/a.png"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn(0, (20, 20)).save(path, "PNG")
    for name in ("questions.json", "card.md"):
        (tmp_path / "own" / name).write_text("[]")
    (tmp_path / "mine" / "questions.json").write_text("[]")
    seen = survey(tmp_path, lambda _: np.zeros(3, np.float32), Nowhere(), identity="")
    assert [one.name for one in seen.photographs] == ["a.png", "mine/a.png"]
    assert len(seen.unreadable) == 1
    assert "name in UTF-8" in seen.unreadable[0]
    assert seen.unreadable[0].encode().startswith(b"caf\\udce9.png")


def test_training_sets_that_can_not_be_compared(tmp_path: Path) -> None:
    ours = written(tmp_path, a=drawn(1))
    for content, words in (("[]", "list"), ('[{"conversations": []}]', "image"), ('[{"image": "gone.png"}]', "folder")):
        (tmp_path / "train.json").write_text(content)
        with pytest.raises(DataError, match=words):
            overlap_with(tmp_path / "train.json", ours, limit=0.2)
    (tmp_path / "train.json").write_text('[{"image": ["a.png", "a.png"]}, {"image": "a.png"}, 3]')
    assert training_pictures(tmp_path / "train.json")[1] == ["a.png"]
    assert [one.training for one in overlap_with(tmp_path / "train.json", ours, limit=0.2).found] == ["a.png"]


def test_sheets_hold_every_row() -> None:
    rows = [
        Row("two", (Cell(drawn(1), "one"), Cell(drawn(2), "other", framed=True))),
        Row("ü" * 300, (Cell(drawn(3), "x"),)),
    ]
    sheet = Image.open(io.BytesIO(contact_sheet(rows)))
    assert sheet.width >= 2 * THUMB
    assert sheet.height >= 2 * THUMB
    assert contact_sheet(rows) == contact_sheet(rows)
