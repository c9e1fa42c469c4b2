"""``llava-edge show``: a bundle's manifest as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...runtime.bundle.manifest import Manifest

LISTS = ("pinpoints (HxW)", "stop tokens")
"""Rows of many short words, of which more is shown than of a name."""


def show(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="Bundle folder or name; the demo without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show what a bundle is: source, geometry, recipes, files and parity record."""
    from ...runtime.bundle.bundle import Bundle, demo_bundle
    from ..terminal.streams import say
    from ..terminal.visible import name_of, shortened, visible

    opened = Bundle.open(bundle or demo_bundle())
    manifest = opened.manifest
    if as_json:
        print(manifest.to_json(), end="")
        return
    place = [("folder", str(opened.path))] if bundle is not None and opened.path != bundle else []
    for name, value in [*place, *rows(manifest)]:
        say(f"{name_of(name):<18}{visible(shortened(value)) if name in LISTS else name_of(value)}")


def rows(manifest: Manifest) -> list[tuple[str, str]]:
    """The table of ``show``: name and value, in reading order."""
    geometry, template = manifest.geometry, manifest.template
    pinpoints = " ".join(f"{height}x{width}" for height, width in geometry.pinpoints)
    table = [
        ("name", manifest.name),
        ("made by", manifest.created_by),
        ("source", f"{manifest.source.name} ({manifest.source.layout} layout)"),
        ("architecture", manifest.source.architecture),
        ("fingerprint", manifest.source.fingerprint[:16]),
        (
            "tile",
            f"{geometry.image_size} px, patch {geometry.patch_size} px, {geometry.features_per_tile} features",
        ),
        ("pinpoints (HxW)", pinpoints),
        ("reading", manifest.reading),
        ("vision", f"{manifest.vision.recipe}, feature error {manifest.vision.feature_error:.2g}"),
        ("llm", f"{manifest.llm.recipe}, {manifest.llm.architecture}, width {manifest.llm.dim}"),
        ("context", f"{manifest.llm.context_length} positions"),
        ("stop tokens", " ".join(template.stop_tokens)),
        ("reference", manifest.parity.reference),
    ]
    if (matrix := manifest.llm.importance) is not None:
        seen = f"{matrix.prompts} prompts, {matrix.pictures} pictures, {matrix.positions} positions"
        table.insert(11, ("matrix", f"{matrix.source} of {matrix.data}, {seen}"))
    if manifest.llm.machine is not None:
        table.insert(11, ("made for", manifest.llm.machine))
    table += [(f"  {name}", f"{value:.3g}") for name, value in sorted(manifest.parity.measured.items())]
    table += [(f"  {entry.name}", f"{entry.size / 1e6:,.2f} MB") for entry in manifest.files]
    table.append(("size", f"{sum(entry.size for entry in manifest.files) / 1e6:,.2f} MB"))
    return table
