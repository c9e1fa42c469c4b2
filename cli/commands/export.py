"""``llava-edge export``: a trained checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...runtime.ggml.llm_recipes import FULL_PRECISION
from ...runtime.pictures.vision_recipes import EXPORTED
from ..terminal.options import ReadingOption, ResumeOption, SplitSizeOption, parse_size
from ..terminal.progress import note
from .optimize import compile_for


def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder, or a hub id like owner/name.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder to write; must not exist.")],
    llm: Annotated[str, typer.Option("--llm", help=f"How the LLM is stored: {' '.join(FULL_PRECISION)}.")] = "f16",
    vision: Annotated[
        str,
        typer.Option(
            "--vision",
            help=f"How the vision tower is stored: {' '.join(EXPORTED)}. tensorrt stores f32 and then compiles it for "
            "this machine's GPU, as 'optimize' does.",
        ),
    ] = "f32",
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Also read .bin weights; only from authors you trust.")
    ] = False,
    vision_tower: Annotated[
        str,
        typer.Option(
            "--vision-tower", metavar="DIR", help="The tower's folder or hub id, if not where config.json says."
        ),
    ] = "",
    reading: ReadingOption = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Measure the bundle against the reference.")
    ] = True,
    split_size: SplitSizeOption = "48G",
    resume: ResumeOption = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written, and the disk it needed, as JSON.")
    ] = False,
) -> None:
    """Export a trained LLaVA-NeXT checkpoint (transformers or original layout), verified."""
    from ...export.pipeline import export_checkpoint
    from ..terminal.progress import Bar
    from ..terminal.written import Written

    engine = vision == "tensorrt"
    if engine:
        from ...export.vision.gpu import check_machine

        check_machine("tensorrt")  # before the hours that an export may take
    written = Written(output)
    bars: dict[str, Bar] = {}

    def show(stage: str, done: int, total: int) -> None:
        bars.setdefault(stage, Bar(stage))(done, total)

    with written.interrupting():
        manifest = export_checkpoint(
            checkpoint,
            output,
            llm_type=llm,
            vision_type="f32" if engine else vision,
            split_size=parse_size(split_size),
            allow_pickle=allow_pickle,
            vision_tower=vision_tower,
            reading=reading,  # type: ignore[arg-type]
            verify=verify,
            resume=resume,
            progress=show,
            on_need=written.needs,
            on_note=note,
        )
    measured = manifest.parity.measured
    rungs = ", ".join(f"{name} {value:.3g}" for name, value in measured.items()) or "not verified"
    written.tell(manifest, rungs, as_json=as_json)
    if engine:
        compile_for(output, "tensorrt")
