"""How much there is to do: arithmetic of encoding and prefill, bytes of decoding, read off a bundle's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundle.bundle import Bundle
from ...runtime.pictures.geometry import Geometry

PRODUCTS = ("MatMul", "MatMulInteger", "Gemm", "MatMulNBits")
CONNECTOR_PRODUCTS = 2
"""The last products of the graph; they run on the patches alone, those before them on CLS as well."""
KV_BYTES = 2
"""llama.cpp keeps keys and values in f16."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations (a multiply and an add are two) and bytes.

    ``encode`` is for one tile. A prefill of T positions takes ``prefill_linear`` T + ``prefill_square``
    T (T + 1) / 2 + ``prefill_once`` (the logits of the last position). Decoding reads ``weights``
    bytes a token and ``cache`` bytes for each position before it.
    """

    encode: float
    prefill_linear: float
    prefill_square: float
    prefill_once: float
    weights: int
    cache: int

    def prefill(self, positions: int) -> float:
        """Operations of a prefill of ``positions``, attention counted for earlier positions only."""
        square = self.prefill_square * positions * (positions + 1) / 2
        return self.prefill_linear * positions + square + self.prefill_once

    def decode_bytes(self, positions: int) -> int:
        """Bytes read for one token behind ``positions``."""
        return self.weights + self.cache * positions


def count_work(bundle: Bundle) -> Work:
    """Count what a bundle's graph and GGUF ask for. Needs the packages onnx and gguf."""
    linear, square, once, weights, cache = _llm_work(bundle.llm_path)
    encode = encode_operations(bundle.vision_path, bundle.manifest.geometry)
    return Work(encode, linear, square, once, weights, cache)


def encode_operations(path: Path, geometry: Geometry) -> float:
    """Operations of one tile: the patch convolution, every product with weights, attention's two."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    sources = {name: node for node in graph.node for name in node.output}
    patches = geometry.features_per_tile
    (patch_shape,) = (shapes[node.input[1]] for node in graph.node if node.op_type == "Conv")
    hidden, weights_a_patch = patch_shape[0], patch_shape[1] * patch_shape[2] * patch_shape[3]
    sizes = [size for node in graph.node if (size := _weights_of(node, shapes, sources))]
    tower, connector = sizes[:-CONNECTOR_PRODUCTS], sizes[-CONNECTOR_PRODUCTS:]
    fused = sum(node.op_type == "MultiHeadAttention" for node in graph.node)
    free = sum(node.op_type == "MatMul" and not _weights_of(node, shapes, sources) for node in graph.node)
    positions = patches + 1
    attention = (2 * fused + free) * 2 * positions * positions * hidden
    return float(
        2 * patches * hidden * weights_a_patch + 2 * positions * sum(tower) + 2 * patches * sum(connector) + attention
    )


def _weights_of(node: Any, shapes: dict[str, tuple[int, ...]], sources: dict[str, Any]) -> int:
    """Weights of a product with a stored matrix; 0 for other nodes and for attention's own products."""
    if node.op_type not in PRODUCTS:
        return 0
    if node.op_type == "MatMulNBits":
        sizes = {one.name: one.i for one in node.attribute}
        return int(sizes["K"] * sizes["N"])
    name = node.input[1]
    while name not in shapes and name in sources and sources[name].op_type in ("Cast", "DequantizeLinear", "Transpose"):
        name = sources[name].input[0]
    shape = shapes.get(name, ())
    return shape[0] * shape[1] if len(shape) == 2 else 0


def _llm_work(path: Path) -> tuple[float, float, float, int, int]:
    """The parts of :class:`Work` that a GGUF file tells."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    matrices = [tensor for tensor in reader.tensors if len(tensor.shape) == 2]
    layers = sum(int(tensor.n_elements) for tensor in matrices if tensor.name.startswith("blk."))
    named = {tensor.name: tensor for tensor in reader.tensors}
    output = named.get("output.weight", named["token_embd.weight"])
    unread = named["token_embd.weight"].n_bytes if "output.weight" in named else 0
    architecture = reader.get_field("general.architecture").contents()

    def setting(name: str) -> int:
        return int(reader.get_field(f"{architecture}.{name}").contents())

    count, heads = setting("block_count"), setting("attention.head_count")
    head_dim = setting("embedding_length") // heads
    key_value = count * setting("attention.head_count_kv") * head_dim
    square = 4.0 * count * heads * head_dim  # a query against a key, and its weight times a value
    weights = sum(int(tensor.n_bytes) for tensor in reader.tensors) - int(unread)
    return 2.0 * layers, square, 2.0 * int(output.n_elements), weights, 2 * key_value * KV_BYTES
