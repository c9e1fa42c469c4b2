"""A bundle's vision graph compiled for the GPU of this machine, into the user's cache.

``tensorrt``: an engine, through onnxruntime's TensorRT provider, as an EP-context model with the engine
and the timing cache beside it. ``cuda``: the graph in float16. Source of the options: onnxruntime's
page on its TensorRT provider; with a dumped context model the engine's path must be relative to it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from ...runtime.bundle.bundle import Bundle
from ...runtime.distances import relative_error
from ...runtime.errors import MissingExtraError, NativeError, OptionError, first_line
from ...runtime.onnx_runtime.compiled import GRAPH, RECORD, MachineKey, compiled_folder, this_machine
from ...runtime.onnx_runtime.importing import import_onnxruntime
from ...runtime.onnx_runtime.providers import CUDA, TENSORRT
from ...runtime.onnx_runtime.session import load_libraries, open_session
from ...runtime.pictures.built_in import built_in_picture
from ...runtime.pictures.tiles import pixels_of
from ...runtime.pictures.tower import FEATURES, LARGEST_BATCH, PIXELS
from ...runtime.system.machine import physical_cores
from ...runtime.system.storage import writing_folder
from .gpu_graph import fold_weights, standard_attention, to_half, to_quantized

Pixels = npt.NDArray[np.float32]
Precision = Literal["f16", "int8"]
Target = Literal["tensorrt", "cuda"]

ERROR_BOUNDS = {"f16": 0.005, "int8": 0.05}
"""Relative feature error against the bundle's own graph on the CPU; what exceeds it is not kept."""
COMPILABLE = ("f32", "f16")
"""Vision recipes to start from: int8 graphs are spelt for CPUs, in operators that TensorRT lacks."""
INSTALL_TENSORRT = "run: pip install onnxruntime-gpu and the tensorrt release that onnxruntime's TensorRT page names"
INSTALL_CUDA = 'run: pip install "llava-edge[cuda]" on a machine with an NVIDIA GPU and its driver'


@dataclass(frozen=True)
class Compiled:
    """What ``compile_vision`` left: its folder, the feature error, seconds spent (0 where it was there)."""

    folder: Path
    error: float
    seconds: float


def compile_vision(
    bundle: Bundle, *, target: Target, precision: Precision = "f16", tell: Callable[[str], None] | None = None
) -> Compiled:
    """Compile ``bundle``'s vision graph for this GPU, unless that is there already.

    Tile counts from 1 to :data:`LARGEST_BATCH` run. The features are measured against the bundle's
    own graph on the CPU, on the built-in picture, and must stay within :data:`ERROR_BOUNDS`. What
    was compiled for other drivers or versions of this GPU is removed. ``tell`` gets one line a step.
    Raises :class:`MissingExtraError` without the provider, :class:`OptionError` for an int8 bundle,
    :class:`NativeError` where compiling fails or misses the bound, :class:`StorageError`.
    """
    onnxruntime, machine = check_machine(target)
    _check_recipe(bundle, target, precision)
    folder = compiled_folder(target, bundle.vision_fingerprint, machine)
    if (found := _existing(folder, precision)) is not None:
        return found
    say = tell or (lambda _: None)
    began = time.perf_counter()
    with writing_folder(folder, replace=True) as scratch:
        error = _compile(bundle, scratch, target, precision, onnxruntime, say)
        seconds = time.perf_counter() - began
        record = {"machine": dataclasses.asdict(machine), "precision": precision, "error": error, "seconds": seconds}
        (scratch / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    _remove_stale(folder, machine)
    return Compiled(folder, error, seconds)


def check_machine(target: Target) -> tuple[Any, MachineKey]:
    """onnxruntime and the GPU to compile for.

    Raises :class:`MissingExtraError` without the provider and :class:`NativeError` without a GPU.
    """
    onnxruntime = _with_provider(target)
    machine = this_machine(onnxruntime)
    if machine is None:
        raise NativeError(expected="an NVIDIA GPU", got="none that nvidia-smi finds", fix=INSTALL_CUDA)
    return onnxruntime, machine


def tensorrt_options(scratch: Path, image_size: int, precision: Precision) -> dict[str, Any]:
    """The TensorRT provider's options that compile into ``scratch``, for 1 to 5 tiles."""
    shapes = {count: f"{PIXELS}:{count}x3x{image_size}x{image_size}" for count in (1, LARGEST_BATCH - 1, LARGEST_BATCH)}
    return {
        "device_id": "0",
        "trt_fp16_enable": "True",
        "trt_int8_enable": str(precision == "int8"),
        "trt_layer_norm_fp32_fallback": "True",
        "trt_profile_min_shapes": shapes[1],
        "trt_profile_opt_shapes": shapes[LARGEST_BATCH - 1],
        "trt_profile_max_shapes": shapes[LARGEST_BATCH],
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(scratch),
        "trt_dump_ep_context_model": "True",
        "trt_ep_context_file_path": str(scratch / GRAPH),
    }


def _with_provider(target: Target) -> Any:
    provider, install = (TENSORRT, INSTALL_TENSORRT) if target == "tensorrt" else (CUDA, INSTALL_CUDA)
    onnxruntime = import_onnxruntime()
    if provider not in onnxruntime.get_available_providers():
        raise MissingExtraError(
            expected=f"an onnxruntime with {provider}",
            got=", ".join(onnxruntime.get_available_providers()),
            fix=install,
        )
    return onnxruntime


def _check_recipe(bundle: Bundle, target: Target, precision: Precision) -> None:
    recipe = bundle.manifest.vision.recipe
    if recipe not in COMPILABLE:
        raise OptionError(
            expected=f"a bundle whose vision part is one of {', '.join(COMPILABLE)}",
            got=recipe,
            fix="optimize the bundle that export wrote, or quantize it with --vision keep",
        )
    if precision not in ERROR_BOUNDS or (target == "cuda" and precision != "f16"):
        raise OptionError(
            expected="f16" if target == "cuda" else "f16 or int8", got=precision, fix="choose another precision"
        )


def _existing(folder: Path, precision: Precision) -> Compiled | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if record.get("precision") != precision or not (folder / GRAPH).is_file():
        return None
    return Compiled(folder, float(record["error"]), 0.0)


def _compile(
    bundle: Bundle, scratch: Path, target: Target, precision: Precision, onnxruntime: Any, say: Callable[[str], None]
) -> float:
    """Write the compiled graph into ``scratch`` and return its feature error."""
    say("features of the bundle on the CPU")
    pixels = calibration_pixels(bundle)
    expected = open_session(bundle.vision_path, providers=["cpu"]).run([FEATURES], {PIXELS: pixels})[0]
    with tempfile.TemporaryDirectory() as work:
        graph = prepare(bundle.vision_path, Path(work), target=target, precision=precision, pixels=pixels)
        if target == "tensorrt":
            say("compiling the engine; this takes minutes")
            options = tensorrt_options(scratch, bundle.manifest.geometry.image_size, precision)
            _session(onnxruntime, graph, [(TENSORRT, options), (CUDA, {"device_id": "0"})], INSTALL_TENSORRT)
        else:
            shutil.copyfile(graph, scratch / GRAPH)
    if not (scratch / GRAPH).is_file():
        raise NativeError(
            expected="an engine for the whole graph", got="TensorRT took only parts of it", fix="use --vision cuda"
        )
    say("features of what was compiled")
    provider = TENSORRT if target == "tensorrt" else CUDA
    session = _session(onnxruntime, scratch / GRAPH, [(provider, {"device_id": "0"})], INSTALL_CUDA)
    features = [session.run([FEATURES], {PIXELS: group})[0] for group in (pixels[:1], pixels[1:]) if len(group)]
    error = relative_error(np.concatenate(features), expected)
    if not error <= ERROR_BOUNDS[precision]:
        raise NativeError(
            expected=f"a feature error of at most {ERROR_BOUNDS[precision]:.1%} in {precision}",
            got=f"{error:.1%}",
            fix="use f16" if precision == "int8" else "name another provider for this model",
        )
    return error


def prepare(source: Path, folder: Path, *, target: Target, precision: Precision, pixels: Pixels) -> Path:
    """Write the graph to compile into ``folder``: for CUDA in float16, for TensorRT in its operators."""
    folded, plain, ready = folder / "folded.onnx", folder / "plain.onnx", folder / "ready.onnx"
    fold_weights(source, folded)
    model = onnx.load(folded)
    if target == "cuda":
        onnx.save(to_half(model), ready)
        return ready
    onnx.save(standard_attention(model), plain)
    if precision == "f16":
        return plain
    to_quantized(plain, ready, pixels)
    return ready


def calibration_pixels(bundle: Bundle) -> Pixels:
    """Pixels (tiles, 3, S, S) of the built-in picture, at most as many as are compiled for."""
    geometry = bundle.manifest.geometry
    return pixels_of(built_in_picture(geometry), geometry)[:LARGEST_BATCH]


def _session(onnxruntime: Any, graph: Path, providers: list[tuple[str, dict[str, Any]]], fix: str) -> Any:
    load_libraries(onnxruntime, providers[0][0])
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = physical_cores()
        session = onnxruntime.InferenceSession(str(graph), options, providers=providers, enable_fallback=False)
    except Exception as error:  # onnxruntime's own classes share no other base
        raise NativeError(expected=f"{providers[0][0]} to take the graph", got=first_line(error), fix=fix) from error
    if session.get_providers()[0] != providers[0][0]:
        raise NativeError(expected=f"{providers[0][0]} to start", got="its libraries are missing", fix=fix)
    return session


def _remove_stale(folder: Path, machine: MachineKey) -> None:
    """Remove what was compiled from the same graph for this GPU with other versions."""
    for record in folder.parent.glob(f"*/{RECORD}"):
        try:
            gpu = json.loads(record.read_text(encoding="utf-8"))["machine"]["gpu"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if gpu == machine.gpu and record.parent != folder:
            shutil.rmtree(record.parent, ignore_errors=True)
