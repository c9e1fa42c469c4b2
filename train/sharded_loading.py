"""Where accelerate leaves FSDP out, on CPUs, transformers shards the model while loading it.

accelerate turns FSDP on for GPUs and their like only; on CPUs it would silently replicate the
model although its config file says FSDP. transformers 5 can shard with FSDP2 at load time on any
backend, and its Trainer then leaves the wrapping alone.
"""

from __future__ import annotations

import os
from typing import Any

PLAN = {
    "model.language_model.layers.*": "free_full_weight",
    "model.vision_tower.encoder.layers.*": "free_full_weight",
    "lm_head": "keep_full_weight",
}
"""Each layer is a unit; what is left (embeddings, connector, newline, norms) is the root's."""


def loading_options() -> dict[str, Any]:
    """What ``from_pretrained`` needs besides the path: sharding where the launcher asks for FSDP on CPUs."""
    import torch

    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not wanted or world_size == 1 or torch.accelerator.is_available():
        return {}
    from transformers.distributed import DistributedConfig

    return {"distributed_config": DistributedConfig(fsdp_size=world_size, fsdp_plan=PLAN)}
