"""What an engine in a process of its own costs, and a server over one: decoding, first token, a server's start.

``python -m llava_edge.benchmark.costs.isolation_cost -m BUNDLE`` asks the same question in this process, with
``isolate="engine"`` and over HTTP, in turns, and prints ratios. Aims: decoding at least 98 % and 97 % of this
process's, the first event at most 20 ms behind its first token, a sidecar's ready line within 1.5 s.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ...runtime import demo_bundle, load
from ...runtime.model import Model
from ..speed.machine import describe_machine, machine_line

QUESTION = "Describe in as many words as you like what could be seen here."
TOKEN = "isolation-cost"
WARM = 2
"""Rounds that are not counted."""


@dataclass
class Times:
    """Seconds of one way of asking, one entry a round: to the first text, and from there to the last."""

    first: list[float] = field(default_factory=list)
    rest: list[float] = field(default_factory=list)

    def add(self, pieces: Iterator[str]) -> None:
        """Read an answer to its end."""
        began = time.perf_counter()
        stamps = [time.perf_counter() for piece in pieces if piece]
        self.first.append(stamps[0] - began)
        self.rest.append(stamps[-1] - stamps[0])


def ask(model: Model, tokens: int, number: int) -> Iterator[str]:
    """An answer as its pieces come; ``number`` makes each question another one."""
    return model.chat().stream(f"{number}. {QUESTION}", max_tokens=tokens)


def request(port: int, tokens: int, number: int) -> Iterator[str]:
    """The same over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = {
        "messages": [{"role": "user", "content": f"{number}. {QUESTION}"}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    reply = connection.getresponse()
    while line := reply.readline():
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                yield choice["delta"].get("content") or ""
    connection.close()


@contextmanager
def sidecar(bundle: Path) -> Iterator[tuple[int, float]]:
    """A server that belongs to this process: its port, and seconds until its ready line."""
    program = "import sys; from llava_edge.cli.main import main; sys.argv[0] = 'llava-edge'; main()"
    began = time.perf_counter()
    command = [sys.executable, "-c", program, "serve", "--sidecar", "-m", str(bundle)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{TOKEN}\n".encode())
    process.stdin.flush()
    ready = json.loads(process.stdout.readline())
    seconds = time.perf_counter() - began
    try:
        yield int(ready["url"].rpartition(":")[2]), seconds
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def measure(bundle: Path, *, tokens: int, rounds: int) -> dict[str, Times]:
    """Ask in all three ways in turns; the order changes from round to round."""
    times = {"here": Times(), "isolated": Times(), "served": Times()}
    with load(bundle) as here, load(bundle, isolate="engine") as isolated, sidecar(bundle) as (port, _):
        ways: dict[str, Callable[[int], Iterator[str]]] = {
            "here": lambda number: ask(here, tokens, number),
            "isolated": lambda number: ask(isolated, tokens, number),
            "served": lambda number: request(port, tokens, number),
        }
        for number in range(WARM + rounds):
            names = list(ways)[number % 3 :] + list(ways)[: number % 3]
            for name in names:
                (Times() if number < WARM else times[name]).add(ways[name](number))
    return times


def report(times: dict[str, Times]) -> list[str]:
    """Ratios to this process, and how much later a first text came: medians of the rounds."""
    here = times["here"]
    lines = []
    for name in ("isolated", "served"):
        rates = [ours / theirs for ours, theirs in zip(here.rest, times[name].rest, strict=True)]
        behind = [theirs - ours for ours, theirs in zip(here.first, times[name].first, strict=True)]
        lines.append(
            f"{name}: decoding at {statistics.median(rates):.1%} of this process "
            f"({min(rates):.1%} to {max(rates):.1%}), first text {statistics.median(behind) * 1e3:+.1f} ms"
        )
    return lines


def ready_seconds(bundle: Path, rounds: int) -> list[float]:
    """How long sidecars took to their ready lines."""
    found = []
    for _ in range(rounds):
        with sidecar(bundle) as (_, seconds):
            found.append(seconds)
    return found


def main() -> None:
    """Measure, and print ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-m", "--model", type=Path, default=demo_bundle(), help="bundle; the demo without it")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(machine_line(describe_machine()))
    print(*report(measure(arguments.model, tokens=arguments.tokens, rounds=arguments.rounds)), sep="\n")
    ready = ready_seconds(demo_bundle(), 5)
    print(f"sidecar with the demo: ready after {statistics.median(ready):.2f} s (at most {max(ready):.2f})")


if __name__ == "__main__":
    main()
