"""Facts of this machine: its processor, the memory that is free, the user's cache folder.

What Linux tells comes from /proc and, in a container, from its control group. Elsewhere a fact that
nobody tells is empty, 0 or no: callers then choose what is right on every machine.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CPU_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
PROCESSORS = Path("/sys/devices/system/cpu")
"""Where Linux lists the processors, the memory, this process's control groups, their limits, and what cores share."""
NO_LIMIT = 2**60
"""Version 1 of control groups writes "no limit" as a number near 2**63."""


def physical_cores() -> int:
    """Physical cores this process may use, a container's quota included; hyperthreads slow matrix products down."""
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:  # macOS and Windows have no affinity call
        return os.cpu_count() or 1
    siblings = set()
    for cpu in usable:
        try:
            siblings.add((PROCESSORS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            siblings.add(str(cpu))
    # a part of a core is left out: a thread more than the quota would make all others wait for it
    return max(1, min([len(siblings), *(int(quota) for quota in _cpu_quotas())]))


def thread_warnings(threads: int) -> tuple[str, ...]:
    """A sentence about more threads than processors: each waits for all others, 1024 on two for a minute a question."""
    processors = os.cpu_count() or threads
    if threads <= processors:
        return ()
    return (
        f"{threads} threads are more than this machine's {processors} processors, and so slower than {processors}.",
    )


def processor() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo by name; empty where there is none."""
    try:
        first = CPU_INFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def processor_name() -> str:
    """What the processor calls itself, or "unknown"."""
    return processor().get("model name") or platform.processor() or "unknown"


def processor_flags() -> frozenset[str]:
    """What Linux says this processor can do, in its words: "avx2", on Arm "i8mm"; nothing elsewhere."""
    entry = processor()
    return frozenset(f"{entry.get('flags', '')} {entry.get('features', '')}".split())


def has_amx() -> bool:
    """Whether this processor has Intel's AMX matrix unit (as Linux tells it; elsewhere no)."""
    return "amx_tile" in processor_flags()


def int8_sums_overflow() -> bool:
    """Whether sums of uint8 x int8 products can overflow here: x86 without VNNI, where Linux tells.

    onnxruntime has an exact spelling for such processors. It must not be asked for elsewhere: on one
    with AMX it measures 3.5 times as slow, because it turns the int8 weights into uint8.
    """
    flags = processor_flags()
    return "avx2" in flags and not flags & {"avx512_vnni", "avx_vnni"}


def int8_sums_known() -> bool:
    """Whether :func:`int8_sums_overflow` can say: on Arm they never do, on x86 Linux has to tell what it can."""
    return bool(processor_flags()) or platform.machine().lower() in ("arm64", "aarch64")


def total_memory() -> int:
    """Bytes of memory that are built in; 0 where unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 0


def available_memory() -> int:
    """Bytes that can be had without swapping: the machine's, or the container's where that is less; 0 where unknown."""
    machine = _free_on_this_machine()
    return min([*([machine] if machine else []), *_free_in_groups()], default=0)


def _free_on_this_machine() -> int:
    try:
        for line in MEMORY_INFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return total_memory() // 2  # macOS does not say what is free


def _free_in_groups() -> Iterator[int]:
    """Bytes left in each control group above this process that has a limit."""
    names = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for folder, (limit, used) in _groups("memory", *names):
        try:
            bound, taken = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
            lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):  # no such group, or "max"
            continue
        # the page cache counts as used, but what is inactive of it is given back on demand
        statistics = dict(line.partition(" ")[::2] for line in lines)
        cached = int(statistics.get("total_inactive_file") or statistics.get("inactive_file") or 0)
        if bound < NO_LIMIT:
            yield max(bound - taken + cached, 0)


def cpu_quota() -> float | None:
    """Cores' time that this process's control groups leave it; None where there is no limit."""
    return min(_cpu_quotas(), default=None)


def _cpu_quotas() -> Iterator[float]:
    """Cores' time that each control group above this process may use, where it has a limit."""
    for folder, names in _groups("cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
            quota, period = (int(word) for word in words)
        except (OSError, ValueError):  # no such group, or "max"
            continue
        if quota > 0 and period > 0:  # version 1 writes -1 for no limit
            yield quota / period


def _groups(kind: str, second: tuple[str, ...], first: tuple[str, ...]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Folders of the control groups above this process, of version 2 and 1, each with its version's names of files."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    paths = {kinds: path for _, kinds, path in (line.split(":", 2) for line in lines if line.count(":") >= 2)}
    ours = PurePosixPath(paths.get("", "/"))
    for path in (ours, *ours.parents):
        yield GROUPS / str(path).lstrip("/"), second
    ours = PurePosixPath(next((path for kinds, path in paths.items() if kind in kinds.split(",")), "/"))
    for path in (ours, *ours.parents):
        yield GROUPS / kind / str(path).lstrip("/"), first


def cache_folder() -> Path:
    """The user's cache: ``LLAVA_EDGE_CACHE``, or the system's usual place.

    A user without a home (a container's number without a name) has none: then a path at which nothing is and
    nothing can be made, so that whoever looks there goes on as with a cache that can't be written.
    """
    if own := os.environ.get("LLAVA_EDGE_CACHE"):
        return Path(os.path.expanduser(own))  # a shell leaves ~ as it is in quotes, and a unit file everywhere
    return _users_folder("XDG_CACHE_HOME", ".cache", "Library/Caches")


def data_folder() -> Path:
    """Where the system keeps what a user's programs have fetched for good; as :func:`cache_folder` without a home."""
    return _users_folder("XDG_DATA_HOME", ".local/share", "Library/Application Support")


def _users_folder(variable: str, elsewhere: str, on_macos: str) -> Path:
    named = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, variable)
    below = {"win32": "AppData/Local", "darwin": on_macos}.get(sys.platform, elsewhere)
    usual = os.environ.get(named, "")
    if os.path.isabs(usual):  # a relative one is invalid, says the XDG specification
        return Path(usual) / "llava-edge"
    try:
        return Path.home() / below / "llava-edge"
    except RuntimeError:
        return Path(os.devnull) / "llava-edge"
