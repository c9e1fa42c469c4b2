"""A model loaded for sharding: how much of it each process reads.

With accelerate's FSDP one process reads the weights and accelerate hands them out. accelerate turns
FSDP on for GPUs and their like only; on CPUs it would silently replicate the model although its
config file says FSDP. There transformers shards with FSDP2 while it loads, which it can on any
backend, and its Trainer then leaves the wrapping alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .generation import read_generation_config

PLAN = {
    "model.language_model.layers.*": "free_full_weight",
    "model.vision_tower.encoder.layers.*": "free_full_weight",
    "lm_head": "keep_full_weight",
}
"""Each layer is a unit; what is left (embeddings, connector, newline, norms) is the root's."""


def load_sharded(folder: Path, attention: str = "") -> Any:
    """transformers' LLaVA-NeXT of ``folder`` in float32, ready for whatever sharding the launcher asks for.

    ``attention`` is one of transformers' implementations, or empty for its own choice.
    """
    import torch
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

    chosen = {"attn_implementation": attention} if attention else {}
    if waits_for_weights():
        from transformers.initialization import no_init_weights

        # memory that is never touched, so never taken; not the meta device, where accelerate can't tell weights apart
        with no_init_weights():
            config = LlavaNextConfig.from_pretrained(folder, **chosen)
            return LlavaNextForConditionalGeneration(config).float()
    return LlavaNextForConditionalGeneration.from_pretrained(
        folder,
        dtype=torch.float32,
        generation_config=read_generation_config(folder),
        **chosen,
        **loading_options(),
    )


def waits_for_weights() -> bool:
    """Whether accelerate will hand this process its shard, by ``fsdp_cpu_ram_efficient_loading``.

    transformers 5.23 honours that setting for buffers only: every process would read every weight.
    """
    from transformers.distributed.fsdp import is_fsdp_enabled

    return is_fsdp_enabled() and not loading_options() and int(os.environ.get("RANK", "0")) != 0


def loading_options() -> dict[str, Any]:
    """What ``from_pretrained`` needs besides the path: sharding where the launcher asks for FSDP on CPUs."""
    import torch

    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not wanted or world_size == 1 or torch.accelerator.is_available():
        return {}
    from transformers.distributed import DistributedConfig

    return {"distributed_config": DistributedConfig(fsdp_size=world_size, fsdp_plan=PLAN)}
