"""One contestant in a process of its own: ``python -m llava_edge.benchmark.speed.child NAME TASK RESULT``.

Reads the task (JSON), loads, asks, and writes its figures (JSON). A native crash takes this process
and nothing else; the parent reads memory and CPU time off it when it has ended.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ...runtime.errors import LlavaEdgeError
from ..contestants.task import Figures, Task


def run(name: str, task: Task) -> Figures:
    """Run the contestant ``name``: "ours", "mtmd" or "transformers"."""
    if name == "ours":
        from ..contestants.ours import ask
    elif name == "mtmd":
        from ..contestants.mtmd_contestant import ask
    elif name == "transformers":
        from ..contestants.transformers_contestant import ask
    else:
        raise ValueError(f"no contestant {name}")
    return ask(task)


def main(arguments: list[str]) -> int:
    """Run and write; an error a user can mend is one line on stderr and status 1."""
    name, task, result = arguments
    try:
        figures = run(name, Task.read(Path(task)))
    except LlavaEdgeError as error:
        print(error, file=sys.stderr)
        return 1
    Path(result).write_text(json.dumps(figures.as_dict()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
