"""Which way of making the vision graph smaller pays: CPU time and feature error of each, side by side.

    python -m llava_edge.benchmark.recipes.vision_recipes --folder FOLDER
    python -m llava_edge.benchmark.recipes.vision_recipes --folder FOLDER --only "int8 dynamic" "int8 dynamic, 7 bits"

A seeded tower at the CLIP-L/336 shape, cut to a few layers, is exported and quantized in every way
that was considered. Each graph encodes the same tile on one thread, in turns; CPU time is compared,
not wall time, so other work on the machine disturbs it little. Ratios are to the float32 graph.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.distances import relative_error
from ...runtime.onnx_runtime.importing import import_onnxruntime
from ...runtime.onnx_runtime.session import open_session
from ...runtime.pictures.tiles import pixels_of
from ...runtime.pictures.tower import FEATURES, PIXELS
from ..seeded.tower import CLIP_L, FEATURE_LAYER, GEOMETRY, clip_l, seeded_model, seeded_picture
from ..speed.machine import describe_machine, machine_line
from ..speed.vision_speed import take_turns
from .attention_by_head import attention_by_head

Pixels = npt.NDArray[np.float32]
STATIC = "int8 static (calibrated, QDQ)"


def measure_variants(
    folder: Path, *, layers: int, rounds: int, only: Collection[str] = ()
) -> list[tuple[str, float, float, int]]:
    """Write and time all variants, or ``only`` some: (name, CPU time against f32, feature error, bytes), f32 first."""
    pixels = pixels_of(seeded_picture(), GEOMETRY)
    tile = pixels[:1]
    paths = _write_variants(folder, layers, pixels, only)
    sessions = {name: open_session(path, threads=1) for name, path in paths.items()}
    features = {name: session.run([FEATURES], {PIXELS: tile})[0] for name, session in sessions.items()}
    sides = {name: partial(session.run, [FEATURES], {PIXELS: tile}) for name, session in sessions.items()}
    seconds = take_turns(sides, rounds, time.process_time)
    return [
        (
            name,
            statistics.median(ours / base for base, ours in zip(seconds["f32"], seconds[name], strict=True)),
            relative_error(features[name], features["f32"]),
            path.stat().st_size,
        )
        for name, path in paths.items()
    ]


def _write_variants(folder: Path, layers: int, pixels: Pixels, only: Collection[str]) -> dict[str, Path]:
    """One file for each variant, by the name it has in the table."""
    import onnx

    from ...export.vision.onnx_export import export_vision
    from ...quantize.vision import weights
    from ...quantize.vision.activation import fold_quick_gelu

    tower, connector = seeded_model(clip_l(layers=layers))
    fused, standard = folder / "fused.onnx", folder / "standard.onnx"
    export = partial(export_vision, tower, connector, feature_layer=FEATURE_LAYER, precision="f32")
    export(path=fused)
    unfolded = weights.widen(onnx.load(fused))
    model = fold_quick_gelu(unfolded)
    products = weights.matrix_products(model)
    names = [node.output[0] for node in products]
    widening = [node.output[0] for node in products if _is_fc2(node, model)]

    def standard_operators() -> onnx.ModelProto:
        export(path=standard, attention="standard")
        return onnx.load(standard)

    variants: dict[str, Callable[[], onnx.ModelProto]] = {
        "f32, standard operators": standard_operators,
        "f16 storage": lambda: weights.narrow(unfolded),
        "f16 arithmetic": lambda: _onnxruntime_half(unfolded),
        "int8 dynamic, standard operators": lambda: weights.to_int8(
            fold_quick_gelu(weights.widen(onnx.load(standard)))
        ),
        "int8 dynamic": lambda: weights.to_int8(model),
        "int8 dynamic, QuickGelu with its factor": lambda: weights.to_int8(unfolded),
        "int8 dynamic, 7 bits": lambda: weights.to_int8(model, limit=63),
        "int8 dynamic, attention by head": lambda: attention_by_head(weights.to_int8(model), CLIP_L.heads, False),
        "int8 dynamic, attention in int8": lambda: attention_by_head(weights.to_int8(model), CLIP_L.heads, True),
        "int8 dynamic, connector in f32": lambda: weights.to_int8(model, keep=names[-2:]),
        "int8 dynamic, last product in f32": lambda: weights.to_int8(model, keep=names[-1:]),
        "int8 dynamic, fc2 in f32": lambda: weights.to_int8(model, keep=widening),
    }
    paths = {"f32": fused}
    for number, (name, variant) in enumerate(variants.items()):
        if only and name not in only:
            continue
        paths[name] = folder / f"variant-{number}.onnx"
        onnx.save(variant(), paths[name])
    if not only or STATIC in only:
        paths[STATIC] = folder / "static.onnx"
        _onnxruntime_static(fused, folder / "static.onnx", pixels)
    return paths


def _is_fc2(node: Any, model: Any) -> bool:
    """Whether a product takes the wide activation of an MLP back to the tower's width."""
    shape = next(tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name == node.input[1])
    return shape == (CLIP_L.feed_forward, CLIP_L.hidden)


def _onnxruntime_half(model: Any) -> Any:
    """onnxruntime's own conversion to half-precision arithmetic, with float32 input and output."""
    import onnx

    import_onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return convert_float_to_float16(copy, keep_io_types=True, disable_shape_infer=True)


def _onnxruntime_static(source: Path, path: Path, pixels: Pixels) -> None:
    """onnxruntime's own calibrated quantization of matrix products: ranges of the given pixels."""
    import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, tiles: Iterable[Pixels]) -> None:
            self.tiles = iter(tiles)

        def get_next(self) -> dict[str, Pixels] | None:
            tile = next(self.tiles, None)
            return None if tile is None else {PIXELS: tile[None]}

    quantize_static(
        source,
        path,
        Reader(pixels[:2]),
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(prog="vision_recipes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="an existing folder with 2 GB free")
    parser.add_argument("--layers", type=int, default=7, help="of the tower; the last is never run")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="variants by their names in the table")
    arguments = parser.parse_args()
    rows = measure_variants(arguments.folder, layers=arguments.layers, rounds=arguments.rounds, only=arguments.only)
    print(f"{machine_line(describe_machine())}\n")
    print("| graph | CPU time | feature error | MB |\n|---|---|---|---|")
    for name, ratio, error, size in rows:
        print(f"| {name} | {ratio:.2f} | {error:.1e} | {size / 1e6:.0f} |")


if __name__ == "__main__":
    main()
