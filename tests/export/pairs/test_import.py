"""GGUF pairs become bundles: features and tokens against the checkpoint in transformers, whatever wrote the files."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.export.importing import import_pair
from llava_edge.export.pairs.kinds import open_pair
from llava_edge.export.pairs.language import read_language
from llava_edge.runtime import load
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.distances import relative_error
from llava_edge.runtime.errors import CheckpointError, OptionError, StorageError
from llava_edge.runtime.parity import QUESTION, measure
from llava_edge.runtime.pictures.built_in import built_in_picture
from llava_edge.runtime.pictures.tiles import lay_out
from llava_edge.runtime.prompts.family_templates import TEMPLATES
from llava_edge.runtime.prompts.template import TemplateMessage
from llava_edge.store.card import write_card
from support.projector_files import ProjectorFile

pytestmark = pytest.mark.slow

F16 = 2e-3
"""Relative error of features whose matrices were rounded to half precision on the way."""


@functools.cache
def reference(checkpoint: Path) -> tuple[Any, Any]:
    from transformers import LlavaNextForConditionalGeneration, LlavaNextImageProcessorPil

    model = LlavaNextForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    return model, LlavaNextImageProcessorPil.from_pretrained(checkpoint)


def feature_error(bundle: Path, checkpoint: Path) -> float:
    """Of the built-in picture's packed embeddings, which end in newlines, against transformers'."""
    model, processor = reference(checkpoint)
    with load(bundle) as ours:
        picture = built_in_picture(ours.manifest.geometry)
        batch = processor(picture, return_tensors="pt")
        with torch.no_grad():
            expected = model.get_image_features(batch["pixel_values"], batch["image_sizes"]).pooler_output[0].numpy()
        return relative_error(ours.encode_image(picture).embeddings, expected)


def files_of(exported: Any, family: str = "llama3") -> tuple[Path, Path]:
    """The same two that tests get who ask for no family."""
    return exported() if family == "llama3" else exported(family)  # type: ignore[no-any-return]


@pytest.fixture
def imports(exported: Any, tmp_path: Path) -> Callable[..., tuple[Path, list[str]]]:
    """Write a projector file beside the family's language model and import the two."""

    pair_of = functools.partial(files_of, exported)

    def make(file: ProjectorFile, family: str = "llama3", **options: Any) -> tuple[Path, list[str]]:
        checkpoint, bundle = pair_of(family)
        projector = file.write(checkpoint, tmp_path / "mmproj.gguf")
        notes: list[str] = []
        import_pair(bundle / "llm.gguf", projector, tmp_path / "bundle", on_note=notes.append, **options)
        return tmp_path / "bundle", notes

    return make


def with_texts(source: Path, target: Path, texts: dict[str, str]) -> Path:
    """A copy of a GGUF file with more texts in its head, one of them so long that the tensors keep their alignment."""

    def pair(key: str, text: str) -> bytes:
        name, value = key.encode(), text.encode()
        return struct.pack("<Q", len(name)) + name + struct.pack("<IQ", 8, len(value)) + value

    more = b"".join(pair(key, text) for key, text in texts.items())
    more += pair("test.room", " " * (-len(more + pair("test.room", "")) % 32))
    raw = source.read_bytes()
    count = struct.unpack_from("<Q", raw, 16)[0] + len(texts) + 1
    target.write_bytes(raw[:16] + struct.pack("<Q", count) + more + raw[24:])
    return target


def with_template(source: Path, target: Path, template: str) -> Path:
    """A copy of a GGUF file with a chat template in its head."""
    return with_texts(source, target, {"tokenizer.chat_template": template})


@pytest.mark.parametrize("family", ["llama3", "vicuna", "mistral", "qwen", "yi"])
def test_features_prompts_and_greedy_tokens(family: str, exported: Any, tmp_path: Path) -> None:
    """What transformers recorded of the checkpoint, from a pair whose language model carries the template."""
    checkpoint, own = files_of(exported, family)
    expected = Bundle.open(own)
    spec = expected.manifest.template
    llm = with_template(own / "llm.gguf", tmp_path / "llm.gguf", spec.chat_template)
    notes: list[str] = []
    file = ProjectorFile("legacy").write(checkpoint, tmp_path / "mmproj.gguf")
    ours = import_pair(llm, file, tmp_path / "bundle", vision_type="f32", on_note=notes.append).template
    assert notes == ["chat template: that of llm.gguf"]
    assert feature_error(tmp_path / "bundle", checkpoint) <= F16
    assert (ours.special_tokens, ours.stop_ids) == (spec.special_tokens, spec.stop_ids)
    assert (ours.add_bos, ours.eos_token, ours.content) == (spec.add_bos, spec.eos_token, spec.content)
    recorded = expected.parity_values()
    with load(tmp_path / "bundle") as model:
        picture = model.encode_image(built_in_picture(model.manifest.geometry))
        prompt = model.engine.prompt([TemplateMessage("user", QUESTION, 1)], [picture])
        assert prompt.ids(-1) == recorded["prompt_ids"].tolist()
        answer = model.ask(QUESTION, [picture], max_tokens=32)
    pairs = zip(answer.tokens, recorded["greedy"].tolist(), recorded["margins"].tolist(), strict=False)
    for index, (got, wanted, margin) in enumerate(pairs):
        if got != wanted:
            assert margin < 0.1, f"token {index}"
            assert index >= 3
            break


@pytest.mark.parametrize(
    ("family", "expected"),
    [("llama3", "llama3"), ("vicuna", "vicuna"), ("mistral", "mistral"), ("qwen", "chatml"), ("yi", "chatml-yi")],
)
def test_without_a_template_the_family_is_said(family: str, expected: str, exported: Any) -> None:
    checkpoint, own = files_of(exported, family)
    file = ProjectorFile().write(checkpoint, checkpoint.parent / "mmproj-named.gguf")
    language = read_language(open_pair(own / "llm.gguf", file))
    assert language.template.chat_template == TEMPLATES[expected]
    assert language.notes == (f"llm.gguf has no chat template; the family's is taken: {expected}",)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"general.license": "apache-2.0"}, "license: apache-2.0\n"),
        (
            {"general.license": "other", "general.license.name": "yi", "general.license.link": "https://example.org/l"},
            "license: other\nlicense_name: yi\nlicense_link: https://example.org/l\n",
        ),
        ({"general.license": "mit\nbase_model: someone/else"}, ""),
        ({}, ""),
    ],
)
def test_the_card_has_the_licence_of_the_language_model(
    texts: dict[str, str], expected: str, exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava_edge.export import importing

    def read_alone(opened: Any, folder: Path, *_: Any) -> Any:
        write_card(folder, Bundle.open(own).manifest, licence=opened.licence)

    checkpoint, own = exported()
    monkeypatch.setattr(importing, "_write", read_alone)
    llm = with_texts(own / "llm.gguf", tmp_path / "llm.gguf", texts)
    import_pair(llm, ProjectorFile().write(checkpoint, tmp_path / "mmproj.gguf"), tmp_path / "bundle")
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert expected in card
    assert "base_model" not in card
    assert ("not stated" in card) == (not expected)


def test_a_template_that_places_no_picture(exported: Any, tmp_path: Path) -> None:
    checkpoint, own = exported()
    file = ProjectorFile().write(checkpoint, tmp_path / "mmproj.gguf")
    llm = with_template(own / "llm.gguf", tmp_path / "llm.gguf", "{{ raise_exception('no') }}")
    language = read_language(open_pair(llm, file))
    assert language.template.chat_template == TEMPLATES["llama3"]
    assert "can't be used" in language.notes[0]


LEGACY = {
    "projector_type": "mlp",
    "vision.mm_projector_type": "mlp2x_gelu",
    "vision.image_aspect_ratio": "anyres",
    "vision.image_crop_resolution": 224,
    "vision.image_split_resolution": 224,
    "vision.mm_patch_merge_type": "spatial_unpad",
    "vision.projection_dim": 768,
}
"""What llama.cpp's older converter writes beside sizes; the two resolutions are those of no tile."""
FILES = {
    "legacy, all keys": ProjectorFile("legacy", keys=LEGACY, patches="f16"),
    "current names": ProjectorFile(),
    "float32": ProjectorFile(kind="f32"),
    "bfloat16": ProjectorFile(kind="bf16"),
    "the newer newline": ProjectorFile(newline="v.image_newline"),
    "legacy, one layer less said": ProjectorFile("legacy", said=1),
    "a whole tower by its norm": ProjectorFile(layers=3, post_norm=True),
    "a whole tower by its layer": ProjectorFile(layers=3, feature_layer=(2,)),
    "pinpoints filled up with zeros": ProjectorFile(
        keys={"vision.image_grid_pinpoints": [112, 112, 56, 112, 112, 56, 56, 168, 168, 56, 0, 0, 0, 0]}
    ),
    "no sizes": ProjectorFile(
        keys=dict.fromkeys(
            ["vision.image_size", "vision.patch_size", "vision.embedding_length", "vision.feed_forward_length",
             "vision.block_count", "vision.projection_dim", "projector_type"]
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_every_spelling_gives_the_same_features(case: str, imports: Any, exported: Any) -> None:
    bundle, notes = imports(FILES[case], verify=case == "current names")
    assert feature_error(bundle, exported()[0]) <= (8e-3 if case == "bfloat16" else F16)
    manifest = Bundle.open(bundle, hash_all=True).manifest
    assert (manifest.reading, manifest.source.layout, manifest.vision.recipe) == ("original", "gguf", "f16")
    assert manifest.geometry.pinpoints[1:3] == ((112, 56), (56, 112))  # [56, 112] is 56 wide
    if measured := manifest.parity.measured:
        assert measured["grids"] == measured["tiles"] == 1.0
        assert max(measured["features"], measured["embeddings"]) <= F16
    assert not any("does not say" in note for note in notes)


@pytest.mark.parametrize(("kind", "most"), [("q8_0", 0.02), ("q5_1", 0.15), ("q4_0", 0.3)])
def test_quantized_projectors(kind: str, most: float, imports: Any, exported: Any) -> None:
    """As good as the numbers in the file: measured on them the graph is exact, against the checkpoint it is near."""
    bundle, _ = imports(ProjectorFile("legacy", kind=kind), vision_type="f32")
    assert Bundle.open(bundle).manifest.parity.measured["features"] <= 1e-5
    assert feature_error(bundle, exported()[0]) <= most


def test_what_is_missing_is_said(imports: Any, exported: Any) -> None:
    missing = ["image_mean", "image_std", "attention.head_count", "attention.layer_norm_epsilon"]
    keys = dict.fromkeys([*(f"vision.{key}" for key in missing), "use_gelu"])
    bundle, notes = imports(ProjectorFile(keys={**keys, "vision.image_grid_pinpoints": None}))
    (note,) = [one for one in notes if "does not say" in one]
    assert all(key in note for key in (*missing, "use_gelu", "image_grid_pinpoints"))
    assert feature_error(bundle, exported()[0]) <= F16
    assert Bundle.open(bundle).manifest.geometry.pinpoints == ((112, 56), (56, 112), (112, 112), (56, 168), (168, 56))


@pytest.mark.parametrize(("reading", "grid"), [(None, (2, 1)), ("original", (2, 1)), ("transformers", (1, 2))])
def test_readings(reading: Any, grid: tuple[int, int], imports: Any) -> None:
    bundle, _ = imports(ProjectorFile(), reading=reading)
    assert lay_out((50, 30), Bundle.open(bundle).manifest.geometry).grid == grid
    assert measure(bundle)["grids"] == 1.0


def test_the_language_model_is_the_same_file(imports: Any, exported: Any) -> None:
    bundle, _ = imports(ProjectorFile())
    assert os.path.samefile(bundle / "llm.gguf", exported()[1] / "llm.gguf")
    assert {path.name for path in bundle.iterdir()} == {
        "manifest.json", "llm.gguf", "vision.onnx", "newline.npy", "parity.npz", "README.md",
    }  # fmt: skip


def test_another_disk_gets_a_copy(imports: Any, exported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Any, target: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    bundle, _ = imports(ProjectorFile(), verify=False)
    assert (bundle / "llm.gguf").read_bytes() == (exported()[1] / "llm.gguf").read_bytes()
    assert not os.path.samefile(bundle / "llm.gguf", exported()[1] / "llm.gguf")
    assert Bundle.open(bundle).manifest.parity.measured == {}


def test_a_split_quantized_language_model(exported: Any, tmp_path: Path) -> None:
    """Kept as it is: types, files and all."""
    from llava_edge.quantize.pipeline import quantize_bundle
    from llava_edge.runtime.planning.placement import Device
    from llava_edge.runtime.planning.planner import Request, make_plan
    from llava_edge.runtime.planning.shape_sources import folder_shape

    checkpoint, own = exported()
    quantize_bundle(own, tmp_path / "small", llm="q4_0", vision="keep", split_size=300_000)
    first = Bundle.open(tmp_path / "small").llm_path
    assert first.name.startswith("llm-00001-of-")
    projector = ProjectorFile().write(checkpoint, tmp_path / "mmproj.gguf")
    manifest = import_pair(first, projector, tmp_path / "bundle", verify=False)
    assert (manifest.llm.recipe, manifest.llm.file) == ("q4_0", first.name)
    with load(tmp_path / "bundle") as ours:
        assert ours.ask(QUESTION, [built_in_picture(manifest.geometry)], max_tokens=2).tokens
    path = tmp_path / "bundle" / "manifest.json"
    raw = json.loads(path.read_text())
    raw["llm"]["recipe"] = "q5_k_s"  # one that we do not write ourselves
    path.write_text(json.dumps(raw))
    host = Device("host", "cpu", 2**34, bandwidth=2e10, flops=2e11)
    assert make_plan(folder_shape(tmp_path / "bundle"), [host], Request()).fits


def test_one_layer_short_is_said(exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the family's own tower: 24 stored are run to 23, 23 whole, 22 as they are with a word about it."""
    from llava_edge.export.pairs import projector

    monkeypatch.setattr(projector, "CLIP_L_USED", 2)
    monkeypatch.setattr(projector, "CLIP_L_336", {**projector.CLIP_L_336, "hidden_size": 128})
    checkpoint, bundle = exported()
    for layers, short in ((3, False), (2, False), (1, True)):
        file = ProjectorFile(layers=layers).write(checkpoint, tmp_path / f"mmproj-{layers}.gguf")
        notes: list[str] = []
        import_pair(bundle / "llm.gguf", file, tmp_path / f"{layers}", verify=False, on_note=notes.append)
        assert any("1 of the 2 layers" in note for note in notes) == short
        assert (feature_error(tmp_path / f"{layers}", checkpoint) <= F16) != short


def test_the_seeded_checkpoints_projector(exported: Any, tmp_path: Path) -> None:
    """As ``benchmark.seeded.checkpoint --projector`` writes it: a whole tower, pinpoints as (width, height)."""
    from llava_edge.benchmark.contestants.mtmd_projector import write_checkpoint_projector

    checkpoint, own = exported()
    write_checkpoint_projector(checkpoint, tmp_path / "mmproj.gguf")
    llm = with_template(own / "llm.gguf", tmp_path / "llm.gguf", Bundle.open(own).manifest.template.chat_template)
    manifest = import_pair(llm, tmp_path / "mmproj.gguf", tmp_path / "bundle")
    assert feature_error(tmp_path / "bundle", checkpoint) <= F16
    theirs = Bundle.open(own).manifest.geometry
    assert dataclasses.replace(manifest.geometry, reading="transformers", mean=theirs.mean, std=theirs.std) == theirs
    assert np.allclose(manifest.geometry.mean, theirs.mean)
    with load(tmp_path / "bundle") as model:
        answer = model.ask(QUESTION, [built_in_picture(theirs)], max_tokens=32)
    with load(own) as model:
        assert answer.tokens[:8] == model.ask(QUESTION, [built_in_picture(theirs)], max_tokens=32).tokens[:8]


def test_what_can_not_be_written(exported: Any, tmp_path: Path) -> None:
    checkpoint, own = exported()
    file = ProjectorFile().write(checkpoint, tmp_path / "mmproj.gguf")
    with pytest.raises(OptionError, match="vision type"):
        import_pair(own / "llm.gguf", file, tmp_path / "b", vision_type="int8")
    with pytest.raises(OptionError, match="a reading among transformers, original"):
        import_pair(own / "llm.gguf", file, tmp_path / "b", reading="ours")  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="nothing at"):
        import_pair(own / "llm.gguf", file, own)
    broken = ProjectorFile(tensors={"mm.2.bias": np.full(256, np.nan, np.float32)})
    broken.write(checkpoint, tmp_path / "nan.gguf")
    with pytest.raises(CheckpointError, match="NaN"):
        import_pair(own / "llm.gguf", tmp_path / "nan.gguf", tmp_path / "b")
    assert {path.name for path in tmp_path.iterdir()} == {"mmproj.gguf", "nan.gguf"}
