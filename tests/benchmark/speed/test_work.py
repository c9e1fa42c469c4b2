"""The counted work against torch's own counter and llama.cpp's own sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.benchmark.contestants.bare_loop import BareLoop
from llava_edge.benchmark.speed.work import count_work, encode_operations
from llava_edge.quantize.vision.quantize import quantize_vision
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.errors import NativeError
from llava_edge.runtime.options import LoadOptions
from support.tiny_vision import TinyShape, make_model, make_pixels, write_graph
from torch.utils.flop_counter import FlopCounterMode

pytestmark = pytest.mark.slow

SHAPE = TinyShape()


def torch_operations(call: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("attention", ["fused", "standard"])
@pytest.mark.parametrize("recipe", ["f32", "f16", "int8"])
def test_encode_operations_are_those_that_torch_counts(tmp_path: Path, attention: str, recipe: str) -> None:
    path = write_graph(tmp_path, SHAPE, attention=attention)
    if recipe != "f32":
        smaller = tmp_path / "smaller.onnx"
        quantize_vision(path, smaller, recipe=recipe, calibration=make_pixels(SHAPE))  # type: ignore[arg-type]
        path = smaller
    tower, connector = make_model(SHAPE)
    tower.config._attn_implementation = "eager"  # torch does not count the CPU's fused attention
    tower.encoder.layers = tower.encoder.layers[:-1]  # LLaVA-NeXT takes the features of the last but one
    pixels = torch.from_numpy(make_pixels(SHAPE, 1))
    expected = torch_operations(lambda: connector(tower(pixel_values=pixels).last_hidden_state[:, 1:]))
    assert encode_operations(path, SHAPE.geometry) == expected


def test_prefill_operations_are_those_that_torch_counts(exported: Any) -> None:
    from transformers import LlavaNextForConditionalGeneration

    checkpoint, bundle = exported()
    model = LlavaNextForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    work = count_work(Bundle.open(bundle))

    def counted(positions: int) -> int:
        ids = torch.ones((1, positions), dtype=torch.long)
        return torch_operations(lambda: model(input_ids=ids, logits_to_keep=1, use_cache=False))

    assert work.prefill(1) == counted(1)
    # torch counts attention to later positions too, which a causal model does not need
    unneeded = work.prefill_square * (9 * 9 - 9 * 10 / 2)
    assert work.prefill(9) == counted(9) - unneeded


def test_decode_bytes_are_those_that_llama_cpp_holds(tiny_bundle: Path) -> None:
    import llama_cpp
    from gguf import GGUFReader

    bundle = Bundle.open(tiny_bundle)
    work = count_work(bundle)
    loop = BareLoop(bundle.llm_path, LoadOptions(), 1, positions=256)
    try:
        held = llama_cpp.llama_model_size(loop.model)
        loop.prefill(np.zeros((64, llama_cpp.llama_model_n_embd(loop.model)), np.float32))
        state = llama_cpp.llama_state_seq_get_size(loop._context, 0)
    finally:
        loop.close()
    rows = next(tensor for tensor in GGUFReader(bundle.llm_path).tensors if tensor.name == "token_embd.weight")
    assert work.weights == held - int(rows.n_bytes)  # one row of the embedding table is read, not all
    # the state of 64 positions is their keys and values and a few bytes of bookkeeping each
    assert 1.0 <= state / (work.cache * 64) < 1.1


def test_a_peer_that_computes_nothing_is_an_error(tiny_bundle: Path) -> None:
    """Past its context llama.cpp refuses; a loop that went on would be infinitely fast."""
    loop = BareLoop(Bundle.open(tiny_bundle).llm_path, LoadOptions(), 1, positions=256)
    try:
        loop.read([7] * 200, 0)
        with pytest.raises(NativeError, match="100 positions computed"):
            loop.read([7] * 100, 200)
    finally:
        loop.close()
