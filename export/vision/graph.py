"""The vision half of the model as one module to trace: pixels in, connector features out.

transformers' own modules are traced, on a copy that shares the tower's weights: embeddings and layers
one after the other, as its ``CLIPVisionModel`` and ``SiglipVisionModel`` run them, up to the last
selected state. Attention is respelt as onnxruntime's own operator, and matrices can be stored in half
precision.

Measured with onnxruntime 1.31 on an AMX CPU at the CLIP-L/336 shape (6 layers, one thread, median
CPU time of one tile against the standard operators that torch exports):

===========================================  =====  =====
spelling                                      f32   int8
===========================================  =====  =====
standard operators                            1.00   1.00
MultiHeadAttention, q/k/v products apart      0.95   0.87
… with their biases handed to it              0.95   0.89
… with one q/k/v product and a Split          0.96   0.91
… and SkipLayerNormalization written out      0.98   0.99
===========================================  =====  =====

So attention is the only thing respelt. onnxruntime fuses QuickGelu, Gelu and biases by itself when
it loads the file; its SkipLayerNormalization takes three times as long as the Add and the
LayerNormalization that it would replace.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import nn

from ...runtime.pictures.towers import FeatureLayers, feature_states, find_tower

Attention = Literal["fused", "standard"]
"""``fused``: onnxruntime's MultiHeadAttention; ``standard``: ONNX operators only, as TensorRT needs."""


class VisionGraph(nn.Module):
    """A vision tower up to one layer, without class token and post layer norm, then the connector.

    ``feature_layer`` indexes transformers' ``hidden_states``: -1 is what leaves the last layer, -2
    what LLaVA-NeXT takes; of several their numbers stand side by side. ``precision`` is how matrices are
    stored, "f32" or "f16". Nothing is computed in half precision, so nothing overflows; on a CPU it measures
    as fast as f32, a graph computing in f16 2 % slower.
    A ``fused`` graph can be exported but not run by torch. Raises :class:`CheckpointError` where the
    tower has no such layer.
    """

    def __init__(
        self,
        tower: nn.Module,
        connector: nn.Module,
        *,
        feature_layer: FeatureLayers,
        attention: Attention = "fused",
        precision: str = "f32",
    ) -> None:
        super().__init__()
        trunk: Any = _share(tower)
        self.states = feature_states(feature_layer, len(trunk.encoder.layers), least=0)
        trunk.encoder.layers = trunk.encoder.layers[: max(self.states)]
        if attention == "fused":
            for layer in trunk.encoder.layers:
                layer.self_attn = FusedAttention(layer.self_attn)
        self.trunk = trunk
        kind = find_tower(trunk.config.model_type, "the tower")
        self.before, self.patches = kind.before, slice(kind.positions(0), None)
        self.connector = _share(connector)
        if precision == "f16":
            _store_half(self)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn float32 pixels (tiles, 3, S, S) into float32 features (tiles, P*P, D)."""
        hidden = self.trunk.embeddings(pixels)  # (tiles, positions, Dv)
        for module in self.before:
            hidden = getattr(self.trunk, module)(hidden)
        states = [hidden]
        for layer in self.trunk.encoder.layers:
            states.append(layer(states[-1], None))
        chosen = [states[index][:, self.patches] for index in self.states]
        features = chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=-1)
        return self.connector(features)  # type: ignore[no-any-return]


class FusedAttention(nn.Module):
    """The tower's self-attention with its two products and softmax as one onnxruntime operator."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads = int(attention.num_heads)
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.out_proj = attention.v_proj, attention.out_proj

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        """Attend over (tiles, tokens, Dv); transformers expects the weights second and gets none."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        mixed = torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            [projection(hidden_states) for projection in projections],
            {"num_heads": self.num_heads},
            dtype=hidden_states.dtype,
            shape=hidden_states.shape,
            version=1,
        )
        return self.out_proj(mixed), None


class HalfLinear(nn.Module):
    """A linear layer whose matrix is kept in half precision and widened where it is used.

    A matrix that half precision can't hold (beyond 65504) must stay in an ``nn.Linear``. torch's
    exporter widens matrices of less than some 8000 numbers for good: small, and no less exact.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.matrix = nn.Buffer(linear.weight.detach().half().t().contiguous())  # (inputs, outputs)
        self.bias = linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs), in float32."""
        outputs = inputs @ self.matrix.float()
        return outputs if self.bias is None else outputs + self.bias


def _share(module: nn.Module) -> nn.Module:
    """Copy a module's structure, so that it can be edited, around the very same tensors."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def _store_half(module: nn.Module) -> None:
    """Replace the linear layers below ``module``, in place, by ones stored in half precision."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and child.weight.abs().max() <= torch.finfo(torch.half).max:
            setattr(module, name, HalfLinear(child))
        else:
            _store_half(child)
