"""Which way of making the vision graph smaller pays: CPU time and feature error of each, side by side.

    python -m llava_edge.benchmark.recipes.vision_recipes --folder FOLDER [--only f32 int8 …]

A seeded tower at the CLIP-L/336 shape, cut to a few layers, is exported and quantized in every way
that was considered. Each graph encodes the same tile on one thread, in turns; CPU time is compared,
not wall time, so other work on the machine disturbs it little. Ratios are to the float32 graph.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...runtime.onnx_runtime.session import open_session
from ...runtime.pictures.tiles import pixels_of
from ...runtime.pictures.tower import FEATURES, PIXELS
from ..seeded.tower import FEATURE_LAYER, GEOMETRY, Shape, seeded_model, seeded_picture

Pixels = npt.NDArray[np.float32]


def measure(folder: Path, *, layers: int, rounds: int, only: Sequence[str] = ()) -> list[tuple[str, float, float, int]]:
    """Write and time all variants, or ``only`` some: (name, CPU time against f32, feature error, bytes), f32 first."""
    pixels = _pixels()
    paths = _write_variants(folder, layers, pixels, [name for name in VARIANTS if not only or name in ("f32", *only)])
    sessions = {name: open_session(path, threads=1) for name, path in paths.items()}
    features = {name: session.run([FEATURES], {PIXELS: pixels[:1]})[0] for name, session in sessions.items()}
    seconds = _take_turns(sessions, pixels[:1], rounds)
    first = next(iter(paths))
    return [
        (
            name,
            statistics.median(ours / base for ours, base in zip(seconds[name], seconds[first], strict=True)),
            float(np.linalg.norm(features[name] - features[first]) / np.linalg.norm(features[first])),
            path.stat().st_size,
        )
        for name, path in paths.items()
    ]


def _write_variants(folder: Path, layers: int, pixels: Pixels, wanted: Sequence[str]) -> dict[str, Path]:
    """One file for each of the ``wanted`` variants, by the name it has in the table."""
    import onnx

    from ...export.vision.onnx_export import export_vision
    from ...quantize.vision import weights
    from ...quantize.vision.blocks import to_blocks as blocks

    tower, connector = seeded_model(Shape(layers=layers))

    def export(path: Path, attention: Literal["fused", "standard"]) -> Path:
        export_vision(tower, connector, feature_layer=FEATURE_LAYER, path=path, precision="f32", attention=attention)
        return path

    fused = export(folder / "fused.onnx", "fused")
    model = weights.widen(onnx.load(fused))
    products = weights.matrix_products(model)
    names = [node.output[0] for node in products]
    widening = [node.output[0] for node in products if _is_fc2(node, model)]
    writers: dict[str, Callable[[Path], Any]] = {
        "f32": lambda path: path.hardlink_to(fused),
        "f32, standard operators": lambda path: export(path, "standard"),
        "f16 storage": lambda path: onnx.save(weights.narrow(model), path),
        "f16 arithmetic": lambda path: _onnxruntime_half(model, path),
        "int8 dynamic, standard operators": lambda path: onnx.save(
            weights.to_int8(weights.widen(onnx.load(export(path, "standard")))), path
        ),
        "int8 dynamic": lambda path: onnx.save(weights.to_int8(model), path),
        "int8 dynamic, connector in f32": lambda path: onnx.save(weights.to_int8(model, keep=names[-2:]), path),
        "int8 dynamic, last product in f32": lambda path: onnx.save(weights.to_int8(model, keep=names[-1:]), path),
        "int8 dynamic, fc2 in f32": lambda path: onnx.save(weights.to_int8(model, keep=widening), path),
        "w8 (blocks of 128)": lambda path: onnx.save(blocks(model, bits=8), path),
        "w4 (blocks of 32)": lambda path: onnx.save(blocks(model, bits=4), path),
        "int8 static (calibrated, QDQ)": lambda path: _onnxruntime_static(fused, path, pixels),
    }
    paths = {name: folder / f"variant-{VARIANTS.index(name)}.onnx" for name in wanted}
    for name, path in paths.items():
        path.unlink(missing_ok=True)
        writers[name](path)
    return paths


VARIANTS = (
    "f32",
    "f32, standard operators",
    "f16 storage",
    "f16 arithmetic",
    "int8 dynamic, standard operators",
    "int8 dynamic",
    "int8 dynamic, connector in f32",
    "int8 dynamic, last product in f32",
    "int8 dynamic, fc2 in f32",
    "w8 (blocks of 128)",
    "w4 (blocks of 32)",
    "int8 static (calibrated, QDQ)",
)


def _is_fc2(node: Any, model: Any) -> bool:
    """Whether a product takes the wide activation of an MLP back to the tower's width."""
    shape = next(tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name == node.input[1])
    return shape == (Shape.intermediate, Shape.hidden)


def _onnxruntime_half(model: Any, path: Path) -> None:
    """onnxruntime's own conversion to half-precision arithmetic, with float32 input and output."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save(convert_float_to_float16(copy, keep_io_types=True, disable_shape_infer=True), path)


def _onnxruntime_static(source: Path, path: Path, pixels: Pixels) -> None:
    """onnxruntime's own calibrated quantization of matrix products: ranges of the given pixels."""
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


def _pixels() -> Pixels:
    picture = seeded_picture()
    return pixels_of(picture, GEOMETRY)


def _take_turns(sessions: dict[str, Any], tile: Pixels, rounds: int) -> dict[str, list[float]]:
    """CPU seconds by variant, the order turned round at every other round."""
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for index in range(rounds):
        for name in list(sessions)[:: 1 if index % 2 == 0 else -1]:
            started = time.process_time()
            sessions[name].run([FEATURES], {PIXELS: tile})
            seconds[name].append(time.process_time() - started)
    return seconds


def main(show: Callable[[str], None] = print) -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(prog="vision_recipes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="an existing folder with 2 GB free")
    parser.add_argument("--layers", type=int, default=7, help="of the tower; the last is never run")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", default=[], choices=VARIANTS, help="variants to time; f32 always is")
    arguments = parser.parse_args()
    rows = measure(arguments.folder, layers=arguments.layers, rounds=arguments.rounds, only=arguments.only)
    show("| graph | CPU time | feature error | MB |\n|---|---|---|---|")
    for name, ratio, error, size in rows:
        show(f"| {name} | {ratio:.2f} | {error:.1e} | {size / 1e6:.0f} |")


if __name__ == "__main__":
    main()
