"""Importance matrices: sums against transformers' own activations, and what the quantizer makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from llava_edge.quantize import pipeline
from llava_edge.quantize.importance import activations
from llava_edge.quantize.importance.calibration import read_conversations
from llava_edge.quantize.importance.collect import collect, conversation_prompts
from llava_edge.quantize.importance.matrix import read_imatrix
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.runtime import Bundle
from llava_edge.runtime.errors import DataError, OptionError, StorageError
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

pytestmark = pytest.mark.slow

TOLERANCE = 3e-3
"""Relative, by weight: llama.cpp keeps keys and values in half precision. Measured: 2e-4 at most."""
MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ANSWERS_ONLY = ("ffn_gate", "ffn_up", "ffn_down")
"""In the last layer these see the positions of text alone: the others lead to no logits."""
TALK = [
    {"from": "human", "value": "<image>\nWhat is in this picture?"},
    {"from": "gpt", "value": "A red square, and a dog."},
    {"from": "human", "value": "How many animals?"},
    {"from": "gpt", "value": "One."},
]


def write_data(folder: Path, turns: list[dict[str, str]], size: tuple[int, int] | None) -> Path:
    """One conversation in LLaVA's format, with a seeded picture of ``size`` where one is given."""
    folder.mkdir()
    record: dict[str, Any] = {"id": "0", "conversations": turns}
    if size is not None:
        low = np.random.default_rng(7).integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(low).resize(size, Image.Resampling.BICUBIC).save(folder / "a.png")
        record["image"] = "a.png"
    (folder / "talk.json").write_text(json.dumps([record]))
    return folder


@pytest.fixture
def with_picture(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", TALK, (130, 90))


def hooked_sums(checkpoint: Path, data: Path, turns: list[dict[str, str]]) -> dict[str, tuple[np.ndarray, int]]:
    """Sums of squared inputs of every linear layer and positions, by GGUF name: eager float32 transformers."""
    model = LlavaNextForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    messages = [
        {
            "role": {"human": "user", "gpt": "assistant"}[turn["from"]],
            "content": [
                *([{"type": "image"}] if "<image>" in turn["value"] else []),
                {"type": "text", "text": turn["value"].replace("<image>", "").strip()},
            ],
        }
        for turn in turns
    ]
    images = [Image.open(path) for path in sorted(data.glob("*.png"))]
    text = processor.apply_chat_template(messages)
    inputs = processor(text=text, images=images or None, return_tensors="pt", add_special_tokens=False)
    seen: dict[str, torch.Tensor] = {}
    layers = model.model.language_model.layers
    hooked = {"output.weight": model.lm_head} | {
        f"blk.{index}.{ours}.weight": layer.get_submodule(theirs)
        for index, layer in enumerate(layers)
        for ours, theirs in MODULES.items()
    }
    for name, module in hooked.items():
        module.register_forward_hook(lambda _, given, __, name=name: seen.update({name: given[0][0].double()}))
    with torch.no_grad():
        model(**inputs)
    is_text = inputs["input_ids"][0] != model.config.image_token_id
    last = tuple(f"blk.{len(layers) - 1}.{name}.weight" for name in ANSWERS_ONLY)
    rows = {name: value[is_text] if name in ("output.weight", *last) else value for name, value in seen.items()}
    return {name: ((value**2).sum(0).numpy(), len(value)) for name, value in rows.items()}


@pytest.mark.parametrize(("turns", "size"), [(TALK[2:], None), (TALK, (130, 90))], ids=["text", "picture"])
def test_sums_are_those_of_transformers_activations(
    turns: list[dict[str, str]], size: tuple[int, int] | None, exported: Any, tmp_path: Path
) -> None:
    checkpoint, bundle = exported()
    data = write_data(tmp_path / "data", turns, size)
    conversations = read_conversations(data, limit=0)
    collected = collect(bundle, lambda model: conversation_prompts(model, conversations), dataset="test", threads=1)
    expected = hooked_sums(checkpoint, data, turns)
    assert set(collected.matrix.entries) == set(expected)
    for name, (sums, positions) in expected.items():
        entry = collected.matrix.entries[name]
        assert entry.counts.tolist() == [positions], name
        error = np.linalg.norm(entry.sums[0] - sums) / np.linalg.norm(sums)
        assert error <= TOLERANCE, (name, error)
    assert collected.positions == expected["blk.0.attn_q.weight"][1]
    assert collected.image_positions == collected.positions - expected["output.weight"][1]
    assert (collected.pictures, collected.image_positions > 0) == ((1, True) if size else (0, False))


def weighted_error(quantized: Path, source: Path, importance: Any) -> float:
    """Sum of importance x (weight - quantized weight)² over all weights that the matrix covers."""
    tensors = [
        {one.name: gguf.dequantize(one.data, one.tensor_type) for one in gguf.GGUFReader(path).tensors}
        for path in (quantized, source)
    ]
    return sum(
        float((entry.importance() * (tensors[0][name] - tensors[1][name]) ** 2).sum())
        for name, entry in importance.items()
    )


@pytest.mark.parametrize("recipe", ["q4_k_m", "q5_k_m"])
def test_a_matrix_makes_another_file_of_the_same_size_that_errs_less(
    recipe: str, tiny_bundle: Path, with_picture: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "matrix.gguf"
    plain = quantize_bundle(tiny_bundle, tmp_path / "plain", llm=recipe, vision="keep")
    ours = quantize_bundle(
        tiny_bundle,
        tmp_path / "ours",
        llm=recipe,
        vision="keep",
        imatrix=f"calibrate:{with_picture}",
        save_imatrix=kept,
    )
    again = quantize_bundle(tiny_bundle, tmp_path / "again", llm=recipe, vision="keep", imatrix=str(kept))
    files = [tmp_path / name / "llm.gguf" for name in ("plain", "ours", "again")]
    assert files[0].stat().st_size == files[1].stat().st_size
    assert files[0].read_bytes() != files[1].read_bytes() == files[2].read_bytes()
    matrix = read_imatrix(kept)
    errors = [weighted_error(path, tiny_bundle / "llm.gguf", matrix.entries) for path in files]
    assert errors[1] < 0.97 * errors[0]
    assert plain.llm.importance is None
    assert ours.llm.importance is not None
    assert again.llm.importance is not None
    assert (ours.llm.importance.source, again.llm.importance.source) == ("pictures", "file")
    assert ours.llm.importance.data == "data"
    assert (ours.llm.importance.prompts, ours.llm.importance.pictures) == (1, 1)
    assert Bundle.open(tmp_path / "ours").manifest == ours


def test_the_fingerprint_is_of_words_and_pixels(tiny_bundle: Path, tmp_path: Path) -> None:
    def fingerprint(folder: str, turns: list[dict[str, str]], size: tuple[int, int]) -> str:
        data = write_data(tmp_path / folder, turns, size)
        manifest = quantize_bundle(
            tiny_bundle, tmp_path / f"{folder}-q", llm="q8_0", vision="keep", imatrix=f"calibrate:{data}"
        )
        assert manifest.llm.importance is not None
        return manifest.llm.importance.fingerprint

    first = fingerprint("a", TALK, (60, 60))
    assert fingerprint("b", TALK, (60, 60)) == first
    assert fingerprint("c", TALK, (61, 60)) != first
    assert fingerprint("d", TALK[:2], (60, 60)) != first


def test_plain_text_and_pictures_left_out(tiny_bundle: Path, with_picture: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("The quick brown fox. " * 200)
    found = {}
    for name, data in (("file", tmp_path / "words.txt"), ("folder", with_picture)):
        manifest = quantize_bundle(
            tiny_bundle, tmp_path / name, llm="q4_0", vision="keep", imatrix=f"calibrate-text:{data}"
        )
        found[name] = manifest.llm.importance
        assert found[name] is not None
        assert (found[name].source, found[name].pictures, found[name].image_positions) == ("text", 0, 0)
        assert found[name].positions > 0
    assert found["file"].prompts == -(-found["file"].positions // 512) > 1
    assert found["folder"].prompts == 1


def test_an_exception_in_the_callback_comes_out(
    tiny_bundle: Path, with_picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt("in the callback")

    monkeypatch.setattr(activations.ActivationSums, "_add", fail)
    with pytest.raises(KeyboardInterrupt, match="in the callback"):
        quantize_bundle(tiny_bundle, tmp_path / "small", vision="keep", imatrix=f"calibrate:{with_picture}")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("place", ["taken.gguf", "absent/m.gguf"])
def test_no_place_for_the_matrix_is_told_before_it_is_computed(
    place: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(*_: object, **__: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(pipeline, "importance_matrix", compute)
    (tmp_path / "taken.gguf").touch()
    with pytest.raises(StorageError, match="a new file at"):
        quantize_bundle(tiny_bundle, tmp_path / "small", imatrix="calibrate:demo", save_imatrix=tmp_path / place)
    with pytest.raises(OptionError, match="--imatrix with --save-imatrix"):
        quantize_bundle(tiny_bundle, tmp_path / "small", save_imatrix=tmp_path / "m.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.gguf"]


@pytest.mark.parametrize(
    ("imatrix", "error", "said"),
    [
        ("nowhere.gguf", OptionError, "an importance matrix: calibrate:DATA"),
        ("calibrate:nowhere", DataError, "one JSON or JSONL file, in nowhere; got nothing there"),
        ("calibrate-text:nowhere", OptionError, "a UTF-8 text file"),
    ],
)
def test_what_is_no_matrix_is_refused(
    imatrix: str, error: type[Exception], said: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        quantize_bundle(tiny_bundle, tmp_path / "small", vision="keep", imatrix=imatrix)
    assert not list(tmp_path.iterdir())


def test_a_matrix_without_anything_to_quantize(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--llm keep"):
        quantize_bundle(tiny_bundle, tmp_path / "small", llm="keep", imatrix="calibrate:demo")
