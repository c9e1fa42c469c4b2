"""The big models without their weights: 72B's and 110B's layers, fewer of them, through every command.

``python -m llava_edge.benchmark.rehearsal.rehearse --model 72b --layers 1`` writes a seeded checkpoint
and runs export, quantize, plan, and ask, in one process and over two workers. Layer shapes, head
counts, biases, rope and connector are the real ones; the vocabulary is small, because table and
head scale by rows alone, and the vision tower has 3 of its 24 layers. Prints what was measured and,
next to it, what ``big_shapes`` computes for the same file.
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
from dataclasses import dataclass
from pathlib import Path

from ..seeded.big_checkpoint import write_checkpoint
from ..seeded.big_shapes import SHAPES, BigShape, reduced
from .on_paper import weight_bytes

VOCABULARY = 1024
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
        for one in started:
            one.kill()
            one.wait()


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


def rehearse(folder: Path, shape: BigShape, *, recipe: str, tokens: int, parts: int = 2) -> list[str]:
    """Run every step in ``folder``; the report's lines. Raises RuntimeError where a command fails."""
    checkpoint, whole, small, picture = (folder / name for name in ("checkpoint", "f16", recipe, "picture.png"))
    _draw(picture)
    began = time.perf_counter()
    write_checkpoint(checkpoint, shape)
    lines = [f"{shape.name}, {shape.layers} of its layers, vocabulary {shape.vocabulary}"]
    lines.append(f"write checkpoint {time.perf_counter() - began:8.1f} s")
    steps = [
        run("export", "export", checkpoint, "-o", whole, "--no-verify"),
        run("quantize", "quantize", whole, "-o", small, "--llm", recipe),
        run("plan", "plan", small),
    ]
    ask: list[str | Path] = ["ask", picture, QUESTION, "-m", small, "--json", "--max-tokens", str(tokens)]
    steps.append(run("one process", *ask))
    with workers(parts) as endpoints:
        steps.append(run(f"{parts} workers", *ask, "--stats", *(f"--worker={one}" for one in endpoints)))
    lines += [f"{step.name:<16} {step.seconds:8.1f} s, peak {step.peak / 1e9:.2f} GB" for step in steps]
    lines += _sizes(shape, {"f16": whole / "llm.gguf", recipe: small / "llm.gguf"})
    placed = [line for line in steps[-1].output.splitlines() if line.startswith("placement")]
    return lines + _answers(steps[-2:]) + placed + ["plan:", *steps[2].output.splitlines()]


def _draw(path: Path) -> None:
    from PIL import Image

    image = Image.new("RGB", PICTURE, "teal")
    image.paste("gold", (60, 40, 180, 150))
    image.save(path)


def _sizes(shape: BigShape, files: dict[str, Path]) -> list[str]:
    return [
        f"{recipe} GGUF: {path.stat().st_size:,} bytes; matrices on paper {weight_bytes(shape, recipe):,}"
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
    same = answers[0]["tokens"] == answers[1]["tokens"]
    return [*lines, f"tokens {'equal' if same else 'DIFFER'}: {answers[0]['tokens']} {answers[1]['tokens']}"]


def main() -> None:
    """Parse the command line and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(SHAPES), default="72b")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--llm", default="q4_k_m", help="the quantizer's recipe")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder without it")
    given = parser.parse_args()
    shape = reduced(SHAPES[given.model], layers=given.layers, vocabulary=VOCABULARY)
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        print("\n".join(rehearse(folder, shape, recipe=given.llm, tokens=given.tokens)))


if __name__ == "__main__":
    main()
