"""A ggml backend in Python: llama.cpp hands it what a model's :class:`PromptEngine` claims of a graph.

There is one in a process, registered at first need and for good, because ggml forgets no backend. It claims something
only inside :func:`taking_part`, so all other models compute as if it were not there.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ..errors import Cancelled
from ..ggml.devices import CPU
from ..ggml.library import ggml_function, start_native
from ..ggml.rearranged import special_buffers
from .structures import (
    ABORTED,
    ACCELERATOR,
    API_VERSION,
    FAILED,
    SUCCESS,
    Backend,
    Device,
    Properties,
    Registry,
    check_library,
)  # fmt: skip

_P, _SIZE = ctypes.c_void_p, ctypes.c_size_t
_NAME = ctypes.create_string_buffer(b"PROMPT")
_GUID = (ctypes.c_uint8 * 16)(*b"llava-edge prmpt")


class TakingPart(Protocol):
    """What claims nodes of a graph and computes them."""

    error: BaseException | None

    def claims(self, node: int) -> bool: ...

    def compute(self, nodes: Sequence[int]) -> None: ...


_here = threading.local()
_starting = threading.Lock()
_registered: list[_Registered] = []


@contextmanager
def taking_part(engine: TakingPart | None) -> Iterator[None]:
    """Let ``engine`` claim what llama.cpp plans and computes in the block, on this thread.

    Raises what it raised there, in the place of llama.cpp's error about it.
    """
    _here.engine = engine
    try:
        yield
    finally:
        _here.engine = None
        error = None if engine is None else engine.error
        if engine is not None and error is not None:
            engine.error = None
            if not isinstance(error, Cancelled):
                raise error


def register() -> None:
    """Make the backend known to llama.cpp, once a process. Raises :class:`NativeError` where its library is another."""
    with _starting:
        if not _registered:
            start_native()
            check_library()
            made = _Registered()
            ggml_function("ggml_backend_register", None, _P)(ctypes.addressof(made.registry))
            _registered.append(made)


def device() -> int:
    """The handle of the registered device."""
    return ctypes.addressof(_registered[0].device)


class _Registered:
    """The tables, and the callbacks that they point to: all live as long as the process."""

    def __init__(self) -> None:
        self.registry, self.device = Registry(), Device()
        self._kept: list[Any] = []
        self._backends: dict[int, Backend] = {}
        self._count = ggml_function("ggml_graph_n_nodes", ctypes.c_int, _P)
        self._node = ggml_function("ggml_graph_node", _P, _P, ctypes.c_int)
        self._buffer = ggml_function("ggml_backend_dev_buffer_type", _P, _P)(
            ggml_function("ggml_backend_dev_by_type", _P, ctypes.c_int)(CPU)
        )
        self._readable = {self._buffer, *special_buffers()}
        self._is_host = ggml_function("ggml_backend_buft_is_host", ctypes.c_bool, _P)
        name = self._function(_P, _P)(lambda _: ctypes.addressof(_NAME))
        self._fill_device(name)
        self._backend_name = name
        self._free = self._function(None, _P)(self._forget)
        self._compute = self._function(ctypes.c_int, _P, _P)(self._graph_compute)
        registry = self.registry
        registry.api_version = API_VERSION
        registry.functions.get_name = name
        registry.functions.get_device_count = self._function(_SIZE, _P)(lambda _: 1)
        registry.functions.get_device = self._function(_P, _P, _SIZE)(lambda _, index: ctypes.addressof(self.device))
        registry.functions.get_proc_address = self._function(_P, _P, ctypes.c_char_p)(lambda _, name: None)

    def _fill_device(self, name: int) -> None:
        self.device.registry = ctypes.addressof(self.registry)
        functions = self.device.functions
        functions.get_name = functions.get_description = name
        functions.get_memory = self._function(None, _P, _P, _P)(_no_memory)
        functions.get_type = self._function(ctypes.c_int, _P)(lambda _: ACCELERATOR)
        functions.get_props = self._function(None, _P, _P)(_properties)
        functions.init_backend = self._function(_P, _P, ctypes.c_char_p)(self._init_backend)
        functions.get_buffer_type = self._function(_P, _P)(lambda _: self._buffer)
        functions.supports_op = self._function(ctypes.c_bool, _P, _P)(_claims)
        functions.supports_buft = self._function(ctypes.c_bool, _P, _P)(
            lambda _, buffer: buffer in self._readable or self._is_host(buffer)
        )

    def _function(self, result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], int]:
        def made(call: Callable[..., Any]) -> int:
            native = ctypes.CFUNCTYPE(result, *arguments)(call)
            self._kept.append(native)
            return int(ctypes.cast(native, _P).value or 0)

        return made

    def _init_backend(self, device: int, _: bytes) -> int:
        backend = Backend()
        backend.guid = ctypes.addressof(_GUID)
        backend.device = ctypes.addressof(self.device)
        backend.functions.get_name, backend.functions.free = self._backend_name, self._free
        backend.functions.graph_compute = self._compute
        address = ctypes.addressof(backend)
        self._backends[address] = backend  # until ggml frees it, with its context
        return address

    def _forget(self, backend: int) -> None:
        self._backends.pop(backend, None)

    def _graph_compute(self, _: int, graph: int) -> int:
        engine: TakingPart | None = getattr(_here, "engine", None)
        if engine is None:
            return FAILED
        try:
            engine.compute([self._node(graph, index) for index in range(self._count(graph))])
        except Cancelled:
            return ABORTED
        except BaseException as error:  # nothing may be raised through C; taking_part raises it
            engine.error = error
            return FAILED
        return SUCCESS


def _claims(_: int, node: int) -> bool:
    engine: TakingPart | None = getattr(_here, "engine", None)
    try:
        return engine is not None and engine.claims(node)
    except BaseException as error:
        assert engine is not None
        engine.error = error
        return False


def _no_memory(_: int, free: int, total: int) -> None:
    """None of its own: 0 bytes mean that there is nothing to report."""
    _SIZE.from_address(free).value = _SIZE.from_address(total).value = 0


def _properties(_: int, place: int) -> None:
    properties = Properties.from_address(place)
    properties.name = properties.description = b"PROMPT"
    properties.free = properties.total = 0
    properties.type = ACCELERATOR
    properties.id = None
    properties.abilities.mmap = True
