"""The process that llama.cpp lives in when a crash of it must not take the application along.

``isolated_llm`` starts it with ``start_command`` and talks to it over standard input and output:
pickled ``(method, arguments)`` one way, ``(kind, value)`` the other. All values are plain: text,
token ids, arrays, options. It ends when its input does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import LlavaEdgeError, OptionError
from ..ggml.devices import device_memory, local_gpus
from ..ggml.rpc import worker_devices
from ..language.llm import Llm
from ..language.sampling import Sampler
from ..options import GenerationOptions, LoadOptions, parse_endpoint
from .connections import is_loopback, watch_connections
from .watching import WATCH_SECONDS, every

RESULT, ERROR, CRASH = "result", "error", "crash"
"""Kinds of reply: a value, an error's class name and its three parts, a traceback."""

WorkerMemory = tuple[str, int]
"""A device of a worker: the worker's HOST:PORT, the device's free bytes."""


def main() -> None:
    """Answer calls until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the application, which asks us to stop
    _leave_no_core()
    calls, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever native code prints must not get between the replies
    served = Served()
    while (call := _next_call(calls)) is not None:
        method, arguments = call
        _reply(replies, *_answer(served, method, arguments))
    served.close()


def _leave_no_core() -> None:
    """An abort would write the whole model to disk first, and be noticed only then."""
    with contextlib.suppress(ImportError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _next_call(calls: BinaryIO) -> tuple[str, tuple[Any, ...]] | None:
    try:
        method, arguments = pickle.load(calls)
    except EOFError:
        return None
    return method, arguments


def _reply(replies: BinaryIO, kind: str, value: Any) -> None:
    pickle.dump((kind, value), replies, protocol=pickle.HIGHEST_PROTOCOL)
    replies.flush()


def _answer(served: Served, method: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return RESULT, getattr(served, method)(*arguments)
    except LlavaEdgeError as error:
        return ERROR, (type(error).__name__, error.expected, error.got, error.fix)
    except Exception:  # ours, then: told to the application, which can report it
        return CRASH, traceback.format_exc()


class Served:
    """What can be called from outside: the methods of :class:`Llm`, and samplers by number."""

    def __init__(self) -> None:
        self._llm: Llm | None = None
        self._devices: list[int] = []
        self._samplers: dict[int, Sampler] = {}

    def connect(self, options: LoadOptions) -> list[WorkerMemory]:
        """Call the workers, if there are any, and keep the lines open."""
        parent = os.getppid()
        ports = [parse_endpoint(one)[1] for one in options.workers]
        every(WATCH_SECONDS, lambda: _watch(parent, ports))
        remote = worker_devices(options.workers)
        self._devices = [handle for _, handle in remote]
        if remote and options.device != "cpu":
            self._devices += local_gpus()
        if self._devices and options.tensor_split and len(options.tensor_split) != len(self._devices):
            raise OptionError(
                expected=f"{len(self._devices)} shares, one a device: workers first, then this machine's GPUs",
                got=f"{len(options.tensor_split)}",
                fix="give each device its share, 0 for none",
            )
        return [(endpoint, device_memory(handle)[0]) for endpoint, handle in remote]

    def load(
        self, path: Path, options: LoadOptions, space_prefixed: bool, stop_tokens: Collection[int]
    ) -> dict[str, int]:
        """Load the model over the devices that ``connect`` found; return its sizes."""
        self._llm = Llm(
            path, options=options, space_prefixed=space_prefixed, stop_tokens=stop_tokens, devices=self._devices
        )
        sizes = {name: getattr(self._llm, name) for name in ("vocab_size", "dim", "context_limit", "threads")}
        # a worker here may compute on the same cores; a tunnel's end looks alike, and then only an overlap is lost
        return {**sizes, "on_cpu": self._llm.on_cpu or any(map(is_loopback, options.workers))}

    def call(self, method: str, *arguments: Any) -> Any:
        """One method of the loaded model; keyword arguments come as a dictionary at the end."""
        assert self._llm is not None
        *positional, keywords = arguments
        return getattr(self._llm, method)(*positional, **keywords)

    def context_size(self) -> int:
        """Positions of the current context."""
        assert self._llm is not None
        return self._llm.context_size

    def sampler(self, options: GenerationOptions, seed: int, recent: list[int]) -> int:
        """Make a sampler; return its number."""
        assert self._llm is not None
        number = max(self._samplers, default=0) + 1
        self._samplers[number] = self._llm.sampler(options, seed=seed, recent=recent)
        return number

    def sample(self, number: int) -> int:
        """Draw a token with sampler ``number``."""
        return self._samplers[number].sample()

    def close_sampler(self, number: int) -> None:
        """Free sampler ``number``."""
        self._samplers.pop(number).close()

    def close(self) -> None:
        """Free everything."""
        for sampler in self._samplers.values():
            sampler.close()
        self._samplers.clear()
        if self._llm is not None:
            self._llm.close()


def _watch(parent: int, ports: list[int]) -> None:
    """Notice vanished workers; and leave when the application has gone while llama.cpp computes."""
    if os.getppid() != parent:
        os._exit(1)
    watch_connections(ports)
