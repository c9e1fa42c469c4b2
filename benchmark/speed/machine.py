"""What a measurement ran on, and whether it had the machine to itself."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...runtime.system.machine import physical_cores, processor_flags, processor_name, total_memory

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16")
"""Processor features that matrix products depend on."""
PACKAGES = ("llava-edge", "numpy", "onnxruntime", "llama-cpp-python")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, features, memory in bytes, system, Python and our packages' versions."""
    return {
        "processor": processor_name(),
        "cores": physical_cores(),
        "features": [flag for flag in FLAGS if flag in processor_flags()],
        "memory": total_memory(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def machine_line(machine: dict[str, Any]) -> str:
    """What :func:`describe_machine` found in one line, without the packages' versions."""
    features = ", ".join(machine["features"]) or "no wide features"
    return (
        f"{machine['processor']}, {machine['cores']} cores ({features}), {machine['memory'] / 2**30:.0f} GiB, "
        f"{machine['system']}, Python {machine['python']}"
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class CpuClock:
    """Seconds of all cores together since boot, as Linux counts them: at work, and at work or idle."""

    busy: float
    total: float

    @staticmethod
    def now() -> CpuClock | None:
        """The present state; None where the system does not tell."""
        try:
            fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
        except OSError:
            return None
        user, nice, system, idle, waiting, irq, soft_irq, steal = (int(one) for one in fields)
        ticks = os.sysconf("SC_CLK_TCK")
        busy = user + nice + system + irq + soft_irq + steal
        return CpuClock(busy / ticks, (busy + idle + waiting) / ticks)


def share_of_others(before: CpuClock | None, after: CpuClock | None, own: float) -> float | None:
    """The share of all cores' time that other processes used, ``own`` being our CPU seconds; 0 is a quiet machine."""
    if before is None or after is None or after.total <= before.total:
        return None
    return max((after.busy - before.busy - own) / (after.total - before.total), 0.0)


def share_of(before: CpuClock | None, after: CpuClock | None, seconds: float) -> float | None:
    """The share of all cores' time that ``seconds`` of CPU time are."""
    if before is None or after is None or after.total <= before.total:
        return None
    return seconds / (after.total - before.total)
