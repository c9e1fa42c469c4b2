"""A switch that ends what llama.cpp computes, within one node of its graph."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from .importing import lib


class AbortSwitch:
    """Given to a context, it makes ``llama_decode`` return 2 soon after it was set, on CPUs.

    ggml asks a C function at every node whether to go on. One in Python would wait for the interpreter's lock each
    time, which another thread may hold for 5 ms. So it is the C library's ``strlen``: of an empty text it is 0, no.
    """

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)
        library: Any = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
        address = ctypes.cast(library.strlen, ctypes.c_void_p).value
        self._callback = lib.ggml_abort_callback(address)

    def install(self, context: Any) -> None:
        """Let ``context`` listen; this object must outlive it."""
        lib.llama_set_abort_callback(context, self._callback, ctypes.addressof(self._text))

    def set(self) -> None:
        """End what is computed, and at once what is begun from now on."""
        self._text[0] = b"1"

    def clear(self) -> None:
        """Let computing go on from now on."""
        self._text[0] = b"\0"

    def is_set(self) -> bool:
        """Whether what is computed shall end."""
        return self._text[0] != b"\0"
