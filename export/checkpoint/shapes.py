"""The shape of every tensor held against the config's, from headers alone, before hours of writing."""

from __future__ import annotations

import copy

from ...runtime.errors import first_line
from .checkpoint import Checkpoint
from .names import CANONICAL
from .weights import refuse


def check_shapes(checkpoint: Checkpoint) -> None:
    """Compare with transformers' model of this config, made without memory. Raises :class:`CheckpointError`."""
    import torch
    from transformers import LlavaNextForConditionalGeneration

    config = copy.deepcopy(checkpoint.config)
    try:
        with torch.device("meta"):
            model = LlavaNextForConditionalGeneration._from_config(config)
    except Exception as error:  # what does not fit together in a config fails somewhere inside
        refuse("a config.json that transformers makes a model of", first_line(error), "check config.json", error)
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
    for name in checkpoint.tensors.names(""):
        wanted = expected.get(name)
        found = checkpoint.tensors.shape(name)
        if wanted is not None and found != wanted:
            refuse(
                f"{name} of shape {wanted}, as config.json has it",
                f"{found}",
                _fix(name),
            )


def _fix(name: str) -> str:
    embedding, head = CANONICAL["decoder"] + "embed_tokens.weight", CANONICAL["head"] + "weight"
    if name in (embedding, head):
        return "correct vocab_size in config.json, or save the model with its embeddings resized"
    return "check that config.json and the weights belong together"
