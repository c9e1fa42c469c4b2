"""The plan as a table: nothing is rounded to nothing, columns stay apart, names stay short, and why it does not fit."""

from __future__ import annotations

import dataclasses
import json

import pytest
from llava_edge.cli.terminal.plan_table import plan_table
from llava_edge.runtime.planning.placement import Device
from llava_edge.runtime.planning.planner import Plan, Request, make_plan
from llava_edge.runtime.planning.shape_sources import preset_shape
from llava_edge.runtime.planning.suggestions import suggestions
from support.command_line import run_here

G = 2**30
COLUMNS = 8


def planned(*devices: Device, name: str = "", **request: int) -> Plan:
    shape = preset_shape("llama3-8b")
    return make_plan(dataclasses.replace(shape, name=name or shape.name), devices, Request(**request))  # type: ignore[arg-type]


def cells(plan: Plan) -> list[list[str]]:
    """The table's cells: two spaces part them, a size and its unit have one between."""
    lines = plan_table(plan, []).splitlines()
    rows = lines[lines.index("") + 1 :]
    return [[cell for cell in row.split("  ") if cell] for row in rows[: rows.index("")]]


@pytest.mark.parametrize(
    ("memory", "images"),
    [(2**20, 1), (64 * G, 1_000_000), (2**49, 2**24 - 1), (700, 1), (16 * G, 3)],
    ids=["a megabyte", "a million pictures", "petabytes", "bytes", "usual"],
)
def test_columns_stay_apart(memory: int, images: int) -> None:
    heads, row = cells(planned(Device("host", "cpu", memory), images=images))
    assert len(heads) == COLUMNS
    assert len(row) == COLUMNS + (not planned(Device("host", "cpu", memory), images=images).uses[0].fits)


def test_small_sizes_are_not_nothing() -> None:
    status, out, _ = run_here("plan", "--host", "1M")
    assert status == 3
    found = json.loads(run_here("plan", "--host", "1M", "--json")[1])
    (device,) = found["devices"]
    assert "0.00 " not in out
    assert f"{device['weights'] / 2**20:.2f} MiB" in out
    assert f"below the reserve of {device['reserve'] / 2**20:.2f} MiB" in out
    assert f"llava-edge-demo: {found['parameters'] / 1e6:.2f}M language model" in out
    assert found["reasons"]
    for reason in found["reasons"]:
        assert reason in out


def test_slow_devices_have_rates() -> None:
    out = run_here("plan", "llama3-8b", "--host", "64G@0.01,0.0001")[1]
    assert "prefill 0.0" in out
    assert "decode 0.00" in out
    assert "decode 0.0 " not in out


@pytest.mark.parametrize("name", ["m" * 5000, "two words " * 500, "a\nb\x1b[2J"])
def test_names_of_others_stay_on_their_line(name: str) -> None:
    devices = [Device("host", "cpu", 2 * G), Device(name, "gpu", G)]
    plan = planned(*devices, name=name)
    text = plan_table(plan, suggestions(plan, devices, Request()))
    assert max(map(len, text.splitlines())) < 700
    assert "\x1b" not in text
    assert text.splitlines()[1].startswith("context ")


def test_why_it_does_not_fit_stands_under_no() -> None:
    status, out, _ = run_here("plan", "llama3-8b", "--images", "3", "--host", "64G")
    lines = out.splitlines()
    assert status == 3
    at = lines.index("fits       no")
    assert lines[at + 1 :] == [
        "because    3 pictures of 2928 positions and 256 for text are 9040; the model has 8192",
        "would fit  at most 2 pictures",
        "           pictures without tiles (--detail low)",
    ]
    assert "reasons" not in json.loads(run_here("plan", "llama3-8b", "--host", "64G", "--json")[1])
