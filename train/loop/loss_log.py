"""The loss on disk: a CSV that survives resuming, and a picture of it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

COLUMNS = ("step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm")
CSV, PLOT = "loss.csv", "loss.png"


class LossLog(TrainerCallback):  # type: ignore[misc]
    """Writes ``loss.csv`` as training goes and ``loss.png`` at each checkpoint and at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the file with what the resumed checkpoint knows: later lines belong to steps done again."""
        if state.is_world_process_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / CSV).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS)
                writer.writerows(_rows(state.log_history))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Append the latest line."""
        if state.is_world_process_zero:
            with (self._folder / CSV).open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(_rows(state.log_history[-1:]))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw what there is."""
        if state.is_world_process_zero:
            plot_losses(state.log_history, self._folder / PLOT)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw all of it."""
        if state.is_world_process_zero:
            plot_losses(state.log_history, self._folder / PLOT)


def _rows(history: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """One row a log entry that has a loss; floats as ``repr``, so that equal losses are equal text."""
    kept = [entry for entry in history if "loss" in entry or "eval_loss" in entry]
    return [[entry.get(column, "") for column in COLUMNS] for entry in kept]


def plot_losses(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw training and evaluation loss over steps as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats a token)")
    for key, label in (("loss", "training"), ("eval_loss", "evaluation")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 50 else "")
    if axes.has_data():
        axes.legend()
    figure.savefig(path)
