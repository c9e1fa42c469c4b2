"""Facts of the machine, from the files that Linux writes, played; and what other systems lack."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest
from llava_edge.runtime.errors import StorageError
from llava_edge.runtime.system import machine
from llava_edge.runtime.system.machine import available_memory, cache_folder, physical_cores, processor_flags
from llava_edge.runtime.system.storage import write_text

MIB = 2**20
V2 = "0::/app/model\n"
V1 = "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n"


@pytest.fixture
def linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four cores with two threads each, 1000 MiB free, and no control groups."""
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "PROCESSORS", tmp_path / "cpus")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:    {1000 * 1024} kB\n")
    for cpu in range(8):
        write(tmp_path / f"cpus/cpu{cpu}/topology", thread_siblings_list=f"{cpu % 4},{cpu % 4 + 4}")
    return tmp_path


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def limit(linux: Path, version: int, group: str, megabytes: object, used: int = 0, cached: int = 0) -> None:
    size = megabytes * MIB if isinstance(megabytes, int) else megabytes
    if version == 2:
        folder = linux / "groups" / group
        write(
            folder, memory__max=size, memory__current=used * MIB, memory__stat=f"anon 1\ninactive_file {cached * MIB}"
        )
    else:
        folder = linux / "groups" / "memory" / group
        statistics = f"inactive_file 0\ntotal_inactive_file {cached * MIB}"
        write(folder, memory__limit_in_bytes=size, memory__usage_in_bytes=used * MIB, memory__stat=statistics)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx_vnni\n", {"fpu", "avx2", "avx_vnni"}),
        ("Features\t: fp asimd asimddp\n", {"fp", "asimd", "asimddp"}),
        (None, set()),
    ],
    ids=["x86", "arm", "not linux"],
)
def test_flags_as_linux_lists_them(text: str | None, expected: set[str], linux: Path) -> None:
    if text is not None:
        (linux / "cpuinfo").write_text(text)
    assert processor_flags() == expected


def test_this_machine() -> None:
    assert available_memory() > 10**8
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)


def test_no_limit_is_the_machine(linux: Path) -> None:
    assert available_memory() == 1000 * MIB
    assert physical_cores() == 4


@pytest.mark.parametrize(("version", "own"), [(2, V2), (1, V1)])
@pytest.mark.parametrize("seen", ["from inside", "from outside"])
def test_a_containers_memory(version: int, own: str, seen: str, linux: Path) -> None:
    """Inside a container its own group is the root of what is mounted; outside it has the path of /proc/self/cgroup."""
    (linux / "own").write_text("0::/\n" if seen == "from inside" and version == 2 else own)
    group = "" if seen == "from inside" else own.strip().splitlines()[0].rpartition(":")[2].strip("/")
    limit(linux, version, group, 512, used=300, cached=50)
    assert available_memory() == (512 - 300 + 50) * MIB


@pytest.mark.parametrize(("version", "own", "unlimited"), [(2, V2, "max"), (1, V1, 2**63 - 4096)])
def test_no_limit_of_a_group(version: int, own: str, unlimited: object, linux: Path) -> None:
    (linux / "own").write_text(own)
    limit(linux, version, "", unlimited, used=300)
    assert available_memory() == 1000 * MIB


def test_the_tightest_group_decides(linux: Path) -> None:
    (linux / "own").write_text(V2)
    limit(linux, 2, "app/model", "max")
    limit(linux, 2, "app", 100, used=40)
    limit(linux, 2, "", 900)
    assert available_memory() == 60 * MIB
    limit(linux, 2, "app/model", 10, used=11)
    assert available_memory() == 0


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu__max": "200000 100000"}, 2),
        ({"cpu__max": "250000 100000"}, 2),
        ({"cpu__max": "50000 100000"}, 1),
        ({"cpu__max": "900000 100000"}, 4),
        ({"cpu__max": "max 100000"}, 4),
        ({"cpu__max": "nonsense"}, 4),
    ],
)
def test_a_quota_of_cores(files: dict[str, object], cores: int, linux: Path) -> None:
    (linux / "own").write_text(V2)
    write(linux / "groups" / "app", **files)
    assert physical_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [(300000, 3), (-1, 4)])
def test_a_quota_of_the_first_version(quota: int, cores: int, linux: Path) -> None:
    (linux / "own").write_text(V1)
    write(linux / "groups" / "cpu" / "docker/1", cpu__cfs_quota_us=quota, cpu__cfs_period_us=100000)
    assert physical_cores() == cores


def test_macos(linux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither /proc nor /sys nor affinity: half of the memory that sysconf tells."""
    (linux / "meminfo").unlink()
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 16384, "SC_PHYS_PAGES": 2**20}.__getitem__)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv("LLAVA_EDGE_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/Users/one")
    assert physical_cores() == 10
    assert available_memory() == 8 * 2**30
    assert processor_flags() == frozenset()
    assert cache_folder() == Path("/Users/one/Library/Caches/llava-edge")


def test_a_cache_below_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/one")
    monkeypatch.setenv("LLAVA_EDGE_CACHE", "~/cache")
    assert cache_folder() == Path("/home/one/cache")


def test_windows(linux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sysconf either: nothing is known of the memory."""
    (linux / "meminfo").unlink()
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("LLAVA_EDGE_CACHE", raising=False)
    monkeypatch.setenv("LOCALAPPDATA", "/c/Local")
    assert available_memory() == machine.total_memory() == 0
    assert cache_folder() == Path("/c/Local/llava-edge")
    monkeypatch.delenv("LOCALAPPDATA")
    monkeypatch.setenv("HOME", "/c/one")
    assert cache_folder() == Path("/c/one/AppData/Local/llava-edge")


def test_a_user_without_a_home_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found in such a cache, and writing into it is the error that an unwritable one gives."""
    for name in ("HOME", "LLAVA_EDGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert not (cache_folder() / "repacking.json").is_file()
    assert list(cache_folder().glob("*")) == []
    with pytest.raises(StorageError):
        write_text(cache_folder() / "repacking.json", "{}")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/and/so/invalid")
    assert cache_folder().is_absolute()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "llava-edge"
