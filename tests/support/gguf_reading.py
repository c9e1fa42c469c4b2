"""An independent reading of a GGUF: the gguf package's reader, not the product's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def read_tensors(path: Path) -> dict[str, tuple[str, npt.NDArray[np.float32]]]:
    """Each tensor's stored type and its values as float32."""
    import gguf

    return {
        tensor.name: (
            tensor.tensor_type.name,
            np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32),
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


def read_fields(path: Path) -> dict[str, Any]:
    """The key-value pairs."""
    import gguf

    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def logits_of(path: Path, tokens: list[int]) -> npt.NDArray[np.float32]:
    """llama.cpp's logits (tokens, vocab) on a GGUF file."""
    from llama_cpp import Llama

    llm = Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=1)
    llm.eval(tokens)
    scores = np.array(llm.scores[: len(tokens)])
    llm.close()
    return scores
