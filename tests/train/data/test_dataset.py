"""Samples on disk: what is broken is said with its id; folder and tar agree; order and batches."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from llava_edge.runtime.errors import ImageError, OptionError
from llava_edge.runtime.pictures.geometry import Geometry
from llava_edge.runtime.prompts.conversations import SampleError
from llava_edge.train.data.dataset import Collator, Item, SampleDataset, cheapest_picture
from llava_edge.train.data.grouping import GroupedSampler, grouped_order
from llava_edge.train.data.picture_store import FolderStore, TarStore, open_picture, open_store
from llava_edge.train.data.sample_index import SampleIndex, data_fingerprint, index_samples
from llava_edge.train.data.sample_reader import SampleReader, open_sources
from llava_edge.train.data.sequences import IGNORED
from llava_edge.train.model.base import Base, read_base
from llava_edge.train.recipe import DataRecipe
from PIL import Image
from support.reference_training import PINPOINTS, small_base, write_samples
from torch.utils.data import DataLoader

GEOMETRY = Geometry(56, 14, PINPOINTS, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ARTICLE = Geometry(
    336, 14, ((672, 672), (336, 672), (672, 336), (336, 1008), (1008, 336)), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_samples(tmp_path, 6, text_only=2)
    return tmp_path


def pack(folder: Path) -> Path:
    with tarfile.open(folder / "images.tar", "w") as archive:
        archive.add(folder / "images", arcname=".")
    return folder / "images.tar"


def test_folder_and_tar_hold_the_same_pictures(data: Path) -> None:
    folder, archive = open_store(str(data / "images")), open_store(str(pack(data)))
    assert isinstance(folder, FolderStore)
    assert isinstance(archive, TarStore)
    for name in ("3.png", "0.png", "2.png"):
        assert open_picture(folder, name).digest == open_picture(archive, name).digest
    again = pickle.loads(pickle.dumps(archive))  # as a worker process gets it
    assert again.read("1.png") == (data / "images" / "1.png").read_bytes()
    again.close()
    archive.close()


def test_pictures_that_are_not_there(data: Path) -> None:
    for store in (open_store(str(data / "images")), open_store(str(pack(data)))):
        with pytest.raises(ImageError, match=r"none\.png"):
            store.read("none.png")
    with pytest.raises(ImageError, match="below the folder"):
        open_store(str(data / "images")).read("../samples.json")
    with pytest.raises(OptionError, match="a folder or a tar"):
        open_store(str(data / "none"))
    with pytest.raises(OptionError, match="an uncompressed tar"):
        open_store(str(data / "samples.json"))


def broken_data(folder: Path) -> list[dict[str, Any]]:
    samples = write_samples(folder, 6, text_only=2)
    samples[1]["image"] = "missing.png"
    samples[2]["conversations"][0]["value"] += "<image>"
    samples[4]["conversations"][0]["from"] = "robot"
    (folder / "images" / "3.png").write_bytes((folder / "images" / "3.png").read_bytes()[:20])
    (folder / "samples.json").write_text(json.dumps(samples))
    return samples


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Base:
    return read_base(base_folder, PINPOINTS)


def make_reader(base: Base, folder: Path, images: str = "images", **settings: Any) -> SampleReader:
    sources = open_sources([DataRecipe(str(folder / "samples.json"), str(folder / images))])
    defaults: dict[str, Any] = {"prompt": "chat", "sequence_length": 400, **settings}
    return SampleReader(sources, base.encoder, base.geometry, **defaults)


def make_dataset(base: Base, folder: Path, *, fatal: bool = True, **settings: Any) -> SampleDataset:
    reader = make_reader(base, folder, **settings)
    return SampleDataset(index_samples(reader, fatal=True, fingerprint=""), reader, fatal=fatal)


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_samples_are_skipped_or_fatal_by_choice(workers: int, tmp_path: Path, base: Base) -> None:
    broken_data(tmp_path)
    reader = make_reader(base, tmp_path)
    index = index_samples(reader, fatal=False, fingerprint="", workers=workers)
    assert [entry.position for entry in index.entries] == [0, 5]
    path = tmp_path / "samples.json"
    for number, line in zip((1, 2, 3, 4), index.broken, strict=True):
        assert f" in record {number} ('sample-{number}') of {path}; got " in line
    with pytest.raises(SampleError, match="sample-1"):
        index_samples(reader, fatal=True, fingerprint="", workers=workers)
    assert SampleIndex.from_json(index.to_json()) == index


def damage(path: Path) -> None:
    """Make the picture at ``path`` a JPEG whose second half is missing; the header is whole."""
    Image.effect_noise((90, 70), 80).save(path, format="JPEG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_a_picture_damaged_after_the_first_pass(data: Path, base: Base, capsys: pytest.CaptureFixture[str]) -> None:
    fatal, kept = make_dataset(base, data), make_dataset(base, data, fatal=False)
    damage(data / "images" / "2.png")
    with pytest.raises(SampleError, match="sample-2"):
        fatal[2]
    assert kept[2].ids == kept[3].ids
    assert "sample-2" in capsys.readouterr().err


def test_a_dataset_reaches_a_worker_process(data: Path, base: Base) -> None:
    dataset = make_dataset(base, data)
    again = pickle.loads(pickle.dumps(dataset))
    assert again[0].ids == dataset[0].ids


def error_of(action: Callable[[], object]) -> SampleError:
    """What ``action`` raises, without its frames: in a cycle with them a DataLoader's worker is waited for."""
    try:
        action()
    except SampleError as error:
        return error.with_traceback(None)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_sample_is_the_same_error_from_a_worker(workers: int, data: Path, base: Base) -> None:
    dataset = make_dataset(base, data)
    damage(data / "images" / "2.png")
    expected = error_of(lambda: dataset.read(2))
    got = error_of(lambda: list(DataLoader(dataset, batch_size=None, num_workers=workers)))
    assert str(got) == str(expected)
    assert len(str(got).splitlines()) == 1
    parts = [(error.sample, error.expected, error.got, error.fix) for error in (got, expected)]
    assert parts[0] == parts[1]
    assert parts[0][0] == f"record 2 ('sample-2') of {data / 'samples.json'}"


def refusing(base: Base) -> Base:
    spec = dataclasses.replace(base.encoder.spec, chat_template="{{ raise_exception('no such talk') }}")
    return dataclasses.replace(base, encoder=dataclasses.replace(base.encoder, spec=spec))


def test_a_conversation_that_the_template_refuses_is_named(data: Path, base: Base) -> None:
    with pytest.raises(SampleError, match=r"'sample-0'\) of .*; got .*no such talk"):
        make_dataset(refusing(base), data)[0]


def test_long_samples_are_cut_or_broken(data: Path, base: Base) -> None:
    whole = make_dataset(base, data)[0]
    limit = len(whole.ids) - 1
    reader = make_reader(base, data, sequence_length=limit)
    index = index_samples(reader, fatal=False, fingerprint="")
    assert SampleDataset(index, reader)[0].ids == whole.ids[:limit]
    with pytest.raises(SampleError, match="at most"):
        make_dataset(base, data, sequence_length=limit, cut_long=False)[0]


def test_lengths_are_the_real_ones(data: Path, base: Base) -> None:
    dataset = make_dataset(base, data)
    real = [len(dataset[position].ids) for position in range(len(dataset))]
    assert [entry.length for entry in dataset.entries] == real


def first_broken(base: Base, folder: Path, **settings: Any) -> str:
    """What the first pass says of a data set whose sample 1 is broken."""
    reader = make_reader(base, folder, **settings)
    index = index_samples(reader, fatal=False, fingerprint="")
    (line,) = index.broken
    assert "('sample-1') of " in line
    assert line.isprintable()
    dataset = SampleDataset(index, reader)
    for position in range(len(dataset)):
        dataset[position]  # what the pass took, training takes
    return line


def damaged_behind_the_header(path: Path) -> None:
    damage(path)


def heic(path: Path) -> None:
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def nothing_in_it(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [damaged_behind_the_header, heic, a_pipe, a_folder, nothing_in_it])
def test_the_first_pass_refuses_each_picture_that_training_would(
    spoil: Callable[[Path], None], data: Path, base: Base
) -> None:
    spoil(data / "images" / "1.png")
    assert "'1.png'" in first_broken(base, data)


def long_question(sample: dict[str, Any]) -> None:
    sample["conversations"][0]["value"] += " and this" * 400


def long_second_question(sample: dict[str, Any]) -> None:
    sample["conversations"] = [*sample["conversations"], *sample["conversations"]]
    sample["conversations"][0] = {"from": "human", "value": "long " * 400}


def picture_behind_the_end(sample: dict[str, Any]) -> None:
    question = sample["conversations"][0]
    sample["conversations"] = [
        {"from": "human", "value": "Hello."}, {"from": "gpt", "value": "Hi. " * 400}, question,
        {"from": "gpt", "value": "A cat."},
    ]  # fmt: skip


@pytest.mark.parametrize("lengthen", [long_question, long_second_question, picture_behind_the_end])
@pytest.mark.parametrize("prompt", ["chat", "plain"])
def test_the_first_pass_refuses_what_would_lose_every_answer_or_a_picture(
    prompt: str, lengthen: Callable[[dict[str, Any]], None], data: Path, base: Base
) -> None:
    samples = json.loads((data / "samples.json").read_text())
    lengthen(samples[1])
    (data / "samples.json").write_text(json.dumps(samples))
    if prompt == "chat":
        assert "pictures and an answer within 400 positions" in first_broken(base, data)
    else:  # a caption's prompt leaves the questions out
        make_dataset(base, data, prompt="plain")


def test_the_first_pass_refuses_what_the_template_does(data: Path, base: Base) -> None:
    with pytest.raises(SampleError, match="no such talk"):
        index_samples(make_reader(refusing(base), data), fatal=True, fingerprint="")


ACCENTED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"


def spelt(form: Literal["NFC", "NFD"]) -> str:
    return unicodedata.normalize(form, ACCENTED)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("sub\\1.png", "sub/1.png"),
        (".\\sub\\1.png", "sub/1.png"),
        ("./sub/1.png", "sub/1.png"),
        ("sub//1.png", "sub/1.png"),
        (spelt("NFC") + "/1.png", spelt("NFD") + "/1.png"),
        (spelt("NFD") + "/1.png", spelt("NFC") + "/1.png"),
        (f"{spelt('NFD')}\\{spelt('NFC')}.png", f"{spelt('NFC')}/{spelt('NFD')}.png"),
        ("odd\\name.png", "odd\\name.png"),
        ("a:b.png", "a:b.png"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_names_that_other_systems_wrote(written: str, stored: str, packed: bool, data: Path) -> None:
    images = data / "images"
    content = (images / "1.png").read_bytes()
    (images / stored).parent.mkdir(exist_ok=True)
    (images / stored).write_bytes(content)
    store = open_store(str(pack(data) if packed else images))
    assert store.read(written) == content
    store.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("..\\samples.json", "below the folder"),
        ("sub\\..\\..\\samples.json", "below the folder"),
        ("C:\\data\\1.png", "below the folder"),
        ("\\\\server\\1.png", "below the folder"),
        ("/etc/hosts", "below the folder"),
        ("https://example.org/1.png", "got the link 'https.*; fetch the picture"),
        ("data:image/png;base64,AAAA", "got the link 'data.*; fetch the picture"),
        ("1.png\0", "1.png"),
        ("1.PNG", "1.PNG"),
        ("x" * 5000, "xxx"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_names_that_lead_nowhere(name: str, said: str, packed: bool, data: Path) -> None:
    store = open_store(str(pack(data) if packed else data / "images"))
    with pytest.raises(ImageError, match=said) as caught:
        store.read(name)
    assert len(str(caught.value)) < 500
    store.close()


def test_a_member_that_is_a_link_to_another_is_that_one(data: Path) -> None:
    images = data / "images"
    os.link(images / "1.png", images / "z.png")
    store = open_store(str(pack(data)))
    assert store.read("z.png") == store.read("1.png") == (images / "1.png").read_bytes()
    store.close()


def test_fingerprint_follows_the_data(data: Path) -> None:
    recipe = [DataRecipe(str(data / "samples.json"), str(data / "images"))]
    before = data_fingerprint(recipe, GEOMETRY)
    assert data_fingerprint(recipe, GEOMETRY) == before
    (data / "samples.json").write_text("[]")
    assert data_fingerprint(recipe, GEOMETRY) != before


def test_order_is_grouped_complete_and_repeatable() -> None:
    random = np.random.default_rng(1)
    lengths = random.integers(1, 1000, 203).tolist()
    pictured = (random.random(203) < 0.7).tolist()
    order = grouped_order(lengths, pictured, batch=8, seed=1, epoch=0)
    assert sorted(order) == list(range(203))
    assert order == grouped_order(lengths, pictured, batch=8, seed=1, epoch=0)
    assert order != grouped_order(lengths, pictured, batch=8, seed=1, epoch=1)
    steps = [order[start : start + 8] for start in range(0, len(order) - 16, 8)]
    assert all(len({pictured[position] for position in step}) == 1 for step in steps)
    spread = np.mean([np.ptp([lengths[position] for position in step]) for step in steps])
    assert spread < 200  # 780 or so without grouping
    sampler = GroupedSampler(lengths, pictured, batch=8, seed=1)
    assert (list(sampler), len(sampler)) == (order, 203)
    sampler.set_epoch(1)
    assert list(sampler) != order


def test_a_batch_pads_at_the_end(data: Path, base: Base) -> None:
    dataset = make_dataset(base, data)
    collate = Collator(base.geometry, base.encoder.image_token, base.pad_token)
    items = [dataset[0], dataset[3], dataset[4]]  # the last one has no picture
    batch = collate(items)
    for row, item in enumerate(items):
        length = len(item.ids)
        assert batch["input_ids"][row, :length].tolist() == list(item.ids)
        assert batch["labels"][row, :length].tolist() == list(item.labels)
        assert batch["attention_mask"][row].sum() == length
        assert set(batch["labels"][row, length:].tolist()) <= {IGNORED}
    assert batch["pixel_values"].shape[0] == sum(len(item.tiles) for item in items if item.tiles is not None)
    assert batch["image_sizes"].tolist() == [list(size) for item in items for size in item.sizes]


def test_the_cheapest_picture() -> None:
    layout = cheapest_picture(ARTICLE)
    assert layout.tiles == 3
    assert layout.image_tokens < 576 + 100


def test_a_text_batch_has_the_loss_it_has_without_the_filler(base_folder: Path) -> None:
    from transformers import LlavaNextForConditionalGeneration

    base = read_base(base_folder, PINPOINTS)
    item = Item(tuple(range(20, 40)), (IGNORED,) * 10 + tuple(range(30, 40)), None, ())
    batch = Collator(base.geometry, base.encoder.image_token, base.pad_token)([item])
    assert (batch["input_ids"] == base.encoder.image_token).any()
    model = LlavaNextForConditionalGeneration.from_pretrained(base_folder, dtype=torch.float32)
    model.config.image_grid_pinpoints = [list(one) for one in PINPOINTS]
    alone = model(input_ids=torch.tensor([item.ids]), labels=torch.tensor([item.labels])).loss
    filled = model(**batch).loss
    assert torch.allclose(alone, filled, rtol=1e-6)
    filled.backward()
    assert model.model.multi_modal_projector.linear_1.weight.grad.abs().max() == 0  # there, and nothing
