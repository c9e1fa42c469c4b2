"""``llava-edge quantize``: a bundle becomes a smaller bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quantize(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder to start from.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder to write; must not exist.")],
    llm: Annotated[
        str, typer.Option("--llm", help="f16 bf16 q8_0 q6_k q5_k_m q4_k_m iq4_xs q4_0, or keep.")
    ] = "q4_k_m",
    vision: Annotated[str, typer.Option("--vision", help="f16 int8, or keep.")] = "int8",
) -> None:
    """Make a smaller bundle: LLM by llama.cpp's quantizer, vision tower by onnxruntime's."""
    from ..quantize.pipeline import quantize_bundle
    from .progress import note

    manifest = quantize_bundle(bundle, output, llm=llm, vision=vision, on_step=note)
    total = sum(entry.size for entry in manifest.files)
    note(f"{output}: {total / 1e6:,.1f} MB, vision feature error {manifest.vision.feature_error:.2%}")
