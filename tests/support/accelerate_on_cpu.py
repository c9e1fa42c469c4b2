"""A training run in which accelerate shards with FSDP2 as it does on GPUs, its look for a GPU lifted.

Started by ``accelerate launch``; arguments: recipe, output and, if wanted, --resume.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import accelerate.state
from accelerate.utils import DistributedType


def main() -> None:
    """Let accelerate believe in GPUs once gloo has been set up, and train."""
    start = accelerate.state.PartialState.__init__

    def believing(self: Any, *arguments: Any, **more: Any) -> None:
        start(self, *arguments, **more)
        if self.distributed_type == DistributedType.MULTI_CPU:
            accelerate.state.PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    accelerate.state.PartialState.__init__ = believing
    from llava_edge.train import run as reference
    from llava_edge.train.model import sharded_loading

    sharded_loading.loading_options = reference.loading_options = dict
    reference.run(Path(sys.argv[1]), Path(sys.argv[2]), resume="--resume" in sys.argv)


if __name__ == "__main__":
    main()
