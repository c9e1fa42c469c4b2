"""What a LLaVA-NeXT model is made of, in numbers: its tensors and their sizes, without its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..ggml.types import tensor_bytes
from ..pictures.geometry import Geometry
from ..pictures.tiles import Layout, lay_out
from ..pictures.towers import CLIP, Tower
from .recipe_types import tensor_types

Tensor = tuple[str, tuple[int, ...]]
"""A GGUF name and a shape: (rows, columns), or (length,)."""

BIASES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""Matrices of a layer that may have a bias."""
FREQUENCY_FACTORS = "rope_freqs.weight"
"""llama.cpp's name of the divisors of rotary frequencies."""
_LAYERS_OF_70B = 80
"""llama.cpp names a size by the number of layers; this one means 70B (models/llama.cpp, models/qwen2.cpp)."""


@dataclass(frozen=True)
class LlmShape:
    """A language model's layers and widths, in llama.cpp's terms.

    ``frequency_factors``: the file has a divisor for each rotary frequency.
    A shape read from a GGUF file has its ``recipe`` and the bytes of each tensor in ``sizes``.
    """

    architecture: str
    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    context_length: int
    biases: tuple[str, ...] = ()
    tied: bool = False
    frequency_factors: bool = False
    recipe: str = ""
    sizes: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def kv_dim(self) -> int:
        """Width of one position's keys in one layer; its values have the same."""
        return self.kv_heads * self.head_dim

    def layer_tensors(self, layer: int) -> list[Tensor]:
        """The tensors of one layer."""
        block, heads_dim = f"blk.{layer}.", self.heads * self.head_dim
        sizes = {"attn_q": heads_dim, "attn_k": self.kv_dim, "attn_v": self.kv_dim, "attn_output": self.dim}
        sizes |= {"ffn_gate": self.feed_forward, "ffn_up": self.feed_forward, "ffn_down": self.dim}
        found: list[Tensor] = [(f"{block}{name}.weight", (self.dim,)) for name in ("attn_norm", "ffn_norm")]
        found += [(f"{block}{name}.weight", (sizes[name], self.dim)) for name in ("attn_q", "attn_k", "attn_v")]
        found.append((f"{block}attn_output.weight", (self.dim, heads_dim)))
        found += [(f"{block}{name}.weight", (self.feed_forward, self.dim)) for name in ("ffn_gate", "ffn_up")]
        found.append((f"{block}ffn_down.weight", (self.dim, self.feed_forward)))
        return found + [(f"{block}{name}.bias", (sizes[name],)) for name in self.biases]

    def tensors(self) -> list[Tensor]:
        """Every tensor of the model."""
        found: list[Tensor] = [("token_embd.weight", (self.vocabulary, self.dim)), ("output_norm.weight", (self.dim,))]
        if not self.tied:
            found.append(("output.weight", (self.vocabulary, self.dim)))
        if self.frequency_factors:
            found.append((FREQUENCY_FACTORS, (self.head_dim // 2,)))
        return found + [one for layer in range(self.layers) for one in self.layer_tensors(layer)]

    @property
    def parameters(self) -> int:
        """Weights of the model, each tensor once."""
        return sum(math.prod(shape) for _, shape in self.tensors())

    def stored_types(self, recipe: str) -> dict[str, str]:
        """Each tensor's type in ``recipe``."""
        grouped = self.architecture == "llama" and self.heads != self.kv_heads
        full = self.layers == _LAYERS_OF_70B and (self.architecture == "qwen2" or grouped)
        return tensor_types(
            self.tensors(), recipe, layers=self.layers, heads_per_kv=self.heads // self.kv_heads, type_70b=full
        )


@dataclass(frozen=True)
class LlmBytes:
    """Weights in bytes: each layer's, the input table's, the output head's with its norm, the largest tensor's.

    A tied model has no head of its own: ``output`` is then the norm and, on another device than the
    table, ``copy``, as llama.cpp keeps the table twice.
    """

    layers: tuple[int, ...]
    embedding: int
    output: int
    copy: int
    largest: int

    @property
    def total(self) -> int:
        """Bytes of all tensors, each once."""
        return sum(self.layers) + self.embedding + self.output


def llm_bytes(shape: LlmShape, recipe: str) -> LlmBytes:
    """Bytes of the model's weights in ``recipe``; of a file's own recipe, as the file has them."""
    sizes = shape.sizes
    if recipe != shape.recipe or not sizes:
        types = shape.stored_types(recipe)
        sizes = {name: tensor_bytes(types[name], one) for name, one in shape.tensors()}
    layers = [0] * shape.layers
    embedding = output = 0
    for name, size in sizes.items():
        if name.startswith("blk."):
            layers[int(name.split(".")[1])] += size
        elif name.startswith("output"):
            output += size
        else:
            embedding += size
    copy = 0 if "output.weight" in sizes else embedding
    in_layers = [size for name, size in sizes.items() if name.startswith("blk.")]
    return LlmBytes(tuple(layers), embedding, output, copy, max(in_layers))


@dataclass(frozen=True)
class VisionShape:
    """Vision tower and connector. ``layers`` are all the tower has, ``used`` those before the features.

    ``states`` is how many of its states stand side by side as features. A bundle's tower has the graph's ``recipe``
    and size in bytes; its inner widths are not known (0).
    """

    hidden: int
    feed_forward: int
    layers: int
    used: int
    heads: int
    dim: int
    geometry: Geometry
    recipe: str = ""
    file_bytes: int = 0
    tower: Tower = CLIP
    states: int = 1
    connector_bias: bool = True

    def tower_parameters(self, layers: int) -> int:
        """Weights of the tower with ``layers`` layers and its outer norms."""
        side, outer = self.geometry.patch_size, 2 * self.hidden * len(self.tower.outer_modules)
        positions = self.tower.positions(self.geometry.features_per_tile)
        embeddings = self.hidden * (3 * side * side + positions + 1)  # a class token, or a bias of the patches
        layer = 4 * self.hidden * (self.hidden + 1) + 4 * self.hidden
        layer += 2 * self.hidden * self.feed_forward + self.hidden + self.feed_forward
        return embeddings + layers * layer + outer

    @property
    def connector_parameters(self) -> int:
        """Weights of the two linear layers, and the newline vector."""
        matrices = self.dim * (self.states * self.hidden + self.dim)
        return matrices + 2 * self.dim * self.connector_bias + self.dim

    @property
    def exported_parameters(self) -> int:
        """Weights in the exported graph: unused layers and the last norm are left out."""
        behind = 2 * self.hidden * len(self.tower.behind)
        return self.tower_parameters(self.used) - behind + self.connector_parameters - self.dim


@dataclass(frozen=True)
class ModelShape:
    """A whole model; with ``overview_only`` pictures are taken without tiles, and ``kept`` are positions of each."""

    name: str
    llm: LlmShape
    vision: VisionShape
    overview_only: bool = False
    kept: int | str | None = None

    @property
    def picture_tokens(self) -> int:
        """Positions of the largest picture: one that fills its tile grid."""
        return max(layout.image_tokens for layout in self._largest())

    @property
    def picture_tiles(self) -> int:
        """Tiles of the picture with most of them, the overview included."""
        return max(layout.tiles for layout in self._largest())

    def _largest(self) -> list[Layout]:
        geometry = self.vision.geometry
        return [
            lay_out((width, height), geometry, overview_only=self.overview_only, picture_tokens=self.kept)
            for height, width in _canvases(geometry)
        ]


def _canvases(geometry: Geometry) -> tuple[tuple[int, int], ...]:
    return geometry.pinpoints or ((geometry.image_size, geometry.image_size),)
