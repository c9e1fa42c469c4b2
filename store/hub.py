"""What comes from the hub, downloaded once and cached: checkpoints, their configs, published data.

HF_ENDPOINT, HF_HOME and HF_TOKEN are honoured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtime.errors import CheckpointError, DataError, LlavaEdgeError, first_line, needing_extra

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SMALL_FILES = ("*.json", "*.jinja", "tokenizer.model")
_SAFETENSORS = "*.safetensors"
_PICKLES = "*.bin"


def locate(source: str, *, allow_pickle: bool = False, beside: Path | None = None) -> Path:
    """Return the folder of ``source``: itself if it is one, else a snapshot of that hub id.

    A relative path is also looked for in ``beside``, the folder of the config that names it. Weights
    are fetched as safetensors; .bin files only with ``allow_pickle`` and where the repository has
    no safetensors. Raises :class:`CheckpointError`.
    """
    for folder in (Path(source), beside / source if beside is not None else Path(source)):
        if folder.is_dir():
            return folder
    if not HUB_ID.fullmatch(source):
        raise CheckpointError(
            expected="a checkpoint folder or a hub id like owner/name",
            got=repr(source),
            fix="check the path",
        )
    return _download(source, allow_pickle)


def _download(source: str, allow_pickle: bool) -> Path:
    with asking_hub(source, CheckpointError):
        from huggingface_hub import HfApi, snapshot_download

        weights = _weight_pattern(source, HfApi().list_repo_files(source), allow_pickle)
        return Path(snapshot_download(source, allow_patterns=[*_SMALL_FILES, weights]))


def fetch_config(source: str) -> Path:
    """Fetch config.json of a hub id and nothing else. Raises :class:`CheckpointError`."""
    with asking_hub(source, CheckpointError):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(source, "config.json"))


def fetch_data(source: str, wanted: Callable[[str], bool]) -> list[Path]:
    """Fetch the ``wanted`` files of a data set's hub id, sorted by name. Raises :class:`DataError`."""
    with asking_hub(f"the data set {source}", DataError):
        from huggingface_hub import HfApi, snapshot_download

        names = sorted(filter(wanted, HfApi().list_repo_files(source, repo_type="dataset")))
        folder = snapshot_download(source, repo_type="dataset", allow_patterns=names) if names else ""
        return [Path(folder) / name for name in names]


@contextmanager
def asking_hub(what: str, kind: type[LlavaEdgeError]) -> Iterator[None]:
    """Say in one line, as an error of ``kind``, why the hub does not serve ``what``."""
    with needing_extra("export"):
        try:
            yield
        except (LlavaEdgeError, ImportError):
            raise
        except Exception as error:  # huggingface_hub lets the errors of its HTTP library through, and changes it
            raise kind(
                expected=f"the hub to serve {what}",
                got=first_line(error),
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
