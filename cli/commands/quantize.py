"""``llava-edge quantize``: a bundle becomes a smaller bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...quantize.presets import DEFAULT, PRESETS, describe, preset
from ...runtime.ggml.llm_recipes import MACHINES
from ...runtime.ggml.llm_recipes import QUANTIZED as LLM_RECIPES
from ...runtime.pictures.vision_recipes import QUANTIZED as VISION_RECIPES
from ..terminal.options import ResumeOption, SplitSizeOption, parse_size
from ..terminal.progress import note


def quantize(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder or name to start from.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder to write; must not exist.")],
    preset_name: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="|".join(PRESETS),
            help=f"Both recipes by one name, measured on the demo model. {describe()}. Other options overrule it.",
        ),
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar=f"this|{'|'.join(MACHINES)}",
            help="Recipes for a kind of machine, or for this one, instead of a preset. Other options overrule it.",
        ),
    ] = None,
    llm: Annotated[str | None, typer.Option("--llm", help=f"{' '.join(LLM_RECIPES)}, or keep. [{DEFAULT.llm}]")] = None,
    vision: Annotated[
        str | None,
        typer.Option(
            "--vision", help=f"{' '.join(VISION_RECIPES)}, keep, or auto: what suits this machine. [{DEFAULT.vision}]"
        ),
    ] = None,
    imatrix: Annotated[
        str | None,
        typer.Option(
            "--imatrix",
            metavar="SOURCE",
            help="Importance matrix: calibrate:DATA (conversations with pictures in LLaVA's JSON format, or "
            "'demo'), calibrate-text:DATA (or a text file), an imatrix GGUF, or none. [none]",
        ),
    ] = None,
    imatrix_prompts: Annotated[
        int, typer.Option("--imatrix-prompts", min=0, help="Conversations to calibrate on; 0 takes all.")
    ] = 64,
    save_imatrix: Annotated[
        Path | None, typer.Option("--save-imatrix", metavar="FILE", help="Keep the matrix in llama.cpp's format.")
    ] = None,
    split_size: SplitSizeOption = "48G",
    resume: ResumeOption = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written, and the disk it needed, as JSON.")
    ] = False,
) -> None:
    """Make a smaller bundle: LLM by llama.cpp's quantizer, vision tower by onnxruntime's."""
    from ...quantize.pipeline import quantize_bundle
    from ..terminal.progress import Bar
    from ..terminal.written import Written

    llm_recipe, vision_recipe, matrix, kind = _choose(preset_name, machine)
    written = Written(output)
    with written.interrupting():
        manifest = quantize_bundle(
            bundle,
            output,
            llm=llm or llm_recipe,
            vision=vision or vision_recipe,
            imatrix=imatrix or (matrix if llm != "keep" else "none"),
            machine=kind,
            imatrix_prompts=imatrix_prompts,
            save_imatrix=save_imatrix,
            split_size=parse_size(split_size),
            resume=resume,
            on_step=note,
            on_need=written.needs,
            progress=Bar("language model"),
        )
    error = f"vision feature error {manifest.vision.feature_error:.2%}"
    written.tell(manifest, error, as_json=as_json)


def _choose(preset_name: str | None, machine: str | None) -> tuple[str, str, str, str | None]:
    """Recipes of both parts, matrix and the kind of machine they are for, and say so where any of it was asked for."""
    from ...quantize.machines import recipes_for  # loads llama.cpp

    if machine is None:
        chosen = preset(preset_name)
        if preset_name is not None:
            note(f"preset {preset_name}, for {chosen.machines}: LLM {chosen.llm}, vision {chosen.vision}")
        return chosen.llm, chosen.vision, chosen.imatrix, None
    if preset_name is not None:
        raise typer.BadParameter("--for and --preset both choose recipes; give one of them.")
    found = recipes_for(machine)
    note(f"for {found.machine}: LLM {found.llm} ({found.why}), vision {found.vision}")
    return found.llm, found.vision, "none", found.machine
