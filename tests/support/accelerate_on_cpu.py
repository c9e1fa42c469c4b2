"""A training run in which accelerate shards with FSDP2 as it does on GPUs, its look for a GPU lifted.

Started by ``accelerate launch``; arguments: recipe and output. When the run is through, it is copied to OUTPUT-whole,
what the second stage left after its checkpoint of step 2 is taken away, and the run is resumed.
"""

from __future__ import annotations

import os
import shutil
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
    from llava_edge.train import run as training
    from llava_edge.train.model import sharded_loading

    sharded_loading.loading_options = training.loading_options = dict
    config, output = Path(sys.argv[1]), Path(sys.argv[2])
    training.run(config, output)
    with accelerate.state.PartialState().main_process_first():
        if os.environ["RANK"] == "0":
            interrupt(output)
    training.run(config, output, resume=True)


def interrupt(output: Path) -> None:
    """Leave of the run in ``output`` what it had after step 2 of its second stage, and a copy of all."""
    for suffix in ("", ".work"):
        shutil.copytree(f"{output}{suffix}", f"{output}-whole{suffix}")
    stage = Path(f"{output}.work") / "stage-2-everything"
    shutil.rmtree(output)
    shutil.rmtree(stage / "model")
    shutil.rmtree(stage / "checkpoints" / "checkpoint-4")


if __name__ == "__main__":
    main()
