"""The bytes of an exported bundle's files, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..runtime.bundle.bundle import MANIFEST
from ..runtime.bundle.disk_space import MANIFEST_BYTES
from ..runtime.bundle.gguf_layout import GgufFile
from ..runtime.pictures.vision_recipes import VISION_RECIPES
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.names import CANONICAL
from .verification.reference import EMBEDDINGS_KEPT, FEATURES_KEPT, GREEDY_TOKENS, PIXELS_KEPT

GRAPH_BYTES, GRAPH_LAYER_BYTES = 64_000, 24_000
"""What an ONNX graph takes besides its weights, and a layer of it: more than was measured (see tests)."""
ARRAY_BYTES = 1_000
"""Head of an array in an archive, generously."""
FLOAT32_BYTES = 4


def bundle_bytes(
    checkpoint: Checkpoint, llm: Sequence[GgufFile], *, vision_type: str, vision: str, newline: str, parity: str
) -> dict[str, int]:
    """Bytes by file name: exact for the LLM's, an upper bound for the small rest."""
    dim = checkpoint.tensors.shape(CANONICAL["newline"])[0]
    vocabulary = checkpoint.tensors.shape(CANONICAL["decoder"] + "embed_tokens.weight")[0]
    return {
        **{file.name: file.size for file in llm},
        vision: vision_bytes(checkpoint, vision_type),
        newline: dim * FLOAT32_BYTES + ARRAY_BYTES,
        parity: parity_bytes(dim, vocabulary),
        MANIFEST: MANIFEST_BYTES,
    }


def vision_bytes(checkpoint: Checkpoint, vision_type: str) -> int:
    """Bytes of the vision graph at most."""
    names = checkpoint.tensors.names(CANONICAL["vision"], CANONICAL["connector_1"], CANONICAL["connector_2"])
    shapes = [checkpoint.tensors.shape(name) for name in names]
    width = math.ceil(VISION_RECIPES[vision_type].stored)
    weights = sum(math.prod(shape) * (width if len(shape) == 2 else FLOAT32_BYTES) for shape in shapes)
    layers = int(checkpoint.config.vision_config.num_hidden_layers)
    return weights + GRAPH_BYTES + layers * GRAPH_LAYER_BYTES


def parity_bytes(dim: int, vocabulary: int) -> int:
    """Bytes of the parity record at most."""
    numbers = PIXELS_KEPT + (FEATURES_KEPT + EMBEDDINGS_KEPT) * dim + vocabulary + 2 * GREEDY_TOKENS
    return numbers * FLOAT32_BYTES + 16 * ARRAY_BYTES
