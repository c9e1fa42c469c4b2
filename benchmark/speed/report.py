"""The result of a speed contest as values, Markdown and a plot."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.system.storage import write_whole
from ..contestants.task import Figures, Task
from .busy import beside
from .machine import machine_line
from .roofline import Roofline
from .rounds import OURS, Contest
from .work import Work

MEASURES = ("load", "encode", "prefill", "first_token", "decode", "second", "peak_bytes")
QUIET = 0.05
"""Above this share of the cores used by others, a table says that it was disturbed."""


@dataclass(frozen=True)
class Spread:
    """Median, least and most over the rounds."""

    median: float
    least: float
    most: float


def spread(runs: Sequence[Figures], measure: str) -> Spread | None:
    """One measure over a contestant's runs; None where it has none."""
    values = [value for run in runs if (value := getattr(run, measure)) is not None]
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def ratio(contest: Contest, name: str, measure: str) -> float | None:
    """Ours divided by a peer's: the median over rounds of paired ratios. Below 1 we need less."""
    pairs = zip(contest.runs[OURS], contest.runs[name], strict=False)
    found = [(getattr(ours, measure), getattr(theirs, measure)) for ours, theirs in pairs]
    ratios = [ours / theirs for ours, theirs in found if ours is not None and theirs]
    return statistics.median(ratios) if ratios else None


def shares(runs: Sequence[Figures], work: Work, roofline: Roofline, tiles: int) -> dict[str, dict[str, float]]:
    """What our side reached: the rate of each part, and its share of the machine's best.

    Encoding and prefill are held against the int8 product rate, decoding against reading memory.
    """
    encode, prefill = spread(runs, "encode"), spread(runs, "prefill")
    decode = spread(runs, "decode")
    positions = runs[0].prompt_tokens or 0
    reached = {}
    if encode:
        rate = work.encode * tiles / encode.median
        reached["encode"] = {"work": work.encode * tiles, "rate": rate, "share": rate / roofline.int8}
    if prefill:
        rate = work.prefill(positions) / prefill.median
        reached["prefill"] = {"work": work.prefill(positions), "rate": rate, "share": rate / roofline.int8}
    if decode:
        behind = positions + (runs[0].tokens or 0) // 2
        rate = work.decode_bytes(behind) * decode.median
        reached["decode"] = {"work": work.decode_bytes(behind), "rate": rate, "share": rate / roofline.read}
    return reached


def as_values(
    contest: Contest,
    task: Task,
    machine: dict[str, Any],
    *,
    size: tuple[int, int],
    reached: dict[str, dict[str, float]],
    roofline: Roofline | None,
) -> dict[str, Any]:
    """Everything that was measured, JSON-ready. ``size`` is the picture's (width, height)."""
    contestants = []
    for name, runs in contest.runs.items():
        spreads = {measure: one for measure in MEASURES if (one := spread(runs, measure))}
        contestants.append(
            {
                "name": name,
                "settings": runs[0].settings if runs else "",
                "versions": runs[0].versions if runs else {},
                "summary": {measure: dataclasses.asdict(one) for measure, one in spreads.items()},
                "ours_over_theirs": {measure: ratio(contest, name, measure) for measure in MEASURES},
                "others": contest.others[name],
                "taken": contest.taken.get(name, []),
                "runs": [run.as_dict() for run in runs],
            }
        )
    return {
        "machine": machine,
        "task": {**dataclasses.asdict(task), "size": list(size)},
        "beside": contest.beside,
        "contestants": contestants,
        "left_out": contest.left_out,
        "roofline": None if roofline is None else dataclasses.asdict(roofline),
        "reached": reached,
    }


def markdown(values: dict[str, Any]) -> str:
    """The report as text: machine, contestants, ratios, roofline, and what to know when reading it."""
    machine, task = values["machine"], values["task"]
    versions = dict(machine["versions"])
    for one in values["contestants"]:
        versions.update(one["versions"])
    lines = [
        machine_line(machine),
        "",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        "",
        f"Picture {task['size'][0]}×{task['size'][1]}, {_rounds(values)} rounds in turns: median (least to most).",
        "",
        *_beside_lines(values),
        *_table(values),
        *_disturbance(values),
        *(f"\nLeft out: {name}: {reason}." for name, reason in values["left_out"].items()),
        *_roofline_lines(values),
    ]
    return "\n".join(lines) + "\n"


def _beside_lines(values: dict[str, Any]) -> list[str]:
    """What our own busy processes took of each contestant's machine, where there were any."""
    if not values["beside"]:
        return []
    taken = {one["name"]: [share for share in one["taken"] if share is not None] for one in values["contestants"]}
    shares = ", ".join(f"{name} {statistics.median(of):.0%}" for name, of in taken.items() if of)
    line = f"Every contestant ran **{beside(values['beside'])}**"
    return [f"{line}, which took of the cores meanwhile: {shares}." if shares else f"{line}.", ""]


def _rounds(values: dict[str, Any]) -> int:
    return max(len(one["runs"]) for one in values["contestants"])


def _table(values: dict[str, Any]) -> list[str]:
    head = ["contestant", "positions", "load s", "encode s", "prefill s", "first token s", "decode tokens/s"]
    head += ["second question s", "of its first", "peak MB", "our first token / its"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for one in values["contestants"]:
        if not one["runs"]:
            continue
        summary = one["summary"]
        cells = [f"{one['name']} ({one['settings']})", str(one["runs"][0]["prompt_tokens"] or "")]
        cells += [_cell(summary.get(name)) for name in ("load", "encode", "prefill", "first_token", "decode", "second")]
        cells.append(f"{summary['second']['median'] / summary['first_token']['median']:.1%}")
        cells.append(f"{summary['peak_bytes']['median'] / 1e6:.0f}")
        over = one["ours_over_theirs"]["first_token"]
        cells.append("" if over is None else f"{over:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(one: dict[str, float] | None) -> str:
    if one is None:
        return ""
    return f"{one['median']:.2f} ({one['least']:.2f} to {one['most']:.2f})"


def _disturbance(values: dict[str, Any]) -> list[str]:
    shares = [share for one in values["contestants"] for share in one["others"] if share is not None]
    if not shares or max(shares) < QUIET:
        return []
    return [
        f"\n**Disturbed**: other processes used {min(shares):.0%} to {max(shares):.0%} of the cores during these runs, "
        "so the seconds are too long; the ratios are all that can be read."
    ]


def _roofline_lines(values: dict[str, Any]) -> list[str]:
    best, reached = values["roofline"], values["reached"]
    if best is None:
        return []
    lines = [
        f"\nThis machine at best ({best['threads']} threads): memory read {best['read'] / 1e9:.1f} GB/s, copy "
        f"{best['copy'] / 1e9:.1f} GB/s; products int8 {best['int8'] / 1e9:.0f}, bf16 (ggml) {best['bf16'] / 1e9:.0f}, "
        f"f32 {best['f32'] / 1e9:.0f} GOP/s.",
        "",
        "| ours | work | rate | of the machine's best |",
        "|---|---|---|---|",
    ]
    for name, one in reached.items():
        unit, against = ("GB", "memory read") if name == "decode" else ("GOP", "int8 products")
        work = f"{one['work'] / 1e9:.2f} {unit}" + (" a token" if name == "decode" else "")
        lines.append(f"| {name} | {work} | {one['rate'] / 1e9:.1f} {unit}/s | {one['share']:.0%} of {against} |")
    return lines


def plot(values: dict[str, Any], path: Path) -> None:
    """First token as stacked bars of encode and prefill, decode rate beside it; PNG, whole or not at all.

    Needs matplotlib.
    """
    from matplotlib.figure import Figure

    contestants = [one for one in values["contestants"] if one["runs"]]
    names = [f"{one['name']}\n{one['settings']}" for one in contestants]
    median = [{name: one["median"] for name, one in each["summary"].items()} for each in contestants]
    figure = Figure(figsize=(10, 1.2 + 0.7 * len(names)), layout="constrained")
    waits, rates = figure.subplots(1, 2, sharey=True)
    encode = [one.get("encode", 0.0) for one in median]
    rest = [one["first_token"] - part for one, part in zip(median, encode, strict=True)]
    waits.barh(names, encode, label="encode")
    waits.barh(names, rest, left=encode, label="prefill")
    waits.set_xlabel("seconds to the first token")
    waits.legend()
    rates.barh(names, [one.get("decode", 0.0) for one in median], color="tab:green")
    rates.set_xlabel("decode, tokens a second")
    waits.invert_yaxis()
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=150))
