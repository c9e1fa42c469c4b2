"""Which of onnxruntime's providers runs the vision graph: the order to try them in, and why.

Source of the option names: onnxruntime's pages on execution providers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LlavaEdgeError, OptionError, shown

TENSORRT, CUDA, COREML = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CoreMLExecutionProvider"
DIRECTML, OPENVINO, CPU = "DmlExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider"

PROVIDERS = {
    "tensorrt": TENSORRT,
    "cuda": CUDA,
    "coreml": COREML,
    "directml": DIRECTML,
    "openvino": OPENVINO,
    "cpu": CPU,
}
"""Our short names and onnxruntime's own, in the order of preference."""

DEVICE_OPTION = {TENSORRT: "device_id", CUDA: "device_id", DIRECTML: "device_id", OPENVINO: "device_type"}
"""The option that a device behind the name sets, as in "cuda:1" or "openvino:GPU"."""

DEFAULT_OPTIONS = {
    COREML: {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"},
    OPENVINO: {"device_type": "CPU", "precision": "ACCURACY"},
}
"""``ACCURACY`` keeps the graph's own types: OpenVINO would else compute in bfloat16 where it can."""

_INSTEAD = "uninstall this onnxruntime and install"
_BRINGS = {
    TENSORRT: f'{_INSTEAD} "llava-edge[cuda]", on a machine with an NVIDIA GPU',
    CUDA: f'{_INSTEAD} "llava-edge[cuda]", on a machine with an NVIDIA GPU',
    OPENVINO: f'{_INSTEAD} "llava-edge[openvino]"',
    DIRECTML: f"{_INSTEAD} onnxruntime-directml, on Windows",
    COREML: "run it on macOS, whose onnxruntime has it",
    CPU: f'{_INSTEAD} "llava-edge[cpu]"',
}
"""How to get a provider that is not there."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """A provider to try: onnxruntime's name, its options, the reason, and the graph to give it.

    ``graph`` None means the bundle's own; else one that was compiled from it for this machine.
    """

    provider: str
    reason: str
    options: Mapping[str, str] = field(default_factory=dict)
    graph: Path | None = None

    @property
    def name(self) -> str:
        """Our short name, with the device where one was asked for or assumed."""
        short = short_name(self.provider)
        device = self.options.get(DEVICE_OPTION.get(self.provider, ""), "")
        return f"{short}:{device}" if device else short

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the processor's cores, which llama.cpp may want too."""
        return self.provider == CPU or self.options.get("device_type", "") == "CPU"


@dataclass(frozen=True)
class ProviderChoice:
    """The provider that runs the vision graph, and why this one; a plain value for statistics."""

    provider: str
    name: str
    reason: str
    on_cpu: bool

    def __str__(self) -> str:
        return f"vision on {self.name}: {self.reason}"


def short_name(provider: str) -> str:
    """Our name of an onnxruntime provider; its own where we have none."""
    return next((short for short, full in PROVIDERS.items() if full == provider), provider)


def order_attempts(
    available: Sequence[str], wanted: Sequence[str] = (), *, compiled: Mapping[str, Path | str] | None = None
) -> list[Attempt]:
    """Providers to try, in order, out of what this onnxruntime was built with (``available``).

    ``wanted`` are names (ours or onnxruntime's, "name:device" for one of several devices); empty
    means all there are, in the order of :data:`PROVIDERS`. ``compiled`` has, by onnxruntime's name,
    the graph that was compiled for this machine, or why there is none. TensorRT is left out of an
    unnamed order without one: it would compile for minutes at every load. The CPU always ends the
    list. Raises :class:`OptionError` for a provider that is not available.
    """
    found = compiled or {}
    named = [_parse(name, available) for name in wanted]
    if named:
        attempts = [_attempt(provider, "asked for", device, found) for provider, device in named]
    else:
        candidates = [provider for provider in PROVIDERS.values() if provider in available and provider != CPU]
        kept = [one for one in candidates if one != TENSORRT or isinstance(found.get(one), Path)]
        why = _unnamed_reason(candidates, kept, found)
        attempts = [_attempt(provider, why, "", found) for provider in kept]
    if CPU in available and all(attempt.provider != CPU for attempt in attempts):
        attempts.append(Attempt(CPU, "the fall-back" if attempts else _unnamed_reason(candidates, kept, found)))
    return attempts


def start_first(attempts: Sequence[Attempt], create: Callable[[Attempt], Any]) -> tuple[Any, ProviderChoice]:
    """Create a session by the first attempt that starts; each one that does not is one warning line.

    ``create`` raises a :class:`LlavaEdgeError` where a provider does not start. The last attempt's
    error is the caller's.
    """
    failed = ""
    for attempt, following in zip(attempts, [*attempts[1:], None], strict=True):
        try:
            session = create(attempt)
        except LlavaEdgeError as error:
            if following is None:
                raise
            _log.warning("vision: %s did not start (%s); trying %s", attempt.name, error.got, following.name)
            failed = failed or f"{attempt.name} did not start ({error.got})"
            continue
        return session, ProviderChoice(attempt.provider, attempt.name, failed or attempt.reason, attempt.on_cpu)
    raise OptionError(expected="a provider to try", got="none", fix="install onnxruntime again")


def _parse(name: str, available: Sequence[str]) -> tuple[str, str]:
    """onnxruntime's name and the device, of a provider that is there."""
    short, _, device = name.partition(":")
    provider = PROVIDERS.get(short.lower(), short)
    if provider not in available:
        brings = _BRINGS.get(provider)
        raise OptionError(
            expected=f"providers among {', '.join(one for one, full in PROVIDERS.items() if full in available)}",
            got=shown(name),
            fix=f"choose one of those, or {brings}" if brings else "choose one of those",
        )
    if device and provider not in DEVICE_OPTION:
        raise OptionError(expected=f"{short} without a device", got=name, fix=f"write {short}")
    return provider, device


def _attempt(provider: str, reason: str, device: str, compiled: Mapping[str, Path | str]) -> Attempt:
    options = dict(DEFAULT_OPTIONS.get(provider, {}))
    if device:
        options[DEVICE_OPTION[provider]] = device
    graph = compiled.get(provider)
    if not isinstance(graph, Path):
        return Attempt(provider, reason, options)
    return Attempt(provider, f"{reason}, with {graph}", options, graph)


def _unnamed_reason(candidates: Sequence[str], kept: Sequence[str], compiled: Mapping[str, Path | str]) -> str:
    names = [short_name(one) for one in [*kept, CPU]]
    reason = f"best of {', '.join(names)}" if kept else "the only one in this onnxruntime"
    left_out = [one for one in candidates if one not in kept]
    return reason + "".join(
        f"; {short_name(one)} left out: {compiled.get(one, 'nothing compiled')}" for one in left_out
    )
