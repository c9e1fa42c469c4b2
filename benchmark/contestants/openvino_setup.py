"""OpenVINO GenAI in an environment of its own, with a checkpoint converted for it.

    python -m llava_edge.benchmark.contestants.openvino_setup CHECKPOINT FOLDER [--weights int4]

FOLDER gets ``venv/`` (optimum-intel, openvino-genai and what they need, 3 GB) and ``model/``; then
``llava-edge benchmark speed --openvino FOLDER`` has it as a peer. This environment is not touched:
optimum-intel wants an older transformers than ours. Each step is left out where its result is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from ...runtime.errors import CheckpointError, LlavaEdgeError, NativeError
from ...runtime.system.storage import write_text, writing_folder

PACKAGES = (
    "torch==2.13.0",  # what constraints-dev.txt pins; a looser request may bring CUDA's libraries
    "optimum-intel>=2.2,<3",
    "openvino>=2026.4,<2027",
    "openvino-genai>=2026.4,<2027",
    "openvino-tokenizers>=2026.4,<2027",
    "nncf>=3.4,<4",
)
WEIGHTS = ("int4", "int8", "fp16")
Run = Callable[[Sequence[str]], None]


def set_up(checkpoint: Path, folder: Path, *, weights: str = "int4", run: Run | None = None) -> None:
    """Make the environment and convert ``checkpoint``. Raises CheckpointError and NativeError.

    ``weights`` is how optimum-intel stores the LLM's matrices. ``run`` runs one command.
    """
    run = run or _run
    if not (checkpoint / "config.json").is_file():
        raise CheckpointError(expected=f"a checkpoint at {checkpoint}", got="no config.json", fix="check the path")
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv" / "bin" / "python"
    if not (folder / "venv" / "ready").is_file():
        venv.create(folder / "venv", with_pip=True, clear=True)
        run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES])
        # torchvision's image processor is not the one of the reference
        run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"])
        (folder / "venv" / "ready").touch()
    if not (folder / "model").exists():
        _convert(checkpoint, folder, weights, python, run)


def _convert(checkpoint: Path, folder: Path, weights: str, python: Path, run: Run) -> None:
    """Write the note of what ``model/`` is and then the model, each whole or not at all."""
    with writing_folder(folder / "model") as partial:
        export = [str(python.with_name("optimum-cli")), "export", "openvino", "--model", str(checkpoint)]
        run([*export, "--task", "image-text-to-text", "--weight-format", weights, str(partial)])
        write_text(folder / "made.json", json.dumps({"weights": weights, "checkpoint": str(checkpoint)}))


def _run(command: Sequence[str]) -> None:
    print(" ".join(command), file=sys.stderr, flush=True)
    # this program's own package path must not leak into the other environment
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    status = subprocess.run(command, env=environment).returncode
    if status:
        raise NativeError(expected=f"{Path(command[0]).name} to finish", got=f"status {status}", fix="see above")


def main() -> int:
    """Parse the command line and set up; an error is one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", choices=WEIGHTS, default="int4")
    arguments = parser.parse_args()
    try:
        set_up(arguments.checkpoint, arguments.folder, weights=arguments.weights)
    except LlavaEdgeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
