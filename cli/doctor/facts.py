"""What is installed and what this machine has. A fact that can't be had is the reason why, and never an error."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...runtime.errors import LlavaEdgeError, first_line, without_credentials
from ...runtime.system import machine

DISTRIBUTION = "llava-edge"
FEATURES = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""Instruction sets that matrix products depend on, in Linux's words."""
ENVIRONMENT = re.compile(r"LLAVA_EDGE_|OMP_|GOMP_|CUDA_|HIP_|GGML_|ORT_|HF_|(HTTPS?|NO|ALL)_PROXY$|PYTHON|LC_|LANG$")
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL|PROXY", re.IGNORECASE)
"""Variables of which only the name is shown."""


_COUNT = re.compile(r"TOKENS$", re.IGNORECASE)
"""Variables of numbers that look like secrets by their name alone."""


def gather(
    configuration: Callable[[], Mapping[str, Any]], wrong_settings: Callable[[], list[str]] = list
) -> dict[str, Any]:
    """Everything ``doctor --json`` prints but the advice.

    ``configuration`` tells what the command line was given, ``wrong_settings`` what is wrong with it, a sentence each.
    """
    sources: dict[str, Callable[[], Any]] = {
        "versions": _versions,
        "packages": _packages,
        "extras": _extras,
        "processor": _processor,
        "memory": _memory,
        "llama_cpp": _llama_cpp,
        "onnxruntime": _onnxruntime,
        "gpus": _gpus,
        "caches": _caches,
        "configuration": lambda: dict(configuration()),
        "environment": _environment,
        "wrong_settings": wrong_settings,
    }
    return {name: without_home(_public(_tried(source))) for name, source in sources.items()}


def _public(value: Any) -> Any:
    """``value`` without the passwords and tokens that addresses in it have."""
    if isinstance(value, dict):
        return {_public(name): _public(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_public(one) for one in value]
    return without_credentials(value) if isinstance(value, str) else value


def _tried(source: Callable[[], Any]) -> Any:
    try:
        return source()
    except LlavaEdgeError as error:
        return {"error": str(error)}
    except Exception as error:  # a broken package may raise anything, and is what doctor is asked about
        return {"error": f"{type(error).__name__}: {first_line(error)}"}


def without_home(value: Any) -> Any:
    """``value`` with ``~`` for the user's home: a report that is pasted somewhere need not say who made it."""
    if isinstance(value, dict):
        return {name: without_home(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_home(one) for one in value]
    home = os.path.expanduser("~")
    if not isinstance(value, str) or len(home) < 2 or home.startswith("~"):
        return value
    return re.sub(rf"{re.escape(home)}(?=$|[/\\:;,'\" )])", "~", value)


def _versions() -> dict[str, str]:
    return {
        "llava-edge": _version(DISTRIBUTION) or "unknown",
        "python": platform.python_version(),
        "system": platform.platform(),
        "encoding": f"{sys.stdout.encoding}, file names {sys.getfilesystemencoding()}",
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


_FOR_TESTS = ("dev", "clients")
"""Extras that nobody needs to use the program."""


def _requirements() -> dict[str, list[str]]:
    """Names of packages by the extra that needs them; by "" those that are always needed."""
    found: dict[str, list[str]] = {}
    for line in importlib.metadata.requires(DISTRIBUTION) or ():
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", marker)
        name = re.match(r"[\w.-]+", requirement.strip())
        if name is not None:
            found.setdefault(extra[1] if extra else "", []).append(name[0])
    return found


def _packages() -> dict[str, str]:
    """Versions of what is installed: of what runs, not of our own tests, and of all that calls itself onnxruntime."""
    wanted = {name for extra, names in _requirements().items() if extra not in _FOR_TESTS for name in names}
    ours = {name: found for name in sorted(wanted) if (found := _version(name))}
    others = {
        name: one.version
        for one in importlib.metadata.distributions()
        if re.match(r"onnxruntime([-_]|$)", name := (one.metadata["Name"] or "").lower())
    }
    return {**ours, **others}


def _extras() -> dict[str, dict[str, Any]]:
    """Whether each extra is installed, and what of it is missing."""
    found = {}
    for extra, names in _requirements().items():
        missing = [name for name in names if _version(name) is None]
        if extra:
            found[extra] = {"installed": not missing, "missing": missing}
    return found


def _processor() -> dict[str, Any]:
    flags = machine.processor_flags()
    return {
        "name": machine.processor_name(),
        "architecture": platform.machine(),
        "instruction_sets": [one for one in FEATURES if one in flags],
        "logical": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "quota": machine.cpu_quota(),
        "threads": machine.physical_cores(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _memory() -> dict[str, int]:
    return {"total": machine.total_memory(), "available": machine.available_memory()}


def _llama_cpp() -> dict[str, Any]:
    from ...runtime.ggml.devices import CPU, GPU, INTEGRATED_GPU, device_memory, device_name, devices_of
    from ...runtime.ggml.library import kernels, library_folder

    devices = [
        {"name": device_name(one), "kind": kind, "free": device_memory(one)[0], "total": device_memory(one)[1]}
        for number, kind in ((CPU, "cpu"), (GPU, "gpu"), (INTEGRATED_GPU, "integrated gpu"))
        for one in devices_of(number)
    ]
    return {"folder": str(library_folder()), "kernels": kernels(), "devices": devices}


def _onnxruntime() -> dict[str, Any]:
    from ...runtime.onnx_runtime.importing import import_onnxruntime

    library = import_onnxruntime()
    return {"version": library.__version__, "providers": list(library.get_available_providers())}


def _gpus() -> list[str]:
    """Graphics processors that the system tells of, whether or not anything here can use them."""
    found = []
    for entry in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        model = re.search(r"^Model:\s*(.+)$", entry.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        found.append(model[1].strip() if model else "NVIDIA")
    if not found and (Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi")):
        found.append("NVIDIA")
    if Path("/dev/kfd").exists():
        found.append("AMD")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        found.append("Apple")
    return found


def _caches() -> dict[str, Any]:
    folder = _tried(machine.cache_folder)
    hub = os.environ.get("HF_HUB_CACHE") or os.path.join(os.environ.get("HF_HOME") or "~/.cache/huggingface", "hub")
    return {"llava-edge": _folder(folder), "hub": _folder(Path(os.path.expanduser(hub)))}


def _folder(folder: Any) -> dict[str, Any]:
    """A folder's path, the bytes in it, and those that are free where it is or would be."""
    if not isinstance(folder, Path):
        return {"folder": None, "bytes": 0, "free": 0, "writable": False}
    there = next((one for one in (folder, *folder.parents) if os.path.lexists(one)), Path(os.sep))
    if not there.is_dir():
        what = "a file" if there.is_file() else "no folder"
        return {"folder": str(folder), "bytes": 0, "free": 0, "writable": False, "reason": f"{there} is {what}"}
    used = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                used += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue  # it went while we looked
    free, writable = shutil.disk_usage(there).free, os.access(there, os.W_OK)
    return {"folder": str(folder), "bytes": used, "free": free, "writable": writable}


def _environment() -> dict[str, str]:
    return {
        name: "set" if SECRET.search(name) and not (_COUNT.search(name) and value.isdecimal()) else value
        for name, value in sorted(os.environ.items())
        if ENVIRONMENT.match(name)
    }
