"""llama.cpp as everything of ours imports it: with threads that don't spin long for each other.

OpenMP's threads meet after every node of a graph, some 400 times a token. Who comes first spins, for up to 15 ms where
nobody says otherwise: on a machine that does something else too, the one that is waited for does not get a core
meanwhile. GCC's OpenMP (libgomp) reads how long from the environment, once, when it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

SHORT_WAITS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "100"}
"""The policy is for other OpenMPs, which have no such count. 100 is what libgomp itself takes for more threads than
cores: enough where all of them compute, and of no weight where one does not (``docs/performance.md``)."""


@contextmanager
def short_waits() -> Iterator[None]:
    """Have an OpenMP that is loaded in the block spin no longer, unless somebody said how long.

    Afterwards the environment is as it was: processes that the application starts are its own business.
    """
    added = {} if SHORT_WAITS.keys() & os.environ.keys() else SHORT_WAITS
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


with short_waits():
    import llama_cpp
    import llama_cpp.llama_cpp as lib
    from llama_cpp._ctypes_extensions import load_shared_library

__all__ = ["lib", "llama_cpp", "load_shared_library"]
