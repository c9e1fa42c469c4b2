"""The handover between contexts with and without flash attention, on a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llava_edge.benchmark.costs import flash_handover, one_run_gain
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.processes import repacking


@pytest.fixture(autouse=True)
def plain_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured for real is not tried here: another process would."""
    monkeypatch.setattr(repacking, "has_amx", lambda: False)


def test_what_one_context_read_the_other_holds(tiny_bundle: Path) -> None:
    """Values of each position are the same numbers, transposed: read back by flash attention they give the same."""
    path, tokens = tiny_bundle / "llm.gguf", [int(one) for one in np.random.default_rng(1).integers(3, 200, 90)]
    flash = Llm(path, options=LoadOptions(threads=2, gpu_layers=0, flash_attention=True))
    usual = Llm(path, options=LoadOptions(threads=2, gpu_layers=0))
    try:
        for llm in (flash, usual):
            llm.ensure_context(256)
            flash_handover.read(llm, tokens, 90)
        expected = np.frombuffer(usual.save_state(), np.uint8)
        moved = flash_handover.transpose_values(np.frombuffer(flash.save_state(), np.uint8))
        assert moved.shape == expected.shape
        assert (moved[:1000] == expected[:1000]).mean() > 0.9  # the heads, and keys of the first layer
        with pytest.raises(ValueError, match="transposed already"):
            flash_handover.transpose_values(expected)
        alone = flash_handover.following(usual, tokens[:4], 90)
        flash_handover.hand_over(flash, usual)
        handed = flash_handover.following(usual, tokens[:4], 90)
        assert np.abs(np.array(handed) - np.array(alone)).max() < 0.02  # half precision in the flash kernel
        assert np.abs(np.roll(alone, 1, axis=0) - np.array(alone)).max() > 0.1
    finally:
        flash.close()
        usual.close()


def test_prompts_are_measured_both_ways(tiny_bundle: Path) -> None:
    path = tiny_bundle / "llm.gguf"
    seconds, kl = flash_handover.measure(path, path, "", positions=80, pieces=2, threads=2)
    assert {name: len(values) for name, values in seconds.items()} == {"as usual": 2, "flash": 2, "handover": 2}
    assert {name: len(values) for name, values in kl.items()} == {
        "as usual": 2 * flash_handover.FOLLOWING,
        "flash and handover": 2 * flash_handover.FOLLOWING,
    }
    assert max(kl["as usual"]) == 0 < max(kl["flash and handover"]) < 1e-3


def test_the_prompt_as_one_run(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks: dict[bool, list[int]] = {True: [], False: []}
    decode: Callable[..., None] = Llm._decode

    def counted(self: Llm, batch: object, positions: int, cancelled: object) -> None:
        chunks[self.joins_text].append(positions)
        decode(self, batch, positions, cancelled)

    monkeypatch.setattr(Llm, "_decode", counted)
    found = one_run_gain.measure(tiny_bundle / "llm.gguf", rounds=1, threads=2, picture=80)
    assert {name: len(pairs) for name, pairs in found.items()} == {"each in its own": 1, "one run": 1}
    assert chunks == {False: [14, 80, 16] * 2, True: [94, 16] * 2}
