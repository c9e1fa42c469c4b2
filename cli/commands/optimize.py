"""``llava-edge optimize``: a bundle's vision part compiled for the GPU of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ...export.vision.gpu import Precision, Target


def optimize(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Bundle folder or name; nothing is written into it.")
    ],
    vision: Annotated[
        Literal["tensorrt", "cuda"],
        typer.Option("--vision", help="tensorrt: an engine for this GPU; cuda: the graph in f16."),
    ] = "tensorrt",
    precision: Annotated[
        Literal["f16", "int8"], typer.Option("--precision", help="f16, or int8 (TensorRT only).")
    ] = "f16",
) -> None:
    """Compile the vision part for this machine's GPU, into the user's cache; chat and ask then use it."""
    compile_for(bundle, vision, precision)


def compile_for(path: Path, target: Target, precision: Precision = "f16") -> None:
    """Compile the vision part of the bundle at ``path`` and say where it is."""
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.errors import needing_extra

    with needing_extra("export", "quantize"):
        from ...export.vision.gpu import compile_vision
    from ..terminal.progress import note

    compiled = compile_vision(Bundle.open(path), target=target, precision=precision, tell=note)
    took = f"in {compiled.seconds:.0f} s" if compiled.seconds else "already there"
    note(f"{compiled.folder}: {took}, vision feature error {compiled.error:.2%}")
