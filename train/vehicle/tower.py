"""The demo's vision tower as a folder in transformers' layout, unpacked from a bundle's vision graph in int8.

The checkpoint that the demo was exported from does not ship. Its graph has every matrix in int8 with a scale a column,
and every bias and norm under the checkpoint's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.bundle import Bundle
from ...runtime.errors import BundleError, needing_extra
from ...runtime.system.storage import writing_folder

Arrays = dict[str, npt.NDArray[np.float32]]
TRUNK, CONNECTOR = "trunk.", "connector."
HEAD_SIZE = 64
THROUGH = ("Add", "Mul", "Cast")
"""Operations between a bias and its product of integers."""


def unpack_graph(bundle: Bundle) -> tuple[Arrays, Arrays]:
    """Tower and connector of ``bundle`` in float32: weights (out, in), and all else as it is, by transformers' names.

    Raises :class:`BundleError` for a graph in another recipe than int8.
    """
    with needing_extra("export"):
        import onnx
        from onnx import numpy_helper

    graph = onnx.load(bundle.vision_path).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    arrays = {
        name: np.asarray(values, np.float32)
        for name, values in stored.items()
        if name.startswith((TRUNK, CONNECTOR)) and not name.endswith("position_ids")
    }
    for node in graph.node:
        bias = next((name for name in node.input if name in arrays and name.endswith(".bias")), None)
        if node.op_type == "Add" and bias is not None:
            weight = f"{bias.removesuffix('bias')}weight"
            arrays[weight] = _matrix(node, makers, stored, bundle.vision_path)
    return (
        {name.removeprefix(TRUNK): values for name, values in arrays.items() if name.startswith(TRUNK)},
        {name.removeprefix(CONNECTOR): values for name, values in arrays.items() if name.startswith(CONNECTOR)},
    )


def _matrix(
    node: Any, makers: dict[str, Any], stored: dict[str, npt.NDArray[Any]], path: Path
) -> npt.NDArray[np.float32]:
    """The matrix whose product ``node`` adds a bias to, (out, in)."""
    while node is not None and node.op_type in THROUGH:
        node = next((makers[name] for name in node.input if name in makers), None)
    if node is None or node.op_type != "MatMulInteger":
        raise BundleError(
            expected=f"a vision graph in int8 at {path}",
            got="another recipe" if node is None else node.op_type,
            fix="quantize the bundle with --vision int8",
        )
    name = node.input[1]
    scale = stored[f"{name.removesuffix('_int8')}_scale"]
    return np.ascontiguousarray((stored[name].astype(np.float32) * scale).T)


def write_tower(bundle: Bundle, destination: Path) -> None:
    """Write the CLIP tower of ``bundle`` to the folder ``destination``, whole or not at all.

    Features come from the last layer but one, so the graph holds no last layer and no final norm: both are as
    transformers draws them, and take no part. Raises :class:`BundleError`.
    """
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    arrays, _ = unpack_graph(bundle)
    width = arrays["embeddings.class_embedding"].shape[0]
    layers = sum(name.endswith("mlp.fc1.bias") for name in arrays)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=arrays["encoder.layers.0.mlp.fc1.bias"].shape[0],
        num_hidden_layers=layers + 1,
        num_attention_heads=width // HEAD_SIZE,
        projection_dim=width,
        image_size=bundle.manifest.geometry.image_size,
        patch_size=bundle.manifest.geometry.patch_size,
        hidden_act="quick_gelu",
    )
    torch.manual_seed(0)
    model = CLIPVisionModel(config)
    state = {name: torch.tensor(values) for name, values in arrays.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    beyond = (f"encoder.layers.{layers}.", "post_layernorm.", "embeddings.position_ids")
    if unexpected or not all(name.startswith(beyond) for name in missing):
        raise BundleError(
            expected=f"the weights of a CLIP tower in {bundle.vision_path}",
            got=f"without {', '.join(missing)[:80]}; with {', '.join(unexpected)[:80]}",
            fix="use a bundle that llava-edge exported",
        )
    with writing_folder(destination) as partial:
        model.save_pretrained(partial)
