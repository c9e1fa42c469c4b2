"""What the evaluation callback sees: its layout checked, experts counted apart."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from llava_edge.quantize.importance import activations
from llava_edge.runtime.errors import NativeError
from llava_edge.runtime.ggml import tensor as ggml_tensor
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions


@pytest.mark.parametrize(("field", "offset"), [("name", 8), ("ne", 4), ("src", 16)])
def test_another_layout_is_noticed(field: str, offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A structure with something put in before one field, as another release of ggml might have it."""
    fields = []
    for name, kind in ggml_tensor.RawTensor._fields_:
        fields += [("added", ctypes.c_char * offset)] * (name == field) + [(name, kind)]
    ggml_tensor.check_layout()
    monkeypatch.setattr(ggml_tensor, "RawTensor", type("RawTensor", (ctypes.Structure,), {"_fields_": fields}))
    with pytest.raises(NativeError, match="got another layout"):
        ggml_tensor.check_layout()


def write_expert_llm(path: Path, *, experts: int, used: int) -> None:
    """A seeded one-layer Llama with experts, in f32."""
    dim, inner, vocabulary, draw = 64, 96, 32, np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(dim)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(dim // 2)
    writer.add_expert_count(experts)
    writer.add_expert_used_count(used)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{index}>" for index in range(vocabulary)])
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types([gguf.TokenType.NORMAL] * vocabulary)
    shapes = {
        "token_embd": (vocabulary, dim),
        "output": (vocabulary, dim),
        **{f"blk.0.attn_{name}": (dim, dim) for name in ("q", "k", "v", "output")},
        "blk.0.ffn_gate_inp": (experts, dim),
        "blk.0.ffn_gate_exps": (experts, inner, dim),
        "blk.0.ffn_up_exps": (experts, inner, dim),
        "blk.0.ffn_down_exps": (experts, dim, inner),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(dim, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_experts_are_counted_by_who_was_asked(tmp_path: Path) -> None:
    """The router sees what every asked expert sees: its own sums are the expected ones."""
    experts, used = 4, 2
    write_expert_llm(tmp_path / "experts.gguf", experts=experts, used=used)

    def entries(tokens: list[int]) -> Any:
        llm = Llm(tmp_path / "experts.gguf", options=LoadOptions(threads=1, repack=False))
        sums = activations.ActivationSums()
        llm.watch(sums.callback)
        llm.ensure_context(64)
        llm.decode_tokens(tokens, 0, logits=True, every=True)
        sums.check()
        llm.close()
        return sums.entries()

    one = entries([5])
    router, gate = one["blk.0.ffn_gate_inp.weight"], one["blk.0.ffn_gate_exps.weight"]
    assert sorted(gate.counts.tolist()) == [0.0] * (experts - used) + [1.0] * used
    for expert in range(experts):
        expected = router.sums[0] if gate.counts[expert] else np.zeros_like(router.sums[0])
        np.testing.assert_allclose(gate.sums[expert], expected, rtol=1e-6)
    assert one["blk.0.ffn_down_exps.weight"].sums.shape == (experts, 96)
    np.testing.assert_array_equal(one["blk.0.ffn_down_exps.weight"].counts, gate.counts)
    many = entries([5, 6, 7, 8, 9])
    gate = many["blk.0.ffn_gate_exps.weight"]
    assert gate.counts.sum() == 5 * used
    np.testing.assert_allclose(gate.sums.sum(0), used * many["blk.0.ffn_gate_inp.weight"].sums[0], rtol=1e-5)


def test_a_copy_on_a_device_has_the_weights_name() -> None:
    assert activations.weight_name("CUDA0#blk.0.attn_k.weight#0") == "blk.0.attn_k.weight"
    assert activations.weight_name("output.weight") == "output.weight"
    assert activations.weight_name("cache_k_l0 (view)") is None
