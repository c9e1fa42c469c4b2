"""What of a machine's facts would make answers slow or impossible, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

GIGA = 2**30
LITTLE_MEMORY = 4 * GIGA
LITTLE_DISK = 10 * GIGA
KERNELS = {
    "f16c": "F16C",
    "fma": "FMA",
    "avx2": "AVX2",
    "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "amx_int8": "AMX_INT8",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
}
"""llama.cpp's names of instruction sets, by Linux's."""
_REBUILD = "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"


def advise(facts: Mapping[str, Any]) -> list[str]:
    """A sentence for each thing that is wrong or slow, worst first."""
    return [*_missing(facts), *_graphics(facts), *_processor(facts), *_room(facts), *_settings(facts)]


def _part(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of the facts; empty where it could not be had."""
    part = facts.get(name)
    return part if isinstance(part, Mapping) else {}


def _missing(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, needed in (("llama_cpp", "answers"), ("onnxruntime", "pictures")):
        if error := _part(facts, name).get("error"):
            yield f"no {needed}: {error}"
    several = sorted(name for name in _part(facts, "packages") if name.lower().startswith("onnxruntime"))
    if len(several) > 1:
        yield f"{' and '.join(several)} overwrite each other's files: uninstall all of them, and install one again"


def _graphics(facts: Mapping[str, Any]) -> Iterator[str]:
    found = facts.get("gpus")
    if not isinstance(found, list) or not found:
        yield "no GPU was found: everything is computed on the processor"
        return
    nvidia = "NVIDIA" in " ".join(found) or (len(found) > 0 and found[0] not in ("AMD", "Apple"))
    kinds = {device.get("kind") for device in _part(facts, "llama_cpp").get("devices", ())}
    if kinds and not kinds & {"gpu", "integrated gpu"}:
        backend = "GGML_CUDA" if nvidia else "GGML_HIP" if found[0] == "AMD" else "GGML_METAL"
        yield f"there is a GPU, but llama.cpp has no backend for it: CMAKE_ARGS=-D{backend}=on {_REBUILD}"
    providers = _part(facts, "onnxruntime").get("providers", ())
    if nvidia and providers and "CUDAExecutionProvider" not in providers:
        yield "there is a GPU, but this onnxruntime has no CUDA: uninstall it, and install llava-edge[cuda]"


def _processor(facts: Mapping[str, Any]) -> Iterator[str]:
    processor, kernels = _part(facts, "processor"), _part(facts, "llama_cpp").get("kernels", {})
    sets = processor.get("instruction_sets", ())
    lacking = [name for flag, name in KERNELS.items() if flag in sets and kernels and not kernels.get(name)]
    if lacking:
        yield f"llama.cpp was compiled without {', '.join(lacking)}, which this processor has: {_REBUILD}"
    if processor.get("architecture") in ("x86_64", "AMD64") and sets and "avx2" not in sets:
        yield "this processor has no AVX2: products take several times as long"
    if "avx2" in sets and not {"avx512_vnni", "avx_vnni"} & set(sets):
        yield "this processor has no VNNI: int8 vision gains less than elsewhere"
    quota, usable = processor.get("quota"), processor.get("usable") or 1
    if quota is not None and quota < usable:
        yield f"this container may use {quota:g} of {usable} processors"
    load, threads = processor.get("load") or 0, processor.get("threads") or 1
    if load > 0.7 * threads:
        yield f"the machine is busy (load {load:g} with {threads} cores): answers take longer; try --threads 1"


def _room(facts: Mapping[str, Any]) -> Iterator[str]:
    available = _part(facts, "memory").get("available") or 0
    if 0 < available < LITTLE_MEMORY:
        yield f"{available / GIGA:.1f} GiB of memory are free: ask 'llava-edge plan BUNDLE' what fits"
    for name, cache in _part(facts, "caches").items():
        if not isinstance(cache, Mapping):
            continue
        if not cache.get("writable"):
            why = f", for {cache['reason']}" if cache.get("reason") else ""
            lost = (
                "nothing can be fetched" if name == "hub" else "what is tried or compiled once is done again every time"
            )
            yield f"the cache {name} can't be written{why}: {lost}"
        elif cache.get("free", LITTLE_DISK) < LITTLE_DISK:
            yield f"{cache['free'] / GIGA:.1f} GiB of disk are free at {cache['folder']}"


def _settings(facts: Mapping[str, Any]) -> Iterator[str]:
    if error := _part(facts, "configuration").get("error"):
        yield f"the configuration can't be used: {error}"
    wrong = facts.get("wrong_settings")
    yield from wrong if isinstance(wrong, list) else ()
    threads = _part(facts, "environment").get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) < (_part(facts, "processor").get("threads") or 1):
        yield f"OMP_NUM_THREADS={threads} leaves processors unused"
