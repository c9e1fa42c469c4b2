"""The big models without their weights: 72B's and 110B's layers, fewer of them, through every command.

``python -m llava_edge.benchmark.rehearsal.rehearse --model llava-72b --layers 1`` writes a seeded checkpoint
and runs export, quantize, plan, and ask: in one process, over one worker and over two. Layer shapes,
head counts, biases, rope and connector are the real ones; the vocabulary is small, because table and
head scale by rows alone, and the vision tower has 3 of its 24 layers. Prints what was measured and,
next to it, what the planner computes for the same file.

All three have to say the same tokens. In one process llama.cpp is told not to rearrange weights for the
processor's products, because workers don't, and the sums of a rearranged one round in another order.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...runtime.planning.shape_sources import preset_shape
from ...runtime.planning.shapes import ModelShape, llm_bytes
from ...runtime.system.machine import physical_cores, processor_name
from ..seeded.checkpoint import write_seeded_checkpoint
from ..seeded.tower import clip_l
from .on_paper import MODELS

VOCABULARY = 1024
VISION_LAYERS = 3
"""Layer -2 is read, so two of them compute."""
PICTURE = (300, 200)
QUESTION = "What is this?"
COMMAND = (sys.executable, "-m", "llava_edge.cli.main")


@dataclass(frozen=True)
class Step:
    """One command: seconds, what it said, and its peak resident bytes."""

    name: str
    seconds: float
    output: str
    peak: int


def run(name: str, *arguments: str | Path) -> Step:
    """Run one of our commands. Raises RuntimeError with what it said where it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=said, stderr=subprocess.STDOUT)
        peak = _wait(process)
        said.seek(0)
        output = said.read().strip()
    if process.returncode:
        raise RuntimeError(f"{name} failed: {output}")
    return Step(name, time.perf_counter() - began, output, peak)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for ``process``; the peak of its memory, from Linux's own record while it lives."""
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.1)
    return peak


@contextlib.contextmanager
def workers(count: int) -> Iterator[list[str]]:
    """Start ``count`` workers on free loopback ports; yield HOST:PORT of each."""
    ports = _free_ports(count)
    started = [subprocess.Popen([*COMMAND, "worker", "--port", str(port)], stderr=subprocess.DEVNULL) for port in ports]
    try:
        for port in ports:
            _wait_for(port)
        yield [f"127.0.0.1:{port}" for port in ports]
    finally:
        for worker in started:
            worker.kill()
            worker.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


def _wait_for(port: int, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), 1).close()
        if time.monotonic() > end:
            raise TimeoutError(f"no worker at port {port} after {seconds:g} s")
        time.sleep(0.2)


def reduced(model: ModelShape, *, layers: int, vocabulary: int = VOCABULARY) -> ModelShape:
    """The same layers, fewer of them, with a smaller table and head, and a tower of ``VISION_LAYERS``."""
    llm = replace(model.llm, layers=layers, vocabulary=vocabulary)
    return ModelShape(model.name, llm, clip_l(layers=VISION_LAYERS, dim=llm.dim))


def rehearse(folder: Path, model: ModelShape, *, recipe: str, tokens: int) -> list[str]:
    """Run every step in ``folder``; the report's lines. Raises RuntimeError where a command fails."""
    checkpoint, whole, small, picture = (folder / name for name in ("checkpoint", "f16", recipe, "picture.png"))
    _draw(picture)
    began = time.perf_counter()
    write_seeded_checkpoint(checkpoint, model)
    lines = [f"{model.name}, {model.llm.layers} of its layers, vocabulary {model.llm.vocabulary}"]
    lines.append(f"{processor_name()}, {physical_cores()} cores")
    lines.append(f"write checkpoint {time.perf_counter() - began:8.1f} s")
    steps = [
        run("export", "export", checkpoint, "-o", whole, "--no-verify"),
        run("quantize", "quantize", whole, "-o", small, "--llm", recipe),
        run("plan", "plan", small),
    ]
    ask: list[str | Path] = ["ask", picture, QUESTION, "-m", small, "--json", "--max-tokens", str(tokens)]
    steps.append(run("one process", *ask, "--no-repack"))  # workers compute with weights as they lie in the file
    for count in (1, 2):
        with workers(count) as endpoints:
            given = (f"--worker={endpoint}" for endpoint in endpoints)
            steps.append(run(f"{count} worker{'s'[: count - 1]}", *ask, "--stats", *given))
    lines += [f"{step.name:<16} {step.seconds:8.1f} s, peak {step.peak / 1e9:.2f} GB" for step in steps]
    lines += _sizes(model, {"f16": whole / "llm.gguf", recipe: small / "llm.gguf"})
    placed = [line for line in steps[-1].output.splitlines() if line.startswith("placement")]
    return lines + _answers(steps[-3:]) + placed + ["plan:", *steps[2].output.splitlines()]


def _draw(path: Path) -> None:
    from PIL import Image

    image = Image.new("RGB", PICTURE, "teal")
    image.paste("gold", (60, 40, 180, 150))
    image.save(path)


def _sizes(model: ModelShape, files: dict[str, Path]) -> list[str]:
    return [
        f"{recipe} GGUF: {path.stat().st_size:,} bytes; tensors on paper {llm_bytes(model.llm, recipe).total:,}"
        for recipe, path in files.items()
    ]


def _answers(steps: Sequence[Step]) -> list[str]:
    answers = [json.loads(next(line for line in step.output.splitlines() if line.startswith("{"))) for step in steps]
    lines = []
    for step, answer in zip(steps, answers, strict=True):
        times = answer["timings"]
        prefill = answer["prompt_tokens"] / times["prefill"]
        decode = (len(answer["tokens"]) - 1) / times["decode"] if times["decode"] else float("nan")
        rates = f"prefill {prefill:.1f} positions/s, decode {decode:.2f} tokens/s"
        lines.append(f"{step.name:<16} load {times['load']:.1f} s, {rates}")
    alone, one_worker, two_workers = (answer["tokens"] for answer in answers)
    same = "equal" if alone == one_worker == two_workers else "DIFFER"
    return [*lines, f"tokens {same}: {alone} {one_worker} {two_workers}"]


def main() -> None:
    """Parse the command line and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--llm", default="q4_k_m", help="the quantizer's recipe")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder without it")
    given = parser.parse_args()
    model = reduced(preset_shape(given.model), layers=given.layers)
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        print("\n".join(rehearse(folder, model, recipe=given.llm, tokens=given.tokens)))


if __name__ == "__main__":
    main()
