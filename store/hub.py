"""What comes from the hub, downloaded once and cached: checkpoints, their configs, published data.

HF_ENDPOINT, HF_HOME and HF_TOKEN are honoured.
"""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging import ERROR
from pathlib import Path
from typing import Any

from ..runtime.errors import CheckpointError, DataError, LlavaEdgeError, first_line, needing_extra, shown

_FILES = (
    "png|jpe?g|webp|gif|bmp|tiff?|heic|avif|pdf|gguf|onnx|npy|npz|json|jsonl|safetensors|bin|pth?|txt|md|toml|zip|tar"
)
HUB_ID = re.compile(rf"(?!.*\.(?:{_FILES})$)[A-Za-z0-9][\w.-]{{0,95}}/[\w.-]{{1,96}}", re.IGNORECASE)
"""An id on the hub: owner/name, and no file's name."""
_SMALL_FILES = ("*.json", "*.jinja", "tokenizer.model", "merges.txt")
_SAFETENSORS = "*.safetensors"
_PICKLES = "*.bin"
_TIMEOUT = 10.0
"""Seconds for the hub to begin an answer, asked once: then what was fetched before is used."""


def locate(source: str, *, allow_pickle: bool = False, beside: Path | None = None) -> Path:
    """Return the folder of ``source``: itself if it is one, else a snapshot of that hub id.

    A relative path is also looked for in ``beside``, the folder of the config that names it. Weights
    are fetched as safetensors; .bin files only with ``allow_pickle`` and where the repository has
    no safetensors. Raises :class:`CheckpointError`.
    """
    with suppress(OSError, ValueError):  # a name too long, or with a zero in it, is none of a folder
        for folder in (Path(source), beside / source if beside is not None else Path(source)):
            if folder.is_dir():
                return folder
    if not HUB_ID.fullmatch(source):
        raise CheckpointError(
            expected="a checkpoint folder or a hub id like owner/name",
            got=repr(shown(source)),
            fix="check the path",
        )
    return _download(source, allow_pickle)


def _download(source: str, allow_pickle: bool) -> Path:
    """The folder with the files of a checkpoint at the top of ``source``; what lies in folders there is left alone."""
    with asking_hub(source, CheckpointError):
        names = _names_on_hub(
            source, "model", lambda folder: any(folder.glob(_SAFETENSORS)) or any(folder.glob(_PICKLES))
        )
        if isinstance(names, Path):
            return names
        top = [name for name in names if "/" not in name]
        wanted = (*_SMALL_FILES, _weight_pattern(source, top, allow_pickle))
        chosen = [name for name in top if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)]
        return _fetch(source, "model", chosen)


def fetch_config(source: str) -> Path:
    """Fetch config.json of a hub id and nothing else. Raises :class:`CheckpointError`."""
    with asking_hub(source, CheckpointError):
        names = _names_on_hub(source, "model", lambda folder: (folder / "config.json").is_file())
        folder = names if isinstance(names, Path) else _fetch(source, "model", ["config.json"])
        if not (folder / "config.json").is_file():
            raise CheckpointError(expected=f"config.json in {source}", got="none", fix="give the id of a checkpoint")
        return folder / "config.json"


def fetch_data(source: str, wanted: Callable[[str], bool]) -> list[Path]:
    """Fetch the ``wanted`` files of a data set's hub id, sorted by name. Raises :class:`DataError`."""
    with asking_hub(f"the data set {source}", DataError):
        names = _names_on_hub(source, "dataset", lambda folder: any(map(wanted, _below(folder))))
        if isinstance(names, Path):
            return [names / name for name in sorted(filter(wanted, _below(names)))]
        chosen = sorted(filter(wanted, names))
        folder = _fetch(source, "dataset", chosen) if chosen else Path()
        return [folder / name for name in chosen]


def _names_on_hub(source: str, kind: str, complete: Callable[[Path], bool]) -> list[str] | Path:
    """Names of all files of ``source``; where the hub does not answer, the folder fetched before if ``complete``."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        found: Any = HfApi().repo_info(source, repo_type=kind, timeout=_TIMEOUT)
        return [one.rfilename for one in found.siblings or ()]
    except Exception:  # as asking_hub says; offline mode is one of them
        with suppress(Exception):
            folder = Path(snapshot_download(source, repo_type=kind, local_files_only=True))
            if complete(folder):
                return folder
        raise


def _fetch(source: str, kind: str, names: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [glob.escape(name) for name in names]
    return Path(snapshot_download(source, repo_type=kind, allow_patterns=patterns))


def _below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


@contextmanager
def asking_hub(what: str, kind: type[LlavaEdgeError]) -> Iterator[None]:
    """Say in one line, as an error of ``kind``, why the hub does not serve ``what``."""
    with needing_extra("hub", "export"):
        from huggingface_hub.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity(ERROR)  # what goes wrong is said below, once
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
        finally:
            logging.set_verbosity(verbosity)


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
