"""What the vision graph's time goes to, by kind of node, and whether two tiles at once beat two in turn.

    python -m llava_edge.benchmark.speed.vision_profile --folder FOLDER
    python -m llava_edge.benchmark.speed.vision_profile --graph BUNDLE/vision.onnx --threads 1

The seeded tower at the CLIP-L/336 shape in int8, or a graph that is there. onnxruntime's own profile gives a node's
wall time, so shares say more than milliseconds on a machine with other work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.onnx_runtime.importing import import_onnxruntime
from ...runtime.pictures.tiles import pixels_of
from ...runtime.pictures.tower import FEATURES, PIXELS
from ...runtime.system.machine import physical_cores
from ..seeded.tower import CLIP_L, FEATURE_LAYER, GEOMETRY, clip_l, seeded_model, seeded_picture
from .machine import describe_machine, machine_line
from .vision_speed import take_turns

Pixels = npt.NDArray[np.float32]
Kind = tuple[str, str]
"""An operator, and of a product the shapes that are multiplied."""


def open_profiled(graph: Path, threads: int, prefix: Path | None) -> Any:
    """A session on the CPU; with ``prefix`` it writes onnxruntime's profile to a file that begins so."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if prefix is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(prefix)
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def profile_nodes(graph: Path, pixels: Pixels, *, threads: int, runs: int) -> dict[Kind, tuple[int, float]]:
    """(nodes, milliseconds) a tile by kind of node, the median of ``runs`` behind one that warms up."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_profiled(graph, threads, Path(folder) / "profile")
        for _ in range(runs + 1):
            session.run([FEATURES], {PIXELS: pixels[:1]})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [one for one in events if one.get("cat") == "Node" and one["name"].endswith("_kernel_time")]
    return sum_by_kind(nodes, runs + 1)


def sum_by_kind(events: Iterable[dict[str, Any]], runs: int) -> dict[Kind, tuple[int, float]]:
    """What onnxruntime wrote of ``runs`` equal runs, the first left out: (nodes, milliseconds) of one by kind."""
    events = list(events)
    a_run = len(events) // runs
    sums: dict[Kind, list[float]] = defaultdict(lambda: [0.0] * (runs - 1))
    counts: dict[Kind, int] = defaultdict(int)
    for index, event in enumerate(events[a_run:]):
        kind = _kind(event["args"])
        sums[kind][index // a_run] += event["dur"] / 1e3
        counts[kind] += index < a_run
    return {kind: (counts[kind], statistics.median(one)) for kind, one in sums.items()}


def _kind(arguments: dict[str, Any]) -> Kind:
    operator = arguments["op_name"]
    shapes = ["x".join(map(str, shape)) for one in arguments["input_type_shape"][:2] for shape in one.values()]
    return operator, " by ".join(one for one in shapes if one) if "MatMul" in operator else ""


def measure_pairs(graph: Path, pixels: Pixels, *, rounds: int) -> dict[str, list[float]]:
    """Seconds of two tiles by way, in turns: one after the other on two threads, and at once on a thread each."""
    both, alone = open_profiled(graph, 2, None), open_profiled(graph, 1, None)

    def encode(session: Any, index: int) -> object:
        return session.run([FEATURES], {PIXELS: pixels[index : index + 1]})

    with ThreadPoolExecutor(2) as pool:
        sides: dict[str, Callable[[], object]] = {
            "in turn, two threads each": lambda: [encode(both, index) for index in range(2)],
            "at once, one thread each": lambda: list(pool.map(lambda index: encode(alone, index), range(2))),
        }
        for side in sides.values():
            side()
        return take_turns(sides, rounds, time.perf_counter)


def write_seeded(folder: Path, layers: int) -> Path:
    """The seeded tower's graph in int8."""
    from ...export.vision.onnx_export import export_vision
    from ...quantize.vision.quantize import quantize_vision

    tower, connector = seeded_model(clip_l(layers=layers))
    source, graph = folder / "f32.onnx", folder / "int8.onnx"
    export_vision(tower, connector, feature_layer=FEATURE_LAYER, path=source, precision="f32")
    quantize_vision(source, graph, recipe="int8", calibration=pixels_of(seeded_picture(), GEOMETRY)[:2])
    return graph


def main() -> None:
    """Print both tables, in Markdown."""
    parser = argparse.ArgumentParser(prog="vision_profile", description=(__doc__ or "").splitlines()[0])
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--folder", type=Path, help="an existing folder with 2 GB free, for the seeded graph")
    given.add_argument("--graph", type=Path, help="a CLIP-L/336 graph that is there")
    parser.add_argument("--layers", type=int, default=CLIP_L.layers, help="of the tower; the last is never run")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    graph = arguments.graph or write_seeded(arguments.folder, arguments.layers)
    pixels = pixels_of(seeded_picture(), GEOMETRY)
    kinds = profile_nodes(graph, pixels, threads=arguments.threads, runs=arguments.rounds)
    total = sum(milliseconds for _, milliseconds in kinds.values())
    print(f"{machine_line(describe_machine())}\n\n| node | shapes | nodes | ms a tile | share |\n|---|---|---|---|---|")
    for (operator, shapes), (count, milliseconds) in sorted(kinds.items(), key=lambda one: -one[1][1]):
        print(f"| {operator} | {shapes} | {count} | {milliseconds:.1f} | {milliseconds / total:.1%} |")
    print("\n| two tiles | median s | least s |\n|---|---|---|")
    for name, seconds in measure_pairs(graph, pixels, rounds=arguments.rounds).items():
        print(f"| {name} | {statistics.median(seconds):.3f} | {min(seconds):.3f} |")


if __name__ == "__main__":
    main()
