"""``--detail`` in the commands: the counts are the runtime's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.pictures.tiles import lay_out
from llava_edge.runtime.planning.planner import Request
from PIL import Image
from support.command_line import run_here

SIGN = str(Path(__file__).parents[3] / "examples" / "sign.png")
DEVICES = ("--gpu", "a=48G", "--host", "32G")


def test_tiles_shows_the_overview_alone() -> None:
    geometry = Bundle.open(demo_bundle()).manifest.geometry
    with Image.open(SIGN) as image:
        whole = lay_out(image.size, geometry)
    counts = {}
    for detail in ("high", "low", "auto"):
        status, out, _ = run_here("tiles", SIGN, "--detail", detail, "--json")
        assert status == 0
        counts[detail] = json.loads(out)["image_tokens"]
    assert counts == {"high": whole.image_tokens, "low": geometry.features_per_tile + 1, "auto": whole.image_tokens}
    assert "the overview of 48 px alone" in run_here("tiles", SIGN, "--detail", "low")[1]
    status, _, said = run_here("tiles", SIGN, "--detail", "original")
    assert status != 0
    assert "detail among high, low, auto; got 'original'" in said


def test_tiles_passes_on_what_is_to_be_said_of_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "white").save(tmp_path / "flat.png")
    status, out, said = run_here("tiles", str(tmp_path / "flat.png"), "--json")
    assert status == 0
    assert json.loads(out)["size"] == [60, 40]
    assert "flat.png shows one colour" in said


def test_plan_counts_pictures_without_tiles() -> None:
    found = {}
    for detail in ("high", "low", "auto"):
        status, out, _ = run_here("plan", "llama3-8b", *DEVICES, "--images", "2", "--detail", detail, "--json")
        assert status == 0
        found[detail] = json.loads(out)
    assert {name: one["picture_tokens"] for name, one in found.items()} == {"high": 2928, "low": 577, "auto": 2928}
    assert found["low"]["context"] < found["high"]["context"]
    _, out, _ = run_here("plan", "llama3-8b", *DEVICES, "--images", "3", "--detail", "auto", "--json")
    assert json.loads(out)["picture_tokens"] == 577  # three with tiles are more than its 8192 positions
    with pytest.raises(OptionError, match="detail among high, low, auto; got original"):
        Request(detail="original")  # type: ignore[arg-type]


def test_tiles_and_plan_count_the_positions_that_are_kept() -> None:
    geometry = Bundle.open(demo_bundle()).manifest.geometry
    with Image.open(SIGN) as image:
        expected = lay_out(image.size, geometry, picture_tokens="25%")
    status, out, _ = run_here("tiles", SIGN, "--picture-tokens", "25%", "--json")
    assert (status, json.loads(out)["image_tokens"]) == (0, expected.image_tokens)
    said = run_here("tiles", SIGN, "--picture-tokens", "25%")[1]
    every = lay_out(expected.size, geometry).image_tokens
    counts = f"{expected.image_tokens} of {every}: {expected.kept[0]} of the overview, {expected.kept[1]} of the tiles"
    assert counts in said
    found = {}
    for given in ("100%", "10%", "64"):
        status, out, _ = run_here("plan", "llama3-8b", *DEVICES, "--picture-tokens", given, "--json")
        assert status == 0
        found[given] = json.loads(out)
    assert {given: one["picture_tokens"] for given, one in found.items()} == {"100%": 2928, "10%": 289, "64": 65}
    assert found["64"]["context"] < found["10%"]["context"] < found["100%"]["context"]
    low = run_here("plan", "llama3-8b", *DEVICES, "--picture-tokens", "50%", "--detail", "low", "--json")[1]
    assert json.loads(low)["picture_tokens"] == 289


@pytest.mark.parametrize("command", [("ask", SIGN, "What?"), ("tiles", SIGN), ("plan", "llama3-8b", *DEVICES)])
@pytest.mark.parametrize("wrong", ["1", "0%", "101%", "many"])
def test_what_is_no_number_of_positions_is_refused(command: tuple[str, ...], wrong: str) -> None:
    status, out, said = run_here(*command, "--picture-tokens", wrong)
    assert (status, out) == (2, "")
    assert "picture_tokens as a number of positions from 2, or a share above 0%" in said


@pytest.mark.slow
@pytest.mark.parametrize("detail", ["high", "low", "auto"])
def test_ask_shows_the_model_that_much(detail: str) -> None:
    geometry = Bundle.open(demo_bundle()).manifest.geometry
    with Image.open(SIGN) as image:
        expected = lay_out(image.size, geometry, overview_only=detail == "low").image_tokens
    status, out, _ = run_here("ask", SIGN, "What is this?", "--detail", detail, "--max-tokens", "2", "--json")
    assert status == 0
    assert json.loads(out)["image_tokens"] == [expected]
