"""What a caller may choose: how a bundle is loaded, and how an answer is sampled."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from .errors import OptionError

DEFAULT_MAX_TOKENS = 512
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Types that llama.cpp's cache may have."""
SPLIT_MODES = ("none", "layer", "row")
"""How llama.cpp may split a model over GPUs."""
CONTEXT_STEP = 256
"""Contexts are sized in steps of this many positions; llama.cpp pads to it anyway (llama-context.cpp)."""
MAX_DEVICES = 16
"""Devices that llama.cpp splits a model over."""
PENALTY_WINDOW = 64
"""Tokens that the repeat penalty looks back on (llama.cpp's usual window)."""


@dataclass(frozen=True)
class LoadOptions:
    """How a bundle is loaded. The defaults are what measured best; see ``docs/performance.md``.

    ``threads`` drives decoding, prefill and the vision tower; 0 means one per physical core.
    ``batch`` is positions a prefill call, ``micro_batch`` positions llama.cpp computes at once.
    ``flash_attention`` None means llama.cpp's choice on a GPU and off on a CPU, where its kernel
    moves a long prompt's logits (KL 2e-3) and so breaks parity with the reference. ``context`` in positions; 0 sizes it
    from each prompt, up to the model's limit. ``gpu_layers`` -1 puts all layers on a GPU if the
    build has one. ``providers`` run the vision tower, the first that starts: names as "cuda", "openvino"
    or "cuda:1"; empty means the best one installed.
    ``repack`` lets llama.cpp rearrange weights at load for faster products; None means yes, on CPUs
    with AMX only after a trial, because a llama.cpp compiled by GCC 12 dies there (``repacking``;
    an ``Llm`` on its own makes no trial and leaves it off there).
    ``images_kept`` encoded pictures stay in memory, the latest used.

    ``device`` "auto" lets the planner choose what the following and ``gpu_layers`` leave open, "cpu"
    uses no GPU of this machine, empty leaves the choices to llama.cpp. ``workers`` are HOST:PORT of
    ``llava-edge worker`` on other machines; with them the planner chooses too. ``tensor_split`` are
    the shares of the layers that each device gets, workers first, then this machine's GPUs.
    ``split_mode`` puts the model on one GPU, or splits it by layers or rows; ``main_gpu`` is the one
    for "none" and for what "row" can't split. ``kv_type_k`` and ``kv_type_v`` are llama.cpp's types
    of the KV cache, f16 where empty.

    ``isolate`` keeps llama.cpp in a process of its own, so that its crash is an error; workers
    imply it. ``worker_timeout`` in seconds ends a step of computing that takes longer; 0 never.
    """

    threads: int = 0
    batch: int = 512
    micro_batch: int = 512
    flash_attention: bool | None = None
    context: int = 0
    gpu_layers: int = -1
    providers: tuple[str, ...] = ()
    repack: bool | None = None
    images_kept: int = 8
    device: Literal["", "auto", "cpu"] = ""
    tensor_split: tuple[float, ...] = ()
    split_mode: Literal["none", "layer", "row"] | None = None
    main_gpu: int | None = None
    kv_type_k: str = ""
    kv_type_v: str = ""
    workers: tuple[str, ...] = ()
    isolate: bool = False
    worker_timeout: float = 600.0

    def __post_init__(self) -> None:
        _check("threads", self.threads, 0, 1024)
        _check("batch", self.batch, 1, 65536)
        _check("micro_batch", self.micro_batch, 1, self.batch)
        _check("context", self.context, 0, 2**24)
        _check("gpu_layers", self.gpu_layers, -1, 10_000)
        _check("images_kept", self.images_kept, 0, 10_000)
        _check_word("device", self.device, ("", "auto", "cpu"))
        _check_word("split_mode", self.split_mode, (None, *SPLIT_MODES))
        for kind in (self.kv_type_k, self.kv_type_v):
            _check_word("a KV type", kind, ("", *KV_TYPES))
        if self.main_gpu is not None:
            _check("main_gpu", self.main_gpu, 0, 1024)
        _check("worker_timeout", self.worker_timeout, 0, 86_400)
        self._check_sharding()

    def _check_sharding(self) -> None:
        if isinstance(self.workers, str) or len(set(self.workers)) < len(self.workers):
            raise OptionError(
                expected="workers as a tuple of different HOST:PORT", got=repr(self.workers), fix="name each one once"
            )
        for endpoint in self.workers:
            parse_endpoint(endpoint)
        for share in self.tensor_split:
            _check("tensor_split", share, 0.0, 1e9)
        if len(self.tensor_split) > MAX_DEVICES or (self.tensor_split and not any(self.tensor_split)):
            raise OptionError(
                expected=f"1 to {MAX_DEVICES} shares, one above 0",
                got=repr(self.tensor_split),
                fix="give each device its share of the layers",
            )


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is sampled. ``temperature`` 0 is greedy and deterministic.

    ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 and ``repeat_penalty`` 1 switch their filters off.
    ``seed`` None draws a new one for every answer. ``stop`` strings end the answer and are not
    part of it.
    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check("max_tokens", self.max_tokens, 1, 2**24)
        _check("temperature", self.temperature, 0.0, 100.0)
        _check("top_k", self.top_k, 0, 2**31 - 1)
        _check("top_p", self.top_p, 0.0, 1.0)
        _check("min_p", self.min_p, 0.0, 1.0)
        _check("repeat_penalty", self.repeat_penalty, 0.01, 100.0)
        if self.seed is not None:
            _check("seed", self.seed, 0, 2**32 - 1)
        if isinstance(self.stop, str) or not all(self.stop):
            raise OptionError(expected="stop as a tuple of non-empty strings", got=repr(self.stop), fix="give a tuple")


def padded_context(positions: int) -> int:
    """``positions`` in whole steps of a context."""
    return math.ceil(positions / CONTEXT_STEP) * CONTEXT_STEP


def make_options(kind: type[Any], **values: Any) -> Any:
    """Build an options value, naming a keyword that it does not have."""
    known = [one.name for one in fields(kind)]
    if unknown := sorted(set(values) - set(known)):
        raise OptionError(
            expected=f"options among {', '.join(known)}", got=", ".join(unknown), fix="check the spelling"
        )
    return kind(**values)


def _check(name: str, value: float, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise OptionError(expected=f"{name} from {low:g} to {high:g}", got=repr(value), fix=f"choose another {name}")


def _check_word(name: str, value: str | None, known: tuple[str | None, ...]) -> None:
    if value not in known:
        words = ", ".join(one for one in known if one)
        raise OptionError(expected=f"{name} among {words}", got=repr(value), fix="choose one of those")


DEFAULT_PORT = 50052
"""llama.cpp's own port for it."""


def parse_endpoint(endpoint: str) -> tuple[str, int]:
    """``HOST:PORT`` as its two parts. Raises :class:`OptionError`."""
    host, colon, port = endpoint.rpartition(":")
    if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65536 or ":" in host:
        raise OptionError(
            expected="a worker as HOST:PORT (IPv4 address or name)",
            got=repr(endpoint),
            fix=f"write it like 127.0.0.1:{DEFAULT_PORT}",
        )
    return host, int(port)
