"""The speed benchmark from beginning to end: check, measure, count, write."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...runtime.bundle.bundle import Bundle, demo_bundle
from ...runtime.errors import OptionError, needing_extra
from ...runtime.pictures.picture import load_picture
from ...runtime.pictures.tiles import lay_out
from ...runtime.system.outputs import check_output_file, check_output_folder
from ...runtime.system.storage import storage_error, write_text
from ..contestants.task import QUESTION, Task
from .machine import describe_machine
from .report import as_values, markdown, plot, shares
from .rounds import OURS, OnStep, choose_peers, compete, prepare_projector, roofline_of_machine
from .work import count_work

PICTURE_SIZE = (1920, 1080)
OUTPUTS = ("speed.json", "speed.md", "speed.png", "mmproj.gguf")
"""Files that --out may get."""


@dataclass(frozen=True)
class SpeedOptions:
    """What a person may choose; None and 0 mean the default. ``peers`` empty means those that are there."""

    bundle: Path | None = None
    image: Path | None = None
    question: str = QUESTION
    peers: tuple[str, ...] = ()
    rounds: int = 3
    tokens: int = 32
    threads: int = 0
    checkpoint: Path | None = None
    projector: Path | None = None
    openvino: Path | None = None
    json_file: Path | None = None
    out: Path | None = None
    roofline: bool = True
    beside: int = 0


def run_contest(options: SpeedOptions, *, on_step: OnStep = lambda _: None) -> str:
    """Measure, write what ``options`` ask for, and return the Markdown report.

    Raises OptionError, BundleError, ImageError, MissingExtraError, NativeError and StorageError.
    """
    bundle = Bundle.open(options.bundle or demo_bundle())
    _check_paths(options)
    with tempfile.TemporaryDirectory(prefix="llava-edge-speed-") as folder:
        image = options.image or seeded_picture(Path(folder) / "picture.png")
        picture = load_picture(image)
        task = _task(options, bundle, image)
        task = prepare_projector(task, (options.out or Path(folder)) / "mmproj.gguf", on_step=on_step)
        peers, missing = choose_peers(task, options.peers)
        for name, reason in missing.items():
            on_step(f"{name} left out: {reason}")
        contest = compete(task, peers, rounds=options.rounds, beside=options.beside, on_step=on_step)
        contest.left_out.update(missing)
        best, reached = None, {}
        if options.roofline:
            on_step("measuring the machine's best rates")
            best = roofline_of_machine(options.threads)
            tiles = lay_out(picture.size, bundle.manifest.geometry).tiles
            reached = shares(contest.runs[OURS], count_work(bundle), best, tiles)
        values = as_values(contest, task, describe_machine(), size=picture.size, reached=reached, roofline=best)
    report = markdown(values)
    _write(options, values, report)
    return report


def seeded_picture(path: Path) -> Path:
    """Write an RGB picture of soft colours, 1920×1080, to ``path`` and return it."""
    coarse = np.random.default_rng(0).integers(0, 256, (68, 120, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(PICTURE_SIZE, Image.Resampling.BICUBIC).save(path)
    return path


def _task(options: SpeedOptions, bundle: Bundle, image: Path) -> Task:
    return Task(
        image=str(image),
        bundle=str(bundle.path),
        threads=options.threads,
        tokens=options.tokens,
        question=options.question,
        checkpoint=str(options.checkpoint or ""),
        projector=str(options.projector or ""),
        openvino=str(options.openvino or ""),
    )


def _check_paths(options: SpeedOptions) -> None:
    """Refuse what would only be found missing after minutes of measuring; make the output folder."""
    for name in ("checkpoint", "projector", "openvino"):
        path: Path | None = getattr(options, name)
        if path is not None and not path.exists():
            raise OptionError(expected=f"--{name} that exists", got=str(path), fix="check the path")
    if options.json_file is not None:
        if not options.json_file.parent.is_dir():
            raise OptionError(expected="a folder for --json", got=str(options.json_file.parent), fix="make it first")
        check_output_file(options.json_file, "--json")
    if options.out is not None:
        check_output_folder(options.out, OUTPUTS, "--out")
        with needing_extra("benchmark"):
            import matplotlib.figure  # noqa: F401 - the plot is drawn at the end
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, options.out) from error


def _write(options: SpeedOptions, values: dict[str, object], report: str) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    if options.json_file is not None:
        write_text(options.json_file, text)
    if options.out is not None:
        write_text(options.out / "speed.json", text)
        write_text(options.out / "speed.md", report)
        plot(values, options.out / "speed.png")
