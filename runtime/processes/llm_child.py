"""What runs in the child process of an isolated language model: llama.cpp, and its connections to workers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from ..ggml.devices import device_memory, local_gpus
from ..ggml.rpc import worker_devices
from ..language.llm import Llm
from ..language.sampling import Sampler
from ..option_checks import parse_endpoint
from ..options import GenerationOptions, LoadOptions
from .child_side import Child, become_child
from .connections import WorkerMemory, is_loopback, watch_connections
from .watching import WATCH_SECONDS, every


def main() -> None:
    """Serve one language model until the application goes or closes it."""
    child = become_child()
    child.serve(ServedLlm(child))


class ServedLlm:
    """What can be called: the methods of :class:`Llm` once it is loaded, and samplers by number."""

    def __init__(self, child: Child) -> None:
        """``child`` is told how a load goes on, and asked whether what is under way is still wanted."""
        self._child = child
        self._llm: Llm | None = None
        self._devices: list[int] = []
        self._samplers: dict[int, Sampler] = {}

    def __getattr__(self, method: str) -> Any:
        return getattr(self._llm, method)

    def connect(self, options: LoadOptions) -> list[WorkerMemory]:
        """Call the workers and keep the lines open; return their devices with the bytes that are free there."""
        ports = [parse_endpoint(endpoint)[1] for endpoint in options.workers]
        every(WATCH_SECONDS, lambda: watch_connections(ports))
        remote = worker_devices(options.workers)
        self._devices = [handle for _, handle in remote]
        if remote and options.device != "cpu":
            self._devices += local_gpus()
        return [(endpoint, device_memory(handle)[0]) for endpoint, handle in remote]

    def load(
        self, path: Path, options: LoadOptions, space_prefixed: bool, stop_tokens: Collection[int]
    ) -> dict[str, int]:
        """Load the model over the devices that ``connect`` found; return its sizes. Raises NativeError, OptionError."""
        if self._devices and options.tensor_split and len(options.tensor_split) != len(self._devices):
            raise OptionError(
                expected=f"{len(self._devices)} shares, one a device: workers first, then this machine's GPUs",
                got=f"{len(options.tensor_split)}",
                fix="give each device its share, 0 for none",
            )
        self._llm = Llm(
            path,
            options=options,
            space_prefixed=space_prefixed,
            stop_tokens=stop_tokens,
            devices=self._devices,
            on_load=self._child.send,
            cancelled=self._child.cancelled,
        )
        names = ("vocab_size", "dim", "context_limit", "threads", "joins_text")
        sizes = {name: getattr(self._llm, name) for name in names}
        # a worker here may compute on the same cores; a tunnel's end looks alike, and then only an overlap is lost
        return {**sizes, "on_cpu": self._llm.on_cpu or any(map(is_loopback, options.workers))}

    def decode_tokens(self, tokens: Sequence[int], position: int, *, logits: bool, every: bool = False) -> None:
        """As :meth:`Llm.decode_tokens`, until it is no longer wanted."""
        assert self._llm is not None
        self._llm.decode_tokens(tokens, position, logits=logits, every=every, cancelled=self._child.cancelled)

    def decode_embeddings(self, embeddings: npt.NDArray[np.float32], position: int, *, logits: bool = False) -> None:
        """As :meth:`Llm.decode_embeddings`, until it is no longer wanted."""
        assert self._llm is not None
        self._llm.decode_embeddings(embeddings, position, logits=logits, cancelled=self._child.cancelled)

    def current_context(self) -> int:
        """``Llm.context_size``, which is no method."""
        assert self._llm is not None
        return self._llm.context_size

    def sampler(self, options: GenerationOptions, seed: int, recent: Sequence[int]) -> int:
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
        """Free samplers and model."""
        for sampler in self._samplers.values():
            sampler.close()
        self._samplers.clear()
        if self._llm is not None:
            self._llm.close()
