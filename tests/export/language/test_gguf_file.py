"""The GGUF holds the checkpoint's numbers, and llama.cpp computes transformers' logits from it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.export.pipeline import make_plan
from llava_edge.runtime.errors import CheckpointError
from llava_edge.runtime.ggml.llm_recipes import FULL_PRECISION
from llava_edge.runtime.planning.shape_sources import folder_shape
from safetensors.torch import load_file, save_file
from support.checkpoints import FAMILIES, make_checkpoint
from support.gguf_files_written import write_plan
from support.gguf_reading import logits_of, read_fields, read_tensors

TOKENS = [5, 300, 17, 42, 256, 99, 130, 7, 201, 64, 3, 410]


def write(folder: Path, path: Path, llm_type: str = "f16") -> Path:
    return write_plan(make_plan(str(folder)), path, llm_type)


def reference_logits(folder: Path) -> np.ndarray[Any, Any]:
    from transformers import LlavaNextForConditionalGeneration

    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return np.asarray(model(input_ids=torch.tensor([TOKENS])).logits[0].numpy())


def divergence(reference: np.ndarray[Any, Any], ours: np.ndarray[Any, Any]) -> float:
    one, other = (torch.log_softmax(torch.from_numpy(x).double(), -1) for x in (reference, ours))
    return float((one.exp() * (one - other)).sum(-1).max())


@pytest.mark.parametrize("family", [*FAMILIES, "granite"])
def test_logits_are_those_of_transformers(family: str, tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    folder = shared_checkpoint(family)
    ours = logits_of(write(folder, tmp_path / "llm.gguf", "f32"), TOKENS)
    reference = reference_logits(folder)
    assert ours.shape == reference.shape
    assert (ours.argmax(-1) == reference.argmax(-1)).all()
    assert divergence(reference, ours) < 1e-4  # the KV cache is f16


ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64, "rope_theta": 5e5,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 1e4},
    "yarn, attention": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 1e4,
        "attention_factor": 1.5,
    },
    "yarn, turns": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 1e4,
        "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False,
    },
    "longrope": {
        "rope_type": "longrope", "short_factor": [1 + index / 4 for index in range(16)], "long_factor": [16.0] * 16,
        "original_max_position_embeddings": 256, "rope_theta": 1e4,
    },
}  # fmt: skip
SCALED = [*(("llama3", name) for name in ROPES), ("granite", "llama3"), ("granite", "longrope")]
SCALED += [("qwen", name) for name in ("linear", "yarn", "yarn, attention")]


@pytest.mark.parametrize(("family", "name"), SCALED)
def test_scaled_rope(family: str, name: str, tmp_path: Path) -> None:
    rope = ROPES[name]
    folder = make_checkpoint(tmp_path / "c", family, text={"rope_parameters": rope})
    path = write(folder, tmp_path / "llm.gguf", "f32")
    reference = reference_logits(folder)
    assert divergence(reference, logits_of(path, TOKENS)) < 1e-4
    plain = make_checkpoint(tmp_path / "plain", family, text={"rope_parameters": rope | {"rope_type": "default"}})
    assert divergence(reference, reference_logits(plain)) > 1e-2  # or the test would show nothing


@pytest.mark.parametrize("name", ["llama3", "longrope", "yarn, turns"])
def test_what_qwen2_lacks_in_llama_cpp(name: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "qwen", text={"rope_parameters": ROPES[name]})
    for read in (make_plan, folder_shape):
        with pytest.raises(CheckpointError, match=r"a rope_type that llama\.cpp has for qwen2"):
            read(folder if read is folder_shape else str(folder))


def test_a_dynamic_rope_is_plain_up_to_its_context(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    folder = make_checkpoint(tmp_path / "c", text={"rope_parameters": rope, "max_position_embeddings": len(TOKENS)})
    assert make_plan(str(folder)).settings.context_length == len(TOKENS)
    path = write(folder, tmp_path / "llm.gguf", "f32")
    reference = reference_logits(folder)
    assert divergence(reference, logits_of(path, TOKENS)) < 1e-4
    shorter = text_entries(folder, max_position_embeddings=8)
    assert divergence(reference, reference_logits(shorter)) > 1e-2  # there it is scaled


def text_entries(folder: Path, **entries: Any) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= entries
    path.write_text(json.dumps(config))
    return folder


def test_old_rope_spelling(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", layout="transformers-old")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["rope_scaling"] = {"type": "linear", "factor": 4.0}
    config["text_config"]["rope_theta"] = 2e4
    path.write_text(json.dumps(config))
    fields = read_fields(write(folder, tmp_path / "llm.gguf"))
    assert fields["llama.rope.freq_base"] == 2e4
    assert (fields["llama.rope.scaling.type"], fields["llama.rope.scaling.factor"]) == ("linear", 4.0)


def test_tied_output(tmp_path: Path) -> None:
    tied = make_checkpoint(tmp_path / "tied", text={"tie_word_embeddings": True})
    path = write(tied, tmp_path / "tied.gguf", "f32")
    assert "output.weight" not in read_tensors(path)
    assert divergence(reference_logits(tied), logits_of(path, TOKENS)) < 1e-4


@pytest.mark.parametrize("family", ["llama3", "granite"])
def test_biases_everywhere(family: str, tmp_path: Path) -> None:
    biased = make_checkpoint(tmp_path / "biased", family, text={"attention_bias": True, "mlp_bias": True})
    path = write(biased, tmp_path / "biased.gguf", "f32")
    assert {"blk.1.attn_output.bias", "blk.1.ffn_down.bias"} <= set(read_tensors(path))
    assert divergence(reference_logits(biased), logits_of(path, TOKENS)) < 1e-4


@pytest.mark.parametrize("family", ["mistral", "qwen"])
def test_biases_that_transformers_does_not_read(family: str, tmp_path: Path, shared_checkpoint: Any) -> None:
    """Neither class has these keys: the same tensors are expected, and a bias among them is left over by name."""
    folder = make_checkpoint(tmp_path / "c", family, text={"attention_bias": True, "mlp_bias": True})
    path = write(folder, tmp_path / "llm.gguf", "f32")
    assert set(read_tensors(path)) == set(read_tensors(write(shared_checkpoint(family), tmp_path / "plain.gguf")))
    state = load_file(folder / "model.safetensors")
    name = "model.language_model.layers.0.self_attn.o_proj.bias"
    save_file(state | {name: torch.zeros(256)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"left over: {name}"):
        make_plan(str(folder))


def test_tied_original_layout(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "qwen", "original", text={"tie_word_embeddings": True})
    assert make_plan(str(folder)).checkpoint.tied


@pytest.mark.parametrize("family", ["mistral", "llama3", "granite"])
def test_wider_heads_than_the_model(family: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", family, text={"head_dim": 64})
    path = write(folder, tmp_path / "llm.gguf", "f32")
    assert divergence(reference_logits(folder), logits_of(path, TOKENS)) < 1e-4


def test_heads_that_llama_cpp_has_no_place_for(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "qwen", text={"head_dim": 64})
    for read in (make_plan, folder_shape):
        with pytest.raises(CheckpointError, match=r"hidden_size \(256\), as llama.cpp's qwen2 has it.* got 8 x 64"):
            read(folder if read is folder_shape else str(folder))


@pytest.mark.parametrize("llm_type", FULL_PRECISION)
@pytest.mark.parametrize("family", ["mistral", "qwen"])
def test_tensors_come_back(family: str, llm_type: str, tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    folder = shared_checkpoint(family, "original")
    stored = read_tensors(write(folder, tmp_path / "llm.gguf", llm_type))
    state = {name: value.float().numpy() for name, value in load_file(folder / "model.safetensors").items()}
    config = json.loads((folder / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, (kind, values) in stored.items():
        expected = state.pop(original_name(name))
        module = name.split(".")[-2]
        if family != "qwen" and module in heads:
            values = unpermuted(values, heads[module])
        tolerance = {"f32": 0.0, "bf16": 0.0, "f16": 2**-24}[llm_type]  # the checkpoint is bf16
        assert np.abs(values - expected).max() <= tolerance, name
        assert kind == ("F32" if values.ndim == 1 else llm_type.upper())
    assert not [name for name in state if "layers" in name and "vision" not in name]


def unpermuted(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """From llama.cpp's neighbouring pairs back to transformers' halves, row by row."""
    size = len(rows) // heads
    order = [head * size + 2 * (i % (size // 2)) + i // (size // 2) for head in range(heads) for i in range(size)]
    return rows[order]


def original_name(name: str) -> str:
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    parts = name.split(".")
    if parts[0] in names:
        return f"{names[parts[0]]}.{parts[1]}"
    modules = {
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    }  # fmt: skip
    return f"model.layers.{parts[1]}.{modules[parts[2]]}.{parts[3]}"


def test_out_of_half_range_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    state = load_file(folder / "model.safetensors")
    state["model.language_model.layers.0.mlp.down_proj.weight"][0, 0] = 1e5
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"down_proj.*--llm bf16"):
        write(folder, tmp_path / "llm.gguf", "f16")
    write(folder, tmp_path / "bf16.gguf", "bf16")


def test_a_sliding_window_bounds_the_context(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "mistral", text={"sliding_window": 128})
    assert make_plan(str(folder)).settings.context_length == 128


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        {"rope_type": "proportional", "factor": 2.0, "rope_theta": 1e4},
    ],
)
def test_other_ropes_are_refused(rope: dict[str, Any], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", text={"rope_parameters": rope})
    with pytest.raises(CheckpointError, match=r"in the language model of .*config\.json"):
        make_plan(str(folder))


MEASURE = r"""
import re, sys
from pathlib import Path
sys.path.append(sys.argv[3])
from support.gguf_files_written import write_plan
from llava_edge.export.pipeline import make_plan
def peak():  # ru_maxrss would begin with that of the process which started this one
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
peaks = []
for folder in sys.argv[1:3]:  # a tiny one first, for what is loaded and kept whatever the size
    write_plan(make_plan(folder), Path(folder + ".gguf"), "f16")
    peaks.append(peak())
print(peaks[1] - peaks[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak in /proc")
def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path) -> None:
    wide = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16}
    folder = make_checkpoint(tmp_path / "c", text=wide | {"num_key_value_heads": 4})
    size = (folder / "model.safetensors").stat().st_size
    assert size > 190e6
    tiny = make_checkpoint(tmp_path / "tiny")
    command = [sys.executable, "-c", MEASURE, str(tiny), str(folder), str(Path(__file__).parents[2])]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024
    largest = 3072 * 768 * 4  # bytes of the largest tensor in f32
    assert largest < grown < 6 * largest < size / 3
