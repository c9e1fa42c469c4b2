"""How fast pictures are encoded: our graphs against torch and llama.cpp's mtmd, in one process.

All sides get the same seeded weights at the CLIP-L/336 shape and the same 672x672 picture, which is
five tiles for each. They take turns, round after round in changing order, so that whatever else the
machine does falls on all of them; read the ratios, not the seconds.

    python -m llava_edge.benchmark.speed.vision_speed --folder FOLDER --rounds 5

On a machine that has other work to do add ``--busy``: every side then gets one thread and its CPU
time is taken instead of wall time. (With more threads than free cores, mtmd's busy-waiting threads
would wait for each other, and the comparison would flatter us.)

mtmd (llama-cpp-python 0.3.36) does the same work but not the same sum: it puts CLS behind the
patches, so each patch gets its left neighbour's position and the first patch is dropped instead of
CLS; it sends the overview last; and its connector's GELU is the tanh approximation. The check that
it computes with our weights therefore compares with torch doing just that.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.distances import relative_error
from ...runtime.pictures.tiles import pixels_of
from ...runtime.pictures.tower import VisionEncoder
from ...runtime.planning.shapes import VisionShape
from ...runtime.system.machine import physical_cores
from ..contestants.mtmd import Mtmd, text_model, write_projector, write_text_model
from ..seeded.tower import CLIP_L, FEATURE_LAYER, GEOMETRY, clip_l, seeded_model, seeded_picture
from .machine import describe_machine, machine_line

PEER = "mtmd f16"
Side = Callable[[], object]


@dataclass(frozen=True)
class VisionSpeed:
    """Seconds of each round by side, for ``tiles`` tiles, and how far each side's features were off.

    ``errors`` are relative (Frobenius norm): ours against torch, mtmd's against torch in its order.
    """

    tiles: int
    seconds: dict[str, list[float]]
    errors: dict[str, float]

    def ratio(self, side: str, other: str) -> float:
        """How many times as fast as ``other`` a side is: the median over rounds of paired ratios."""
        pairs = zip(self.seconds[other], self.seconds[side], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    def table(self) -> str:
        """The result as lines of text, one a side."""
        lines = [f"{'':10} {'median s':>9} {'least s':>9} {'x mtmd':>7} {'x torch':>8} {'error':>9}"]
        for side, seconds in self.seconds.items():
            lines.append(
                f"{side:10} {statistics.median(seconds):9.2f} {min(seconds):9.2f} "
                f"{self.ratio(side, PEER):7.2f} {self.ratio(side, 'torch f32'):8.2f} {self.errors[side]:9.1e}"
            )
        return "\n".join(lines)


def measure_vision(
    folder: Path,
    *,
    shape: VisionShape = CLIP_L,
    rounds: int = 5,
    busy: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> VisionSpeed:
    """Write the seeded files into ``folder``, then time all sides in turns.

    ``busy`` takes CPU time of one thread instead of wall time of one thread a core.
    ``folder`` needs 2.5 GB for the default shape, memory 8 GB.
    """
    import torch

    from ...export.vision.onnx_export import export_vision
    from ...quantize.vision.quantize import quantize_vision

    on_step("seeding the model")
    tower, connector = seeded_model(shape)
    picture = seeded_picture()
    pixels = pixels_of(picture, GEOMETRY)
    on_step("writing ONNX and GGUF files")
    f32, int8 = folder / "f32.onnx", folder / "int8.onnx"
    export_vision(tower, connector, feature_layer=FEATURE_LAYER, path=f32, precision="f32")
    quantize_vision(f32, int8, recipe="int8", calibration=pixels[:2])
    write_projector(folder / "mmproj.gguf", tower, connector, GEOMETRY)
    write_text_model(folder / "text.gguf", shape.dim)
    threads = 1 if busy else physical_cores()
    torch.set_num_threads(threads)
    with ExitStack() as stack:
        graphs = {
            name: stack.enter_context(closing(VisionEncoder(path, dim=shape.dim, geometry=GEOMETRY, threads=threads)))
            for name, path in (("our int8", int8), ("our f32", f32))
        }
        model = stack.enter_context(text_model(folder / "text.gguf"))
        peer = stack.enter_context(closing(Mtmd(folder / "mmproj.gguf", model, threads=threads)))
        sides: dict[str, Side] = {name: lambda graph=graph: graph.encode(pixels) for name, graph in graphs.items()}  # type: ignore[misc]
        sides["torch f32"] = lambda: _torch_features(tower, connector, pixels)
        sides[PEER] = lambda: peer.encode(np.asarray(picture))
        on_step("warming up and comparing features")
        errors = _compare({name: side() for name, side in sides.items()}, tower, connector, pixels)
        return VisionSpeed(
            len(pixels), take_turns(sides, rounds, time.process_time if busy else time.perf_counter, on_step), errors
        )


def take_turns(
    sides: Mapping[str, Side], rounds: int, clock: Callable[[], float], on_step: Callable[[str], None] = lambda _: None
) -> dict[str, list[float]]:
    """Seconds by side, the order turned round at every other round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(rounds):
        on_step(f"round {index + 1} of {rounds}")
        for name in list(sides)[:: 1 if index % 2 == 0 else -1]:
            started = clock()
            sides[name]()
            seconds[name].append(clock() - started)
    return seconds


def _torch_features(tower: Any, connector: Any, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Features (tiles, P*P, dim) by torch, one tile at a time like ours, layers after the selected one cut."""
    import torch

    layers = list(tower.encoder.layers)[: FEATURE_LAYER + 1]
    tiles = []
    with torch.inference_mode():
        for tile in pixels:
            hidden = tower.pre_layrnorm(tower.embeddings(torch.from_numpy(tile[None])))
            tiles.append(connector(_through(layers, hidden)[:, 1:]))
        return np.asarray(torch.cat(tiles).numpy())


def _torch_overview_like_mtmd(tower: Any, connector: Any, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The overview's features with CLS behind the patches and the first patch dropped, as mtmd has it."""
    import torch

    embeddings = tower.embeddings
    with torch.inference_mode():
        patches = embeddings.patch_embedding(torch.from_numpy(pixels[:1])).flatten(2).transpose(1, 2)
        tokens = torch.cat([patches, embeddings.class_embedding.expand(1, 1, -1)], dim=1)
        hidden = tower.pre_layrnorm(tokens + embeddings.position_embedding.weight)
        layers = list(tower.encoder.layers)[: FEATURE_LAYER + 1]
        return np.asarray(connector(_through(layers, hidden)[:, 1:]).numpy())


def _through(layers: list[Any], hidden: Any) -> Any:
    for layer in layers:
        output = layer(hidden, None)
        hidden = output[0] if isinstance(output, tuple) else output
    return hidden


def _compare(features: dict[str, Any], tower: Any, connector: Any, pixels: npt.NDArray[np.float32]) -> dict[str, float]:
    """Relative error of each side's features: ours against torch's, mtmd's overview against its emulation."""
    reference = features["torch f32"]
    errors = {name: relative_error(ours, reference) for name, ours in features.items() if name != PEER}
    overview = features[PEER][-GEOMETRY.features_per_tile :]
    errors[PEER] = relative_error(overview, _torch_overview_like_mtmd(tower, connector, pixels)[0])
    return errors


def main() -> None:
    """Print the table; progress goes to stderr."""
    parser = argparse.ArgumentParser(prog="vision_speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="an existing folder with 2.5 GB free")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=CLIP_L.layers, help="of the tower; the last is never run")
    parser.add_argument("--busy", action="store_true", help="CPU time of one thread, for a machine with other work")
    arguments = parser.parse_args()
    result = measure_vision(
        arguments.folder,
        shape=clip_l(layers=arguments.layers),
        rounds=arguments.rounds,
        busy=arguments.busy,
        on_step=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(f"{machine_line(describe_machine())}\n\n{result.table()}")


if __name__ == "__main__":
    main()
