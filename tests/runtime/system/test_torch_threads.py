"""Torch in a container with a quota, played: its threads are the quota's, and its own again afterwards."""

from __future__ import annotations

import pytest
import torch
from llava_edge.runtime.system import torch_threads
from llava_edge.runtime.system.torch_threads import torch_within_quota


@pytest.mark.parametrize(
    ("before", "quota", "within"), [(4, None, 4), (4, 2.5, 2), (4, 0.5, 1), (1, 3.0, 1), (4, 64.0, 4)]
)
def test_threads_within_a_quota(before: int, quota: float | None, within: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_threads, "cpu_quota", lambda: quota)
    usual = torch.get_num_threads()
    torch.set_num_threads(before)
    try:
        with torch_within_quota(torch):
            assert torch.get_num_threads() == within
        assert torch.get_num_threads() == before
        with pytest.raises(KeyError), torch_within_quota(torch):
            raise KeyError
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(usual)
