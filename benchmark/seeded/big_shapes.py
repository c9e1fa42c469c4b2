"""The shapes of the largest models of the family."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...runtime.planning.shapes import LlmShape

GIB = 2**30


@dataclass(frozen=True)
class BigShape:
    """A Qwen1.5 model's shape: layers, widths, heads, vocabulary."""

    name: str
    layers: int
    dim: int
    feed_forward: int
    heads: int
    key_value_heads: int
    vocabulary: int

    @property
    def kv_dim(self) -> int:
        """Width of one position's keys (or values) in a layer."""
        return self.dim // self.heads * self.key_value_heads

    def matrices(self) -> dict[str, tuple[int, ...]]:
        """Rows and columns of every matrix by its GGUF name: layers, embedding table and output head."""
        return {name: shape for name, shape in self.llm.tensors() if len(shape) == 2}

    @property
    def parameters(self) -> int:
        """Weights of all matrices, the embedding table and the output head included."""
        return sum(rows * columns for rows, columns in self.matrices().values())

    @property
    def llm(self) -> LlmShape:
        """The same as the planner has it."""
        return LlmShape(
            architecture="qwen2", layers=self.layers, dim=self.dim, heads=self.heads, kv_heads=self.key_value_heads,
            head_dim=self.dim // self.heads, feed_forward=self.feed_forward, vocabulary=self.vocabulary,
            context_length=CONTEXT,
        )  # fmt: skip


SHAPES = {
    "72b": BigShape("llava-next-72b", 80, 8192, 24576, 64, 64, 152064),
    "110b": BigShape("llava-next-110b", 80, 8192, 49152, 64, 8, 152064),
}


def reduced(shape: BigShape, *, layers: int, vocabulary: int) -> BigShape:
    """The same layers, fewer of them, with a smaller table and head."""
    return replace(shape, layers=layers, vocabulary=vocabulary)


CONTEXT = 4096
