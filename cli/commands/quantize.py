"""``llava-edge quantize``: a bundle becomes a smaller bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from ...quantize.presets import DEFAULT, PRESETS, describe, preset
from ...runtime.bundle.disk_space import DiskNeed
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

    choice = _choose(preset_name, machine, llm, vision, bundle)
    lines = [choice.line] if choice.line else []

    written = Written(output)

    def checked() -> None:
        """Say the choice, once: the pipeline calls back when it has checked that it can be done."""
        if lines:
            note(lines.pop())

    def step(said: str) -> None:
        checked()
        note(said)

    def need(disk: DiskNeed) -> None:
        checked()
        written.needs(disk)

    with written.interrupting():
        manifest = quantize_bundle(
            bundle,
            output,
            llm=choice.llm,
            vision=choice.vision,
            imatrix=imatrix or (choice.imatrix if llm != "keep" else "none"),
            machine=choice.machine,
            imatrix_prompts=imatrix_prompts,
            save_imatrix=save_imatrix,
            split_size=parse_size(split_size),
            resume=resume,
            on_step=step,
            on_need=need,
            progress=Bar("language model"),
        )
    error = f"vision feature error {manifest.vision.feature_error:.2%}"
    written.tell(manifest, error, as_json=as_json)


class _Choice(NamedTuple):
    """What is made, the kind of machine it was chosen for, and the line that says so."""

    llm: str
    vision: str
    imatrix: str
    machine: str | None = None
    line: str = ""


def _choose(preset_name: str | None, machine: str | None, llm: str | None, vision: str | None, bundle: Path) -> _Choice:
    """The choice of a preset or a machine, with ``llm`` and ``vision`` instead of its own where they are given.

    Raises OptionError, and BundleError where what ``bundle`` is in has to be known.
    """
    from ...quantize.machines import recipes_for  # loads llama.cpp

    said_llm, said_vision = (llm, vision) if machine is preset_name is None else _meant(llm, vision, bundle)
    if machine is None:
        chosen = preset(preset_name)
        said = f"preset {preset_name}, for {chosen.machines}: {_said(chosen.llm, said_llm, chosen.vision, said_vision)}"
        line = said if preset_name is not None else ""
        return _Choice(_first(llm, chosen.llm), _first(vision, chosen.vision), chosen.imatrix, line=line)
    if preset_name is not None:
        raise typer.BadParameter("--for and --preset both choose recipes; give one of them.")
    found = recipes_for(machine)
    line = f"for {found.machine}: {_said(found.llm, said_llm, found.vision, said_vision, why=found.why)}"
    kind: str | None = found.machine
    if said_llm not in (None, found.llm) and said_vision not in (None, found.vision):
        kind, line = None, f"{line}; both are other than for {kind}, so it is not recorded"
    return _Choice(_first(llm, found.llm), _first(vision, found.vision), "none", kind, line)


def _meant(llm: str | None, vision: str | None, bundle: Path) -> tuple[str | None, str | None]:
    """The recipes that words for them come to: of the bundle where they are kept, of this machine for "auto"."""
    from ...quantize.pipeline import AUTO, KEEP
    from ...quantize.vision.choice import choose_vision_here
    from ...runtime.bundle.bundle import Bundle

    if KEEP in (llm, vision):
        manifest = Bundle.open(bundle).manifest
        llm = manifest.llm.recipe if llm == KEEP else llm
        vision = manifest.vision.recipe if vision == KEEP else vision
    return llm, choose_vision_here() if vision == AUTO else vision


def _first(given: str | None, chosen: str) -> str:
    """``given``, be it an empty word, which is then refused."""
    return chosen if given is None else given


def _said(llm: str, own_llm: str | None, vision: str, own_vision: str | None, *, why: str = "") -> str:
    """Both recipes; where one was asked for by itself, what it is instead of."""
    reason = f" ({why})" if why else ""
    first = f"LLM {llm}{reason}" if own_llm in (None, llm) else f"LLM {own_llm} (asked for, instead of {llm})"
    second = vision if own_vision in (None, vision) else f"{own_vision} (asked for, instead of {vision})"
    return f"{first}, vision {second}"
