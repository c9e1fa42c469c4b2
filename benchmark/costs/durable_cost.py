"""What the durable cache saves: the first question about a picture in a new process, cold and known.

``python -m llava_edge.benchmark.costs.durable_cost BUNDLE [PICTURE]`` prints seconds to the first token, loading left
out, and what a clean stop takes to write. Every row is a process of its own; the known ones ask something else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ...runtime.errors import LlavaEdgeError

QUESTIONS = ("What is in this picture?", "Which colours do you see?")


def main() -> None:
    """Print the rows, and the share of the cold wait that the known ones take."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", help="a bundle's folder or name")
    parser.add_argument("picture", nargs="?", help="a picture; one that is drawn without it")
    parser.add_argument("--one", metavar="CACHE NUMBER", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    picture = [given.picture] if given.picture is not None else []
    if given.one:
        print(*ask_once(given.bundle, *given.one, *picture))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [_in_a_process(given.bundle, folder, one, *picture) for one in (0, 1, 1)]
    for name, row in zip(("cold", "known", "the same"), rows, strict=True):
        print(f"{name:<10} {row[0]:8.3f} s to the first token, {row[1]:5.0f} positions read, stop {row[2]:6.2f} s")
    print(f"known / cold: {rows[1][0] / rows[0][0]:.1%}")


def _in_a_process(bundle: str, folder: str, number: int, *picture: str) -> list[float]:
    command = [sys.executable, "-m", "llava_edge.benchmark.costs.durable_cost", "--one", folder, str(number)]
    done = subprocess.run([*command, "--", bundle, *picture], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return [float(word) for word in done.stdout.split()[-3:]]


def ask_once(bundle: str, folder: str, number: str, *picture: str) -> tuple[float, int, float]:
    """Seconds to the first token, positions that were read for it, seconds to stop."""
    from ...runtime.model import load
    from ...runtime.pictures.built_in import built_in_picture

    with load(bundle, cache=folder, cache_min_free_disk=0) as model:
        source = Path(picture[0]) if picture else built_in_picture(model.manifest.geometry)
        answer = model.ask(QUESTIONS[int(number)], [source], max_tokens=4)
        began = time.perf_counter()
    stopped = time.perf_counter() - began
    return answer.timings.first_token, answer.prompt_tokens - answer.cached_tokens, stopped


if __name__ == "__main__":
    try:
        main()
    except LlavaEdgeError as error:
        sys.exit(f"durable_cost: {error}")
