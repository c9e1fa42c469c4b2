"""Where a checkpoint comes from: a local folder, or a hub id that is downloaded once and cached."""

from __future__ import annotations

import re
from pathlib import Path

from ..runtime.errors import CheckpointError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SMALL_FILES = ("*.json", "*.jinja", "tokenizer.model")
_SAFETENSORS = "*.safetensors"
_PICKLES = "*.bin"


def locate(source: str, *, allow_pickle: bool = False, beside: Path | None = None) -> Path:
    """Return the folder of ``source``: itself if it is one, else a snapshot of that hub id.

    A relative path is also looked for in ``beside``, the folder of the config that names it. Weights
    are fetched as safetensors; .bin files only with ``allow_pickle`` and where the repository has
    no safetensors. HF_ENDPOINT, HF_HOME and HF_TOKEN are honoured. Raises :class:`CheckpointError`.
    """
    for folder in (Path(source), beside / source if beside is not None else Path(source)):
        if folder.is_dir():
            return folder
    if not _HUB_ID.fullmatch(source) or source.startswith("."):
        raise CheckpointError(
            expected="a checkpoint folder or a hub id like owner/name",
            got=repr(source),
            fix="check the path",
        )
    return _download(source, allow_pickle)


def _download(source: str, allow_pickle: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        weights = _weight_pattern(source, HfApi().list_repo_files(source), allow_pickle)
        return Path(snapshot_download(source, allow_patterns=[*_SMALL_FILES, weights]))
    except CheckpointError:
        raise
    except Exception as error:  # huggingface_hub lets the errors of its HTTP library through, and changes it
        raise CheckpointError(
            expected=f"the hub to serve {source}",
            got=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            fix="check the name, the network and HF_TOKEN, or give a local folder",
        ) from error


def _weight_pattern(source: str, names: list[str], allow_pickle: bool) -> str:
    if any(name.endswith(".safetensors") for name in names):
        return _SAFETENSORS
    if allow_pickle or not any(name.endswith(".bin") for name in names):
        return _PICKLES
    raise CheckpointError(
        expected=f"safetensors weights in {source}",
        got="only .bin files (pickles)",
        fix="convert them to safetensors, or pass --allow-pickle if you trust their author",
    )
