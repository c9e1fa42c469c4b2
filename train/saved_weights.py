"""Weights that ``save_pretrained`` wrote, under the names that the model has in memory.

transformers 5 writes the CLIP tower's tensors under older names (``vision_tower.vision_model.…``) and
translates them only in ``from_pretrained``. Its Trainer does not: on resuming it matches names as they
are, non-strictly, and would leave the whole tower as it was when training began.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ON_DISK, IN_MEMORY = "model.vision_tower.vision_model.", "model.vision_tower."


def load_saved_weights(model: Any, folder: Path) -> None:
    """Load every weight of ``folder`` into ``model``; a missing or left-over one is an error that lists it."""
    from safetensors.torch import load_file

    state = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            known = name.replace(ON_DISK, IN_MEMORY) if name.startswith(ON_DISK) else name
            state[known] = tensor
    model.load_state_dict(state, strict=True)
