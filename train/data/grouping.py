"""The order of samples: steps of one modality and of like lengths, the same for every device.

SampleSource of the idea: LLaVA's ``group_by_modality_length``. A pure function of lengths, seed and
epoch, so a resumed run and every process see the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

STEPS_A_WINDOW = 16
"""Lengths are sorted within so many steps: enough for like lengths, few enough to stay random."""


def grouped_order(lengths: Sequence[int], pictured: Sequence[bool], *, batch: int, seed: int, epoch: int) -> list[int]:
    """All positions once, in steps of ``batch``; only the last steps may mix modalities.

    ``lengths`` and ``pictured`` are of equal length. Longest samples of a window share a step, so
    that a micro-batch, a run of neighbours in the step, pads little.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    steps: list[list[int]] = []
    rest: list[int] = []
    for modality in (True, False):
        members = [position for position, one in enumerate(pictured) if one == modality]
        order = [members[index] for index in torch.randperm(len(members), generator=generator).tolist()]
        whole = len(order) // batch * batch
        rest += order[whole:]
        window = batch * STEPS_A_WINDOW
        for start in range(0, whole, window):
            chunk = sorted(order[start : min(start + window, whole)], key=lambda position: -lengths[position])
            steps += [chunk[first : first + batch] for first in range(0, len(chunk), batch)]
    shuffled = [steps[index] for index in torch.randperm(len(steps), generator=generator).tolist()]
    return [position for step in shuffled for position in step] + rest


class GroupedSampler(Sampler[int]):
    """:func:`grouped_order` as torch's data loader wants it; ``epoch`` is set before each pass."""

    def __init__(self, lengths: Sequence[int], pictured: Sequence[bool], *, batch: int, seed: int) -> None:
        self._lengths = lengths
        self._pictured = pictured
        self._batch = batch
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = grouped_order(self._lengths, self._pictured, batch=self._batch, seed=self._seed, epoch=self.epoch)
        return iter(order)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of ``epoch``."""
        self.epoch = epoch
