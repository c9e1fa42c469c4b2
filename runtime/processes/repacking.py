"""Whether llama.cpp rearranges weights at load: where it pays for a model's types, and where it survives it.

Since 0.3.36 llama-cpp-python has products for K- and IQ-quants that take weights as the file has them. On x86
without a matrix unit (AMX) they are faster than those for rearranged weights (``docs/performance.md``). With one,
``ggml/rearranged`` leaves those matrices of a rearranged model alone that get slower by it.

With one it is tried once instead of believed: llama.cpp compiled by GCC 12 dies in its AMX products, and a
library does not tell what compiled it. So a model of 4 MB, the demo's, is computed both ways, the doubtful
one in a process of its own, and the result is kept in the user's cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.bundle import Bundle, demo_bundle
from ..bundle.gguf_reading import read_model
from ..errors import BundleError, NativeError
from ..ggml.library import library_digest
from ..ggml.rearranged import SLOWER
from ..ggml.types import BY_NUMBER
from ..language.llm import Llm
from ..options import LoadOptions
from ..system.filesystems import make_private
from ..system.lifetime import computed_before_fork
from ..system.machine import cache_folder, has_amx, processor_flags, processor_name
from ..system.storage import write_text
from .isolated_llm import IsolatedLlm
from .starting import can_start

TOKENS = 64
"""Positions computed at once: the matrix unit takes 32 rows, and a part of as many is left over."""
CLOSE = 0.05
"""Relative difference of logits up to which both ways are the same model; rounding makes some 0.01."""
PLAIN = frozenset(
    {
        "q2_k",
        "q3_k",
        "q4_k",
        "q5_k",
        "q6_k",
        "iq2_xxs",
        "iq2_xs",
        "iq2_s",
        "iq3_xxs",
        "iq3_s",
        "iq1_s",
        "iq1_m",
        "iq4_xs",
    }
)
"""Types whose products are faster with weights as the file has them, without AMX."""
FILE = "repacking.json"


def settle_repacking(options: LoadOptions, path: Path) -> LoadOptions:
    """``options`` with their ``repack`` decided for the GGUF at ``path``."""
    if options.repack is not None:
        return options
    return dataclasses.replace(options, repack=repacking_pays(path) and repacking_works())


def repacking_pays(path: Path) -> bool:
    """Whether most of a model's matrices are of types whose products get faster by it on this processor."""
    if "avx2" not in processor_flags():
        return True  # Arm's kernels are for rearranged weights
    plain = SLOWER if has_amx() else PLAIN
    sizes = Counter[bool]()
    with suppress(BundleError):  # what is no model is refused by who loads it
        for tensor in read_model(path).tensors:
            if len(tensor.shape) == 2:
                sizes[BY_NUMBER[tensor.type].name in plain] += tensor.size
    return sizes[True] <= sizes[False]


@cache
def repacking_works() -> bool:
    """Yes on CPUs without AMX; else what a trial said, once for each build of llama.cpp and machine."""
    if not has_amx():
        return True
    if not can_start():
        return False  # a frozen application that would be started again could not make the trial
    path, key = cache_folder() / FILE, _key()
    kept = _read(path)
    if isinstance(kept.get(key), bool):
        return bool(kept[key])
    found = _try()
    with suppress(OSError):  # nowhere to keep it: the next process tries again, for a second
        if not path.parent.exists():
            make_private(path.parent)
        write_text(path, json.dumps({key: found}))
    return found


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept if isinstance(kept, dict) else {}
    return {}


def _key() -> str:
    """Changes with llama.cpp's libraries and with the CPU's abilities."""
    words = [library_digest(), processor_name(), *sorted(processor_flags())]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _try() -> bool:
    """Whether the demo's language model computes with rearranged weights what it computes without."""
    path = Bundle.open(demo_bundle()).llm_path
    logits = []
    try:
        # after a fork nothing can be computed here, and that would be taken for a no
        for kind, repack in ((IsolatedLlm if computed_before_fork() else Llm, False), (IsolatedLlm, True)):
            llm = kind(path, options=LoadOptions(threads=1, repack=repack, gpu_layers=0))
            try:
                llm.ensure_context(TOKENS)
                llm.decode_tokens([index % llm.vocab_size for index in range(TOKENS)], 0, logits=True)
                logits.append(llm.logits())
            finally:
                llm.close()
    except NativeError:
        return False
    plain, rearranged = logits
    return float(np.abs(rearranged - plain).max()) <= CLOSE * float(np.abs(plain).max())
