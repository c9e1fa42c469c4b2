"""Torch within a container's share: it counts the processors it may run on, not the time that it may take of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .machine import cpu_quota


@contextmanager
def torch_within_quota(torch: Any) -> Iterator[None]:
    """Let ``torch`` compute with no more threads than this process's quota of processors; afterwards as before.

    A thread more than the quota makes all others wait for it. Without a quota nothing changes.
    """
    quota = cpu_quota()
    before = torch.get_num_threads()
    if quota is not None:
        torch.set_num_threads(max(1, min(before, int(quota))))
    try:
        yield
    finally:
        if quota is not None:
            torch.set_num_threads(before)
