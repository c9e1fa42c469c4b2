"""Rearranged weights: used where a trial says so, never believed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from llava_edge.runtime.errors import NativeError
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.processes import repacking
from llava_edge.runtime.system.machine import has_amx

REARRANGED = """
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions
llm = Llm(Bundle.open(demo_bundle()).llm_path, options=LoadOptions(threads=1, repack=True, gpu_layers=0))
llm.ensure_context(64)
llm.decode_tokens(list(range(64)), 0, logits=True)
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty cache; what other tests found out in this process is kept from these and the reverse."""
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path / "cache"))
    repacking.repacking_works.cache_clear()
    yield
    repacking.repacking_works.cache_clear()


class PlayedLlm:
    """Computes what it is told to, or dies."""

    logits_given: np.ndarray | None = None
    made = 0
    vocab_size = 10

    def __init__(self, *_: Any, **__: Any) -> None:
        type(self).made += 1

    def ensure_context(self, positions: int) -> None:
        assert positions == repacking.TOKENS

    def decode_tokens(self, *_: Any, **__: Any) -> None:
        if self.logits_given is None:
            raise NativeError(expected="llama.cpp to go on", got="SIGSEGV", fix="load the model again")

    def logits(self) -> np.ndarray:
        assert self.logits_given is not None
        return self.logits_given

    def close(self) -> None:
        """Nothing to free."""


def played(monkeypatch: pytest.MonkeyPatch, rearranged: np.ndarray | None) -> type[PlayedLlm]:
    """A CPU with AMX whose rearranged products give ``rearranged`` where the plain ones give 1, 2, 3."""
    child = type("Child", (PlayedLlm,), {"logits_given": rearranged, "made": 0})
    plain = type("Plain", (PlayedLlm,), {"logits_given": np.array([1.0, 2.0, 3.0], np.float32)})
    monkeypatch.setattr(repacking, "has_amx", lambda: True)
    monkeypatch.setattr(repacking, "IsolatedLlm", child)
    monkeypatch.setattr(repacking, "Llm", plain)
    return child


@pytest.mark.skipif(not has_amx(), reason="a CPU without AMX")
def test_the_trial_says_what_a_process_says() -> None:
    survived = subprocess.run([sys.executable, "-c", REARRANGED], capture_output=True, timeout=120).returncode == 0
    assert repacking.repacking_works() == survived


@pytest.mark.parametrize(
    ("rearranged", "works"),
    [(None, False), ([1.0, 2.0, 3.01], True), ([1.0, 2.0, 3.5], False), ([1.0, float("nan"), 3.0], False)],
)
def test_dead_or_wrong_is_no(rearranged: Any, works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, None if rearranged is None else np.array(rearranged, np.float32))
    assert repacking.repacking_works() == works


def test_one_trial_a_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = played(monkeypatch, np.array([1.0, 2.0, 3.0], np.float32))
    for _ in range(2):
        assert repacking.repacking_works()
        repacking.repacking_works.cache_clear()
    assert child.made == 1
    (tmp_path / "cache" / repacking.FILE).write_text("no JSON")
    assert repacking.repacking_works()
    repacking.repacking_works.cache_clear()
    monkeypatch.setattr(repacking, "_key", lambda: "another build")
    assert repacking.repacking_works()
    assert child.made == 3


def test_other_cpus_and_frozen_applications_try_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = played(monkeypatch, None)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not repacking.repacking_works()
    repacking.repacking_works.cache_clear()
    monkeypatch.setattr(repacking, "has_amx", lambda: False)
    assert repacking.repacking_works()
    assert child.made == 0
    assert not os.path.exists(tmp_path / "cache")


def gguf_of(path: Path, kinds: dict[str, int]) -> Path:
    """A file of matrices of 256 columns, so many rows of each type, beside a large vector."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("output_norm.weight", np.ones(2**16, np.float32))
    for name, rows in kinds.items():
        kind = gguf.GGMLQuantizationType[name.upper()]
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        data = np.zeros((rows, 256 // weights * size), np.uint8)
        writer.add_tensor(f"blk.0.{name}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("flags", "amx", "kinds", "pays"),
    [
        ({"avx2"}, False, {"q4_k": 60, "q6_k": 30}, False),
        ({"avx2"}, False, {"iq4_xs": 60, "q5_0": 10}, False),
        ({"avx2", "avx512_vnni"}, False, {"q4_0": 60, "q6_k": 10}, True),
        ({"avx2"}, False, {"iq4_nl": 60}, True),
        ({"avx2"}, True, {"q4_k": 60, "q6_k": 30}, True),
        ({"avx2"}, True, {"q6_k": 60, "q4_k": 30}, False),
        ({"asimd"}, False, {"q4_k": 60}, True),
    ],
)
def test_by_types_and_processor(
    flags: set[str], amx: bool, kinds: dict[str, int], pays: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(repacking, "processor_flags", lambda: frozenset(flags))
    monkeypatch.setattr(repacking, "has_amx", lambda: amx)
    monkeypatch.setattr(repacking, "_try", lambda: True)
    path = gguf_of(tmp_path / "model.gguf", kinds)
    assert repacking.settle_repacking(LoadOptions(), path).repack is pays
    assert repacking.settle_repacking(LoadOptions(repack=not pays), path).repack is not pays


def test_what_is_no_model_is_left_to_who_loads_it(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"no model")
    assert repacking.repacking_pays(tmp_path / "no.gguf")
