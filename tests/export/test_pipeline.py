"""Checkpoint in, verified bundle out, or one line and nothing left behind."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.export import pipeline
from llava_edge.export.language import gguf_file as llm
from llava_edge.export.pipeline import export_checkpoint
from llava_edge.export.verification import rungs
from llava_edge.export.verification.rungs import check_rungs
from llava_edge.runtime.bundle import disk_space, work_folder
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.bundle.disk_space import DiskNeed
from llava_edge.runtime.errors import CheckpointError, OptionError, StorageError
from llava_edge.runtime.parity import measure
from llava_edge.runtime.pictures.tiles import lay_out
from safetensors.torch import load_file, save_file
from support.checkpoints import FAMILIES, LAYOUTS, make_checkpoint

pytestmark = pytest.mark.slow

QUICK = [("llama3", "transformers"), ("vicuna", "original")]
REST = [(family, layout) for family in FAMILIES for layout in LAYOUTS if (family, layout) not in QUICK]


def exports_and_verifies(folder: Path, destination: Path) -> Bundle:
    manifest = export_checkpoint(str(folder), destination)
    bundle = Bundle.open(destination, hash_all=True)
    assert bundle.manifest == manifest
    measured = manifest.parity.measured
    assert measured["tiles"] == measured["prompt_ids"] == measured["argmax"] == 1.0
    assert measured["pixels"] <= 1e-6
    assert max(measured["features"], measured["embeddings"]) <= 1e-5
    assert measured["logits_kl"] <= 1e-4
    assert measured["greedy"] >= measured["greedy_expected"]
    return bundle


@pytest.mark.parametrize(("family", "layout"), QUICK)
def test_export(family: str, layout: str, tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    folder = shared_checkpoint(family, layout)
    bundle = exports_and_verifies(folder, tmp_path / "bundle")
    assert {path.name for path in bundle.path.iterdir()} == {
        "manifest.json", "llm.gguf", "vision.onnx", "newline.npy", "parity.npz", "README.md",
    }  # fmt: skip
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    measured = bundle.manifest.parity.measured
    assert "| language model | f16" in card
    assert f"| first token, KL in nats | {measured['logits_kl']:.3g} |" in card
    assert str(folder.parent) not in card
    manifest = bundle.manifest
    assert (manifest.name, manifest.source.layout) == (folder.name, "original" if layout == "original" else layout)
    assert manifest.llm.recipe == "f16"
    assert manifest.vision.recipe == "f32"
    assert manifest.llm.dim == manifest.vision.dim == len(bundle.newline())
    state = load_file(folder / "model.safetensors")
    assert np.array_equal(bundle.newline(), state["model.image_newline"].float().numpy())


@pytest.mark.parametrize(("family", "layout"), REST)
def test_export_every_family_and_layout(
    family: str, layout: str, tmp_path: Path, shared_checkpoint: Callable[..., Path]
) -> None:
    exports_and_verifies(shared_checkpoint(family, layout), tmp_path / "bundle")


SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model", "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "image_size": 62,
    "hidden_size": 144, "intermediate_size": 200, "num_hidden_layers": 3,
}  # fmt: skip
FULL = {"vision_feature_select_strategy": "full"}
ONE_OF_THE_FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "granite": ("granite", {}),
    "siglip": ("llama3", {"vision": SIGLIP, "config": {**FULL, "vision_feature_layer": -1}}),
    "siglip, all but the last": ("qwen", {"vision": SIGLIP, "config": FULL}),
    "several layers of CLIP": ("mistral", {"config": {"vision_feature_layer": [-4, 1, -1]}}),
    "granite with CLIP": (
        "granite",
        {
            "vision": {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", "hidden_size": 128},
            "config": {"vision_feature_layer": [-2], "vision_feature_select_strategy": "default"},
        },
    ),
    "no biases in the connector": ("vicuna", {"config": {"multimodal_projector_bias": False}}),
}


@pytest.mark.parametrize("name", ONE_OF_THE_FAMILY)
def test_export_more_of_the_family(name: str, tmp_path: Path) -> None:
    family, settings = ONE_OF_THE_FAMILY[name]
    folder = make_checkpoint(tmp_path / "somebody's fine-tune", family, **settings)
    manifest = exports_and_verifies(folder, tmp_path / "bundle").manifest
    assert manifest.name == folder.name
    assert manifest.parity.measured["grids"] == 1.0
    assert manifest.vision.kind == ("siglip" if "siglip" in name or name == "granite" else "clip")


@pytest.mark.parametrize(
    ("layout", "reading", "expected"),
    [
        ("original", None, "original"),
        ("transformers", "original", "original"),
        ("original", "transformers", "transformers"),
    ],
)
def test_readings(
    layout: str, reading: Any, expected: str, tmp_path: Path, shared_checkpoint: Callable[..., Path]
) -> None:
    """A small picture's grid in the bundle: one column in the original reading, one row in transformers'."""
    manifest = export_checkpoint(str(shared_checkpoint("llama3", layout)), tmp_path / "bundle", reading=reading)
    assert manifest.reading == expected
    assert lay_out((50, 30), manifest.geometry).grid == ((2, 1) if expected == "original" else (1, 2))
    assert manifest.parity.measured["grids"] == manifest.parity.measured["tiles"] == 1.0
    raw = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    other = "transformers" if expected == "original" else "original"
    raw["geometry"]["pinpoints"] = [[width, height] for height, width in raw["geometry"]["pinpoints"]]
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(raw | {"reading": other}))
    assert measure(tmp_path / "bundle")["grids"] == 0.0


@pytest.mark.parametrize(("llm_type", "vision_type"), [("bf16", "f32"), ("f32", "f32"), ("f16", "f16")])
def test_export_types(llm_type: str, vision_type: str, tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    source = str(shared_checkpoint("qwen"))
    manifest = export_checkpoint(source, tmp_path / "bundle", llm_type=llm_type, vision_type=vision_type)
    assert (manifest.llm.recipe, manifest.vision.recipe) == (llm_type, vision_type)
    assert manifest.parity.measured["logits_kl"] < 5e-3


def test_without_verification(tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    stages: list[str] = []
    manifest = export_checkpoint(
        str(shared_checkpoint()),
        tmp_path / "bundle",
        verify=False,
        progress=lambda stage, done, total: stages.append(stage) if done == total else None,
    )
    assert manifest.parity.measured == {}
    assert "logprobs" not in Bundle.open(tmp_path / "bundle").parity_values()
    assert list(dict.fromkeys(stages)) == ["checkpoint", "language model", "vision", "reference"]


@pytest.mark.parametrize(("family", "layout"), [("qwen", "transformers"), ("llama3", "original")])
def test_export_of_a_tied_head(family: str, layout: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tied", family, layout, text={"tie_word_embeddings": True})
    exports_and_verifies(folder, tmp_path / "bundle")


def left_alone(folder: Path, before: set[Path]) -> None:
    assert set(folder.iterdir()) == before


def not_finite(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["model.multi_modal_projector.linear_2.weight"][0, 0] = float("inf")
    save_file(state, folder / "model.safetensors")


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def wrong_shape(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"
    state[name] = torch.zeros(3, 3)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize("damage", [not_finite, truncated, wrong_shape])
def test_a_damaged_checkpoint_leaves_nothing(damage: Callable[[Path], None], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    damage(folder)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError) as caught:
        export_checkpoint(str(folder), tmp_path / "out" / "bundle")
    assert "\n" not in str(caught.value)
    left_alone(tmp_path / "out", set())


def test_a_failed_rung_leaves_nothing(
    tmp_path: Path, shared_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rungs.FEATURES, "f32", 1e-9)
    with pytest.raises(CheckpointError, match="features within 1e-09"):
        export_checkpoint(str(shared_checkpoint()), tmp_path / "bundle")
    left_alone(tmp_path, set())


def test_a_wrong_permutation_fails_a_rung(
    tmp_path: Path, shared_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm, "_permuted", lambda tensor, name, settings: tensor)
    with pytest.raises(CheckpointError, match="logits_kl"):
        export_checkpoint(str(shared_checkpoint()), tmp_path / "bundle")


def test_a_full_disk(tmp_path: Path, shared_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(work_folder, "_finish", full)
    with pytest.raises(StorageError, match="free some space"):
        export_checkpoint(str(shared_checkpoint()), tmp_path / "bundle")
    left_alone(tmp_path, set())


def test_a_disk_that_is_too_small(
    tmp_path: Path, shared_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(StorageError, match=r"MB free at .*; got 1\.00 MB; free some space"):
        export_checkpoint(str(shared_checkpoint()), tmp_path / "bundle")
    left_alone(tmp_path, set())


@pytest.mark.parametrize(("llm_type", "vision_type"), [("f16", "f32"), ("bf16", "f16")])
def test_the_disk_needed(
    llm_type: str, vision_type: str, tmp_path: Path, shared_checkpoint: Callable[..., Path]
) -> None:
    """Said before anything is written: the language model's bytes exactly, the rest from above but not by much."""
    needs: list[DiskNeed] = []

    def hear(need: DiskNeed) -> None:
        assert not list(tmp_path.iterdir())
        needs.append(need)

    types = {"llm_type": llm_type, "vision_type": vision_type}
    manifest = export_checkpoint(
        str(shared_checkpoint()), tmp_path / "bundle", **types, split_size=10**6, verify=False, on_need=hear
    )
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "bundle").iterdir() if path.name != "README.md"}
    assert set(needs[0].files) == set(sizes)
    assert manifest.llm.file.startswith("llm-00001-of-")
    for name, size in sizes.items():
        if name.endswith(".gguf"):
            assert needs[0].files[name] == size
        else:
            assert size <= needs[0].files[name] <= size + 600_000


KILLED = """
import os, signal, sys
from pathlib import Path
import transformers.models.llava_next.modeling_llava_next  # once for all that are killed
from llava_edge.export import pipeline
from llava_edge.export.language import gguf_file
gguf_file.SLAB_NUMBERS = 30_000
encoded = gguf_file._encoded
def counted(*arguments):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return encoded(*arguments)
gguf_file._encoded = counted
for left in map(int, sys.argv[3:]):
    if not os.fork():
        pipeline.export_checkpoint(sys.argv[1], Path(sys.argv[2]), verify=False, split_size=10**6)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_killed_and_continued(tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    folder, destination = str(shared_checkpoint()), tmp_path / "bundle"
    command = [sys.executable, "-c", KILLED, folder, str(destination), "7", "30"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == [str(-signal.SIGKILL)] * 2, done.stderr
    left_alone(tmp_path, {tmp_path / ".bundle.partial"})
    heard: list[int] = []
    notes: list[str] = []
    needs: list[DiskNeed] = []
    manifest = export_checkpoint(
        folder,
        destination,
        verify=False,
        split_size=10**6,
        progress=lambda stage, done, total: heard.append(done) if stage == "language model" else None,
        on_need=needs.append,
        on_note=notes.append,
    )
    assert 0 < heard[0] <= needs[0].kept < heard[-1]
    assert len(notes) == 1
    whole = export_checkpoint(folder, tmp_path / "whole", verify=False, split_size=10**6)
    assert manifest.files == whole.files
    assert manifest == whole


def test_a_checkpoint_trained_on_is_another(tmp_path: Path) -> None:
    """Names and shapes are the same; what was written of the old numbers must not be continued."""
    folder = make_checkpoint(tmp_path / "c")
    keys = []
    for scale in (1, 2):
        state = {name: scale * tensor for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file(state, folder / "model.safetensors")
        plan = pipeline.make_plan(str(folder))
        keys.append(pipeline._work_key(plan, pipeline._lay_out_llm(plan, "f16", 10**9)))
    assert keys[0] != keys[1]


def test_an_existing_destination(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(StorageError):
        export_checkpoint("anything", tmp_path / "bundle")


@pytest.mark.parametrize("options", [{"llm_type": "q4_k_m"}, {"vision_type": "int8"}])
def test_types_of_other_commands(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="quantize"):
        export_checkpoint("anything", tmp_path / "bundle", **options)


GOOD = {
    "pixels": 0.0, "tiles": 1.0, "features": 1e-6, "embeddings": 1e-6, "prompt_ids": 1.0,
    "grids": 1.0, "argmax": 1.0, "logits_kl": 1e-6, "greedy": 32.0, "greedy_expected": 9.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        {"pixels": 1e-5}, {"tiles": 0.0}, {"grids": 0.0}, {"features": 1e-4}, {"embeddings": float("nan")},
        {"prompt_ids": 0.0}, {"argmax": 0.0}, {"logits_kl": 1e-3}, {"greedy": 8.0},
    ],
)  # fmt: skip
def test_every_rung_can_fail(bad: dict[str, float]) -> None:
    check_rungs(GOOD, llm_type="f16", vision_type="f32")
    with pytest.raises(CheckpointError):
        check_rungs(GOOD | bad, llm_type="f16", vision_type="f32")


@pytest.mark.parametrize(
    ("bad", "llm", "vision", "said"),
    [
        ({"tiles": 0.0}, "f32", "f32", "preprocessor_config.json"),
        ({"pixels": 1.0}, "f32", "f32", "preprocessor_config.json"),
        ({"prompt_ids": 0.0}, "f16", "f32", "chat template"),
        ({"features": 1.0}, "f32", "f16", "--vision f32"),
        ({"embeddings": float("nan")}, "f32", "f16", "--vision f32"),
        ({"logits_kl": float("nan")}, "f16", "f32", "--llm bf16"),
        ({"greedy": 8.0}, "f16", "f32", "--llm bf16"),
        ({"argmax": 0.0}, "f16", "f32", "--llm bf16"),
        ({"logits_kl": 1.0}, "bf16", "f32", "--llm f32"),
        ({"logits_kl": 1.0}, "f32", "f16", "--vision f32"),
        ({"features": 1.0}, "f32", "f32", ""),
        ({"logits_kl": 1.0}, "f32", "f32", ""),
    ],
)
def test_a_rung_that_fails_says_what_may_help(bad: dict[str, float], llm: str, vision: str, said: str) -> None:
    with pytest.raises(CheckpointError) as refused:
        check_rungs(GOOD | bad, llm_type=llm, vision_type=vision)
    assert said in refused.value.fix
    assert refused.value.fix.startswith("report this checkpoint") is not bool(said)
    assert refused.value.fix.endswith("nothing was written")


def test_rounder_types_have_wider_limits() -> None:
    check_rungs(GOOD | {"logits_kl": 1e-3, "greedy": 8.0}, llm_type="bf16", vision_type="f32")
    check_rungs(GOOD | {"features": 1e-3, "embeddings": 1e-3}, llm_type="f16", vision_type="f16")


def test_the_manifest_names_no_path_of_this_machine(tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    export_checkpoint(str(shared_checkpoint()), tmp_path / "bundle", verify=False)
    text = (tmp_path / "bundle" / "manifest.json").read_text()
    assert str(tmp_path.parent) not in text
    assert json.loads(text)["created_by"].startswith("llava-edge ")
    assert pipeline.LLM in text
