"""``llava-edge quantize``: a bundle becomes a smaller bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import ResumeOption, SplitSizeOption, parse_size
from .progress import note


def quantize(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder to start from.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder to write; must not exist.")],
    llm: Annotated[
        str, typer.Option("--llm", help="f16 bf16 q8_0 q6_k q5_k_m q4_k_m iq4_xs q4_0, or keep.")
    ] = "q4_k_m",
    vision: Annotated[str, typer.Option("--vision", help="f16 int8, or keep.")] = "int8",
    split_size: SplitSizeOption = "48G",
    resume: ResumeOption = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written, and the disk it needed, as JSON.")
    ] = False,
) -> None:
    """Make a smaller bundle: LLM by llama.cpp's quantizer, vision tower by onnxruntime's."""
    from ..quantize.pipeline import quantize_bundle
    from .progress import Bar
    from .written import Written

    written = Written(output)
    with written.interrupting():
        manifest = quantize_bundle(
            bundle,
            output,
            llm=llm,
            vision=vision,
            split_size=parse_size(split_size),
            resume=resume,
            on_step=note,
            on_need=written.needs,
            progress=Bar("language model"),
        )
    error = f"vision feature error {manifest.vision.feature_error:.2%}"
    written.tell(manifest, error, as_json=as_json)
