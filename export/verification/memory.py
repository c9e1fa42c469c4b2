"""How much memory a float32 reference would take, and how much there is."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ..checkpoint.checkpoint import Checkpoint

FLOAT32_BYTES = 4
HEADROOM = 1.25
"""Activations, caches and the tensor being converted, as a share of the weights."""
_CGROUP = Path("/sys/fs/cgroup")


def reference_fits(checkpoint: Checkpoint) -> bool:
    """Whether the whole model in float32 fits the memory that is free now."""
    numbers = sum(math.prod(checkpoint.tensors.shape(name)) for name in checkpoint.tensors.names(""))
    return numbers * FLOAT32_BYTES * HEADROOM <= available_memory()


def available_memory() -> int:
    """Free memory in bytes: the machine's, or the container's if that is less; 0 where unknown."""
    limits = [one for one in (_machine_memory(), _container_memory()) if one is not None]
    return min(limits, default=0)


def _machine_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:  # macOS: half of what is built in
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return None


def _container_memory() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used, 0)
