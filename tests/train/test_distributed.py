"""Two processes on this machine, the weights sharded between them, against one process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from llava_edge.train.run import run
from support.reference_training import (
    checkpoint_times,
    losses,
    small_base,
    stage,
    start,
    weights,
    write_recipe,
    write_samples,
)

ROOT = Path(__file__).parents[2]
LAUNCH = [str(Path(sys.executable).parent / "accelerate"), "launch"]
CONFIG = ROOT / "train" / "accelerate" / "fsdp2_cpu.yaml"
NOISE = 1e-5
"""Relative: sums over devices are taken in another order. Measured here: 4e-7 in the loss, 6e-6 in gradient norms."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples, base, and a run of one process: both stages on batches that two processes will share."""
    folder = tmp_path_factory.mktemp("distributed")
    write_samples(folder)
    small_base(folder / "base")
    run(recipe(folder, "one", device_batch=2), folder / "one")
    return folder


def recipe(folder: Path, name: str, *, device_batch: int, run_settings: dict[str, object] | None = None) -> Path:
    connector = stage(folder, name="connector", prompt="plain", rates={"connector": 1e-3}, device_batch=device_batch)
    stages = [connector, stage(folder, device_batch=device_batch)]
    return write_recipe(folder / f"{name}.toml", folder / "base", stages, run=run_settings or {})


def launch(program: list[str], *more: str) -> None:
    """Two processes of one thread each on a free port."""
    options = ["--config_file", str(CONFIG), "--main_process_port", "0"]
    process = start([*LAUNCH, *options, *program, *more])
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said


def assert_like_one_process(place: Path, output: Path) -> None:
    for folder in ("stage-1-connector", "stage-2-everything"):
        one, two = losses(place / "one", folder), losses(output, folder)
        assert len(one) == len(two) == 4
        for expected, got in zip(one, two, strict=True):
            for column in ("loss", "grad_norm"):
                assert float(got[column]) == pytest.approx(float(expected[column]), rel=NOISE, abs=1e-6)
    expected_weights, got_weights = weights(place / "one"), weights(output)
    assert set(expected_weights) == set(got_weights)
    for name, tensor in got_weights.items():
        assert torch.allclose(tensor, expected_weights[name], atol=1e-4), name


@pytest.mark.slow
def test_the_command_sharded_over_two_processes(place: Path) -> None:
    """As a user starts it: text-only and pictured batches, no model whole in either process."""
    config = recipe(place, "two", device_batch=1)
    launch(["-m", "llava_edge.cli.main", "train", "--config", str(config), "--output", str(place / "two")])
    assert_like_one_process(place, place / "two")


@pytest.mark.slow
def test_accelerates_own_sharding_and_its_resuming(place: Path) -> None:
    """The way of GPUs: equal losses, checkpoints of shards, and a run resumed from one is bit-identical."""
    config = recipe(place, "shards", device_batch=1)
    program = [str(ROOT / "tests" / "support" / "accelerate_on_cpu.py"), str(config), str(place / "shards")]
    launch(program)
    whole = place / "shards-whole"
    assert_like_one_process(place, whole)
    assert losses(place / "shards", "stage-2-everything") == losses(whole, "stage-2-everything")
    first, second = (checkpoint_times(output, "stage-2-everything") for output in (whole, place / "shards"))
    assert second["checkpoint-2"] == first["checkpoint-2"]  # not written again: the run did not begin anew
    assert second["checkpoint-4"] > first["checkpoint-4"]
    one, other = weights(whole), weights(place / "shards")
    assert all(torch.equal(one[name], other[name]) for name in one)
