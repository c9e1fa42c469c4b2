"""``llava-edge import``: a language model and a projector as GGUF files become a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...runtime.pictures.vision_recipes import EXPORTED
from ..terminal.options import ReadingOption
from ..terminal.progress import note


def import_pair(
    llm: Annotated[
        Path,
        typer.Argument(metavar="LLM.gguf", help="The language model, of any type; of a split one the first file."),
    ],
    projector: Annotated[Path, typer.Argument(metavar="MMPROJ.gguf", help="The projector that belongs to it.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder to write; must not exist.")],
    vision: Annotated[
        str, typer.Option("--vision", help=f"How the vision tower is stored: {' '.join(EXPORTED)}.")
    ] = "f16",
    reading: ReadingOption = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Measure the vision half against the projector's weights.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written, and the disk it needed, as JSON.")
    ] = False,
) -> None:
    """Make a bundle of a LLaVA-1.6 pair of GGUF files: the language model as it is, the projector read right."""
    from ...export import importing
    from ..terminal.progress import Bar
    from ..terminal.visible import visible
    from ..terminal.written import Written

    written = Written(output)
    bars: dict[str, Bar] = {}

    def show(stage: str, done: int, total: int) -> None:
        bars.setdefault(stage, Bar(stage))(done, total)

    manifest = importing.import_pair(
        llm,
        projector,
        output,
        vision_type=vision,
        reading=reading,  # type: ignore[arg-type]
        verify=verify,
        progress=show,
        on_need=written.needs,
        on_note=lambda line: note(visible(line)),
    )
    measured = manifest.parity.measured
    rungs = ", ".join(f"{name} {value:.3g}" for name, value in measured.items()) or "not verified"
    written.tell(manifest, rungs, as_json=as_json)
