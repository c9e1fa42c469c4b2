"""Small training data, recipes and runs for the reference trainer's tests."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from support.checkpoints import make_checkpoint

PINPOINTS = ((112, 112), (56, 112), (112, 56), (56, 168), (168, 56))
SMALL_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL_VISION = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 1}
FORKS = multiprocessing.get_context("forkserver")
HARDWARE = {"device": "CPU", "world_size": 1, "memory_gb": 1.0, "peak_tflops": 0.1, "utilisation": 0.5}


def small_base(folder: Path, family: str = "llama3") -> Path:
    """A tiny base checkpoint that trains in milliseconds a step."""
    return make_checkpoint(folder, family, text=SMALL_TEXT, vision=SMALL_VISION)


def write_samples(folder: Path, count: int = 16, *, text_only: int = 4) -> list[dict[str, Any]]:
    """``count`` samples in ``folder``/samples.json with pictures in ``folder``/images; the last ones text alone."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(7)
    samples: list[dict[str, Any]] = []
    for number in range(count):
        question, answer = f"What is in picture {number}?", "A red square " + "above a circle " * (number % 4) + "here."
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        sample: dict[str, Any] = {"id": f"sample-{number}", "conversations": turns}
        if number < count - text_only:
            size = (40 + 7 * number, 90)
            pixels = random.integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
            sample["image"] = f"{number}.png"
            turns[0]["value"] = f"<image>\n{question}"
        samples.append(sample)
    (folder / "samples.json").write_text(json.dumps(samples))
    return samples


def stage(folder: Path, **changes: Any) -> dict[str, Any]:
    """One stage on the samples of ``folder`` that trains everything."""
    settings: dict[str, Any] = {
        "name": "everything", "prompt": "chat", "rates": {"connector": 1e-3, "llm": 1e-3, "tower": 2e-4},
        "data": [{"samples": str(folder / "samples.json"), "images": str(folder / "images")}],
        "pinpoints": [list(one) for one in PINPOINTS], "batch": 4, "device_batch": 2, "sequence_length": 512,
    }  # fmt: skip
    return {**settings, **changes}


def write_recipe(path: Path, base: Path, stages: list[dict[str, Any]], **changes: Any) -> Path:
    """A recipe file. ``changes`` are top-level tables; ``run`` is merged with small defaults."""
    run = {"precision": "f32", "save_steps": 2, **changes.pop("run", {})}
    recipe = {
        "name": "tiny", "seed": 3, "model": {"base": str(base)}, "run": run, "hardware": HARDWARE, "stages": stages,
    }  # fmt: skip
    path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in {**recipe, **changes}.items()))
    return path


def _toml(value: Any) -> str:
    """A value in TOML's inline spelling, which is JSON's but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def start(arguments: list[str], **more: str) -> subprocess.Popen[str]:
    """Start a process with one thread, so that two of them share this machine."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def fork_training(config: Path, output: Path, *, resume: bool = False) -> BaseProcess:
    """Start a run in a process of its own, forked off one that has imported all that training needs."""
    FORKS.set_forkserver_preload(["llava_edge.train.run", "peft", "matplotlib.backends.backend_agg"])
    process = FORKS.Process(target=_train, args=(config, output, resume))
    process.start()
    return process


def _train(config: Path, output: Path, resume: bool) -> None:
    import torch
    from llava_edge.train.run import run

    torch.set_num_threads(1)
    run(config, output, resume=resume)


def losses(output: Path, stage_folder: str = "stage-1-everything") -> list[dict[str, str]]:
    """The rows of a run's loss.csv."""
    import csv

    with (output.with_name(output.name + ".work") / stage_folder / "loss.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoint_times(output: Path, stage_folder: str = "stage-1-everything") -> dict[str, int]:
    """When each whole checkpoint of a run was written, in ns."""
    marks = (output.with_name(output.name + ".work") / stage_folder / "checkpoints").glob("checkpoint-*/complete")
    return {mark.parent.name: mark.stat().st_mtime_ns for mark in marks}


def weights(folder: Path) -> dict[str, Any]:
    """The tensors of a checkpoint by their names on disk."""
    from safetensors.torch import load_file

    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}
