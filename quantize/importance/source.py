"""What ``--imatrix`` means: a file, or data to compute a matrix on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.gguf_reading import read_model
from ...runtime.bundle.manifest import Importance
from ...runtime.errors import OptionError, shown
from ...runtime.system.plain_files import read_plain_text
from ...runtime.system.storage import file_sha256
from .calibration import DEMO, demo_calibration, fingerprint, read_conversations, text_fingerprint, without_pictures
from .collect import Collected, collect, conversation_prompts, text_prompts
from .matrix import ImportanceMatrix, read_imatrix

NONE = "none"
PICTURES, TEXT = "calibrate:", "calibrate-text:"
DEFAULT_PROMPTS = 64
"""Conversations that a matrix is computed on: a picture of the 8B model has two thousand positions."""


def importance_matrix(
    bundle: Bundle, wanted: str, *, prompts: int = DEFAULT_PROMPTS, threads: int = 0
) -> tuple[ImportanceMatrix, Importance] | None:
    """The matrix that ``wanted`` asks for, with its record for the manifest; None for "none".

    ``wanted`` is "calibrate:DATA" (conversations with their pictures), "calibrate-text:DATA" (the
    same without pictures, or a plain text file) or the path of an imatrix GGUF. DATA is a folder
    or file in LLaVA's JSON format, or "demo". At most ``prompts`` conversations are taken, evenly spread; 0 takes
    all. Raises OptionError, DataError, ImageError, and what ``load`` raises.
    """
    if wanted == NONE:
        return None
    if wanted.startswith(TEXT):
        return _on_text(bundle, wanted.removeprefix(TEXT), prompts, threads)
    if wanted.startswith(PICTURES):
        return _on_conversations(bundle, wanted.removeprefix(PICTURES), prompts, threads, pictures=True)
    path = Path(wanted)
    if not path.is_file():
        raise OptionError(
            expected=f"an importance matrix: {PICTURES}DATA, {TEXT}DATA, a GGUF file, or {NONE}",
            got=shown(wanted),
            fix="check the path",
        )
    matrix = read_imatrix(path)
    positions = matrix.chunks * matrix.chunk_size
    record = Importance("file", path.name, file_sha256(path), 0, 0, 0, positions, len(matrix.entries))
    return matrix, record


def check_fits(matrix: ImportanceMatrix, gguf_path: Path) -> Mapping[str, npt.NDArray[np.float32]]:
    """The importance by weight name, for the model at ``gguf_path`` (its first file). Raises :class:`OptionError`."""
    shapes = {tensor.name: tensor.shape for tensor in read_model(gguf_path).tensors}
    for name, entry in matrix.entries.items():
        experts, columns = entry.sums.shape
        shape = shapes.get(name)
        if shape is None or shape[0] != columns or (shape[2] if len(shape) > 2 else 1) != experts:
            raise OptionError(
                expected=f"an importance matrix for {gguf_path.name}",
                got=f"{columns} columns at {name}, " + (f"where it has {shape[0]}" if shape else "which it has not"),
                fix="make the matrix from this bundle",
            )
    return {name: entry.importance() for name, entry in matrix.entries.items()}


def _on_conversations(
    bundle: Bundle, data: str, limit: int, threads: int, *, pictures: bool
) -> tuple[ImportanceMatrix, Importance]:
    path = demo_calibration() if data == DEMO else Path(data)
    conversations = read_conversations(path, limit=limit)
    if not pictures:
        conversations = [without_pictures(conversation) for conversation in conversations]
    print_of_data = fingerprint(conversations)
    name = data if data == DEMO else path.resolve().name
    collected = collect(
        bundle.path, lambda model: conversation_prompts(model, conversations), dataset=name, threads=threads
    )
    return _recorded(collected, "pictures" if pictures else "text", name, print_of_data)


def _on_text(bundle: Bundle, data: str, limit: int, threads: int) -> tuple[ImportanceMatrix, Importance]:
    path = Path(data)
    if data == DEMO or path.is_dir() or path.suffix in (".json", ".jsonl"):
        return _on_conversations(bundle, data, limit, threads, pictures=False)
    try:
        text = read_plain_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(expected=f"a UTF-8 text file at {path}", got=str(error), fix="check the path") from error
    collected = collect(bundle.path, lambda model: text_prompts(model, text), dataset=path.name, threads=threads)
    return _recorded(collected, "text", path.name, text_fingerprint(text))


def _recorded(
    collected: Collected, source: str, name: str, data_fingerprint: str
) -> tuple[ImportanceMatrix, Importance]:
    return collected.matrix, Importance(
        source="pictures" if source == "pictures" else "text",
        data=name,
        fingerprint=data_fingerprint,
        prompts=collected.prompts,
        pictures=collected.pictures,
        image_positions=collected.image_positions,
        positions=collected.positions,
        weights=len(collected.matrix.entries),
    )
