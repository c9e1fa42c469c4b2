"""``llava-edge tiles``: what the model will see of a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ...runtime.options import GenerationOptions
from ...runtime.pictures.geometry import Geometry
from ...runtime.pictures.tiles import Layout, lay_out, layout_entry, whole_layout
from ..terminal import options as arguments


def tiles(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A picture file, or - for standard input.")],
    model: arguments.ModelOption = None,
    detail: arguments.DetailOption = "high",
    picture_tokens: arguments.PictureTokensOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="FILE", help="Draw tiles, overview and cut padding: PNG, JPEG, WebP, BMP or GIF."
        ),
    ] = None,
) -> None:
    """Show a picture's tile grid, padding and position count, without loading the model."""
    from ...runtime.bundle.bundle import Bundle, demo_bundle
    from ...runtime.pictures.picture import load_picture
    from ..terminal.progress import note
    from ..terminal.question import picture_of
    from ..terminal.streams import say, say_json
    from ..terminal.visible import visible

    if save is not None:
        _check_place(save, image)
    bundle = Bundle.open(model or demo_bundle())
    geometry = bundle.manifest.geometry
    wanted = GenerationOptions(detail=detail, picture_tokens=picture_tokens)  # type: ignore[arg-type]
    picture = load_picture(picture_of(image))
    fewer = wanted.picture_tokens
    layout = lay_out(picture.size, geometry, overview_only=wanted.detail == "low", picture_tokens=fewer)
    if wanted.detail == "auto" and layout.image_tokens >= bundle.manifest.llm.context_length:
        layout = lay_out(picture.size, geometry, overview_only=True, picture_tokens=fewer)
    for warning in picture.warnings:
        note(warning)
    if save is not None:
        from ...runtime.pictures.overlay import save_overlay

        save_overlay(save, picture.image, layout, geometry)
        note(f"saved to {visible(str(save))}")
    if as_json:
        say_json(layout_entry(layout, geometry))
    else:
        say(_describe(layout, geometry))


def _check_place(save: Path, image: str) -> None:
    """Refuse a drawing that can't be written, or that would take the picture's place. Raises OptionError."""
    from ...runtime.errors import OptionError
    from ...runtime.pictures.overlay import overlay_kind

    overlay_kind(save)
    if save.exists() and os.path.exists(image) and save.samefile(image):
        raise OptionError(expected="--save to another file", got="the picture itself", fix="choose another name")


def _describe(layout: Layout, geometry: Geometry) -> str:
    side, (rows, columns) = geometry.image_size, layout.grid
    if not rows:
        return (
            f"picture    {layout.size[0]} x {layout.size[1]} px\n"
            f"tiles      none: the overview of {side} px alone\n"
            f"positions  {_positions(layout, geometry)}"
        )
    return (
        f"picture    {layout.size[0]} x {layout.size[1]} px\n"
        f"tiles      {rows} rows x {columns} columns of {side} px, and the overview\n"
        f"resized    {layout.resized[0]} x {layout.resized[1]} px inside the grid\n"
        f"features   {layout.unpadded[0]} rows x {layout.unpadded[1]} columns after the padding is cut\n"
        f"positions  {_positions(layout, geometry)}"
    )


def _positions(layout: Layout, geometry: Geometry) -> str:
    if not any(layout.kept):
        return str(layout.image_tokens)
    overview, grid = layout.kept
    every = whole_layout(layout, geometry).image_tokens
    return f"{layout.image_tokens} of {every}: {overview} of the overview, {grid} of the tiles and a newline are kept"
