"""What a run leaves beside its checkpoint, so that one can tell later how it was made."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..runtime.errors import OptionError
from ..runtime.system.plain_files import read_plain_text
from ..runtime.system.storage import check_outside_bundles, write_text
from .recipe import Recipe

COMPLETE = "complete"
"""A file written last into a checkpoint: without it the checkpoint was interrupted."""
RECIPE, VERSIONS = "recipe.json", "versions.json"
PACKAGES = ("llava-edge", "torch", "transformers", "accelerate", "peft", "tokenizers", "numpy", "pillow")


def has_kept(folder: Path) -> bool:
    """Whether a run left something to go on with: a whole checkpoint, or a stage's model."""
    kept = (*folder.glob(f"stage-*/checkpoints/checkpoint-*/{COMPLETE}"), *folder.glob(f"stage-*/model/{COMPLETE}"))
    return bool(kept)


def open_run_folder(folder: Path, recipe: Recipe, *, output: Path, resume: bool) -> None:
    """Make the run folder with the recipe as resolved and the versions in use.

    A start that kept nothing is begun again. Raises :class:`OptionError` where there is a run already and it is not
    to be resumed, where it was begun with another recipe, or where ``output`` is something that no run of ours wrote.
    """
    earlier = (folder / RECIPE).is_file() and (resume or has_kept(folder))
    if (output.exists() or output.is_symlink()) and not earlier:
        raise OptionError(expected=f"nothing at {output} yet", got="something", fix="choose another --output")
    check_outside_bundles(output)
    resolved = json.loads(json.dumps(dataclasses.asdict(recipe)))
    if earlier:
        if not resume:
            raise OptionError(
                expected=f"no earlier run in {folder}",
                got="one",
                fix="add --resume, or choose another --output",
            )
        if changed := _changes(_read_resolved(folder / RECIPE), resolved):
            raise OptionError(
                expected="the recipe this run was begun with", got=f"another {changed}", fix="start a new run for it"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECIPE, resolved)
    write_json(folder / VERSIONS, versions())


def _read_resolved(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(read_plain_text(path)))
    except (ValueError, TypeError) as error:
        raise OptionError(
            expected=f"the recipe of an earlier run in {path}", got=str(error)[:120], fix="start a new run"
        ) from error


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Names of the tables that differ, apart from what may change between two starts."""
    free = {"folder", "hardware", "run"}
    return ", ".join(name for name in now if name not in free and before.get(name) != now[name])


def versions() -> dict[str, str]:
    """Versions of the packages that training depends on, of Python and of the system."""
    found = {"python": sys.version.split()[0], "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
