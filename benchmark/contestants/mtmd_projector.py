"""mtmd's projector file of a transformers checkpoint, so that the peer has the same weights as ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...runtime.errors import CheckpointError, first_line
from ...runtime.pictures.geometry import Geometry
from ...runtime.system.storage import write_whole
from .mtmd import write_projector


def write_checkpoint_projector(checkpoint: Path, path: Path) -> None:
    """Write the tower and connector of ``checkpoint`` to ``path`` in half precision, whole or not at all.

    Raises :class:`CheckpointError` where transformers can't read the folder as a LLaVA-NeXT checkpoint.
    """
    import torch
    from torch import nn
    from transformers import AutoImageProcessor, LlavaNextForConditionalGeneration

    try:
        model = LlavaNextForConditionalGeneration.from_pretrained(
            checkpoint, dtype="auto", local_files_only=True, attn_implementation="eager"
        )
        processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil", local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            expected=f"a LLaVA-NeXT checkpoint of transformers' layout at {checkpoint}",
            got=first_line(error),
            fix="name another folder",
        ) from error
    vision = model.config.vision_config
    pinpoints = tuple((int(height), int(width)) for height, width in model.config.image_grid_pinpoints)
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    geometry = Geometry(vision.image_size, vision.patch_size, pinpoints, mean, std)
    parts = model.model.multi_modal_projector
    connector = nn.Sequential(parts.linear_1, nn.GELU(), parts.linear_2).to(torch.float32)
    tower = model.model.vision_tower.to(torch.float32)
    newline = model.model.image_newline.detach().to(torch.float32).numpy()
    write_whole(path, lambda file: write_projector(Path(file.name), tower, connector, geometry, newline=newline))


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("projector", type=Path)
    arguments = parser.parse_args()
    write_checkpoint_projector(arguments.checkpoint, arguments.projector)


if __name__ == "__main__":
    main()
