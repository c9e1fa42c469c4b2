"""The vision half of a checkpoint as torch modules in float32: tower, connector, newline."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...runtime.errors import CheckpointError
from ...runtime.pictures.towers import find_tower
from .checkpoint import Checkpoint
from .names import CANONICAL


def load_tower(checkpoint: Checkpoint) -> Any:
    """Return transformers' model of the tower; layers after the selected features are zeros."""
    import transformers
    from transformers.initialization import no_init_weights

    config = checkpoint.config.vision_config
    with no_init_weights():
        tower = getattr(transformers, find_tower(config.model_type, checkpoint.name).model_class)(config).to(
            torch.float32
        )
    copy_weights(tower, checkpoint, CANONICAL["vision"])
    return tower.eval()


def load_connector(checkpoint: Checkpoint) -> nn.Sequential:
    """Return the connector: Linear, exact GELU, Linear; (..., vision dim, or several of them) to (..., dim)."""
    first, second = (CANONICAL["connector_1"], CANONICAL["connector_2"])
    middle, vision_dim = checkpoint.tensors.shape(first + "weight")
    dim = checkpoint.tensors.shape(second + "weight")[0]
    bias = bool(checkpoint.config.multimodal_projector_bias)
    connector = nn.Sequential(nn.Linear(vision_dim, middle, bias), nn.GELU(), nn.Linear(middle, dim, bias))
    for module, prefix in ((connector[0], first), (connector[2], second)):
        copy_weights(module, checkpoint, prefix)
    return connector.eval()


def load_newline(checkpoint: Checkpoint) -> npt.NDArray[np.float32]:
    """Return the learned ``image_newline`` vector, float32 of shape (dim,)."""
    tensor = checkpoint.tensors.read(CANONICAL["newline"])
    return np.asarray(tensor.to(torch.float32).numpy(), np.float32)


def copy_weights(module: nn.Module, checkpoint: Checkpoint, prefix: str) -> None:
    """Copy the tensors under ``prefix`` into ``module``'s parameters, one at a time.

    Parameters without a tensor become zeros: the name table has said which may be without one.
    Raises :class:`CheckpointError` where a shape differs from the config's.
    """
    names = set(checkpoint.tensors.names(prefix))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if prefix + name not in names:
                parameter.zero_()
                continue
            names.remove(prefix + name)
            shape = checkpoint.tensors.shape(prefix + name)
            if shape != tuple(parameter.shape):
                raise CheckpointError(
                    expected=f"{prefix + name} of shape {tuple(parameter.shape)}",
                    got=str(shape),
                    fix="check that config.json and the weights belong together",
                )
            parameter.copy_(checkpoint.tensors.read(prefix + name))
    if names:
        raise RuntimeError(f"no parameter for {', '.join(sorted(names))}")
