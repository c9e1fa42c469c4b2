"""What ``llava-edge optimize`` compiled from a bundle's vision graph: where it lies, and whether it fits.

A TensorRT engine is code for one GPU, so it is kept in the user's cache and never in a bundle, under
a key of everything that would make it wrong: graph, GPU, driver, library versions.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ..system.machine import cache_folder

GRAPH = "vision.onnx"
"""Name of the graph to load; for TensorRT it is a small one that names the engine file beside it."""
RECORD = "compiled.json"
"""Name of the key and the measurements, for people."""
TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")
_QUERY_SECONDS = 10


@dataclass(frozen=True)
class MachineKey:
    """All that a compiled graph belongs to, besides the graph it was made from."""

    gpu: str
    driver: str
    capability: str
    onnxruntime: str
    tensorrt: str

    @property
    def digest(self) -> str:
        """Name of the folder of what was compiled for it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def difference(self, other: MachineKey) -> str:
        """The fields in which ``other`` is another one, as "driver 550.1, here 560.2"."""
        ours, theirs = asdict(self), asdict(other)
        return ", ".join(f"{name} {theirs[name]}, here {ours[name]}" for name in ours if ours[name] != theirs[name])


def this_machine(onnxruntime: Any) -> MachineKey | None:
    """The key of the first NVIDIA GPU here; None where ``nvidia-smi`` finds none."""
    try:
        said = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True).stdout
        gpu, driver, capability = (part.strip() for part in said.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return MachineKey(gpu, driver, capability, str(onnxruntime.__version__), _tensorrt_version())


def compiled_folder(kind: str, fingerprint: str, machine: MachineKey) -> Path:
    """Where the graph lies that was compiled for provider ``kind`` from the file of ``fingerprint``."""
    return cache_folder() / kind / fingerprint[:16] / machine.digest


def find_compiled(kind: str, fingerprint: str, machine: MachineKey | None) -> Path | str:
    """The graph compiled for ``machine`` (this one), or in a few words why there is none.

    ``kind`` is a provider's short name, ``fingerprint`` the SHA-256 of the bundle's vision file.
    """
    if machine is None:
        return "nvidia-smi finds no GPU"
    graph = compiled_folder(kind, fingerprint, machine) / GRAPH
    if graph.is_file():
        return graph
    others = sorted(graph.parent.parent.glob(f"*/{RECORD}"))
    if not others:
        return "nothing compiled for this GPU yet ('llava-edge optimize' does it)"
    return f"compiled for {_difference(machine, others[-1])} ('llava-edge optimize' does it again)"


def _difference(machine: MachineKey, record: Path) -> str:
    try:
        other = MachineKey(**json.loads(record.read_text(encoding="utf-8"))["machine"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another machine"
    return machine.difference(other)


def _tensorrt_version() -> str:
    for name in TENSORRT_PACKAGES:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
