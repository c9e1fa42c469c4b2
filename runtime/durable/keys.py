"""What entries belong to: everything that can change a number in them, by content and never by a path or a time."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any

import numpy as np
import PIL

from ..bundle.bundle import Bundle
from ..ggml.devices import has_gpu
from ..ggml.library import build_digest, version
from ..onnx_runtime.compiled import this_machine
from ..onnx_runtime.importing import import_onnxruntime
from ..options import LoadOptions
from ..pictures.encoder import PictureEncoder
from ..system.machine import physical_cores, processor_flags, processor_name
from .entry import SCHEMA, digest_of


def picture_parts(pictures: PictureEncoder, options: LoadOptions) -> dict[str, Any]:
    """All that rows of a picture depend on beside its pixels and its layout."""
    onnxruntime, choice = import_onnxruntime(), pictures.tower.choice
    return {
        "schema": SCHEMA,
        "vision": pictures.identity,
        "provider": [choice.name, *pictures.tower.providers],
        "accelerator": "" if choice.on_cpu else [str(this_machine(onnxruntime)), platform.version()],
        "onnxruntime": str(onnxruntime.__version__),
        "pillow": PIL.__version__,
        "numpy": np.__version__,
        **_here(options),
    }


def state_parts(bundle: Bundle, options: LoadOptions, pictures: dict[str, Any]) -> dict[str, Any]:
    """All that a state depends on beside what was read; ``pictures`` are the parts of its pictures."""
    hashes = {entry.name: entry.sha256 for entry in bundle.manifest.files}
    return {
        "schema": SCHEMA,
        "llm": [hashes[path.name] for path in bundle.llm_paths],
        "llama_cpp": [version(), build_digest()],
        "cache": [options.kv_type_k or "f16", options.kv_type_v or "f16", options.wants_flash_attention],
        "chunks": [options.batch, options.micro_batch],
        "repack": options.repack,
        "prompts": [options.prompt_engine, str(import_onnxruntime().__version__)],
        "placement": [
            has_gpu(),
            options.device,
            options.gpu_layers,
            options.split_mode,
            options.main_gpu,
            list(options.tensor_split),
        ],
        "pictures": digest_of(pictures),
        **_here(options),
    }


def _here(options: LoadOptions) -> dict[str, Any]:
    return {
        "llava_edge": _version(),
        "threads": options.threads or physical_cores(),
        "processor": [platform.machine(), processor_name(), *sorted(processor_flags())],
        "byteorder": sys.byteorder,
    }


def _version() -> str:
    try:
        return metadata.version("llava-edge")
    except metadata.PackageNotFoundError:  # a checkout
        return ""
