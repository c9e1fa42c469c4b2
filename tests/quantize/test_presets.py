"""Presets: recipes that exist, costs in the help as they stand in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from llava_edge.quantize.preset_costs import COSTS
from llava_edge.quantize.presets import DEFAULT, PRESETS, describe, preset
from llava_edge.runtime.errors import OptionError
from llava_edge.runtime.ggml.llm_recipes import QUANTIZED
from llava_edge.runtime.pictures import vision_recipes

PAGE = Path(__file__).parents[2] / "docs" / "quantization.md"


def test_every_preset_names_recipes_that_exist() -> None:
    for one in (*PRESETS.values(), DEFAULT):
        assert one.llm in QUANTIZED
        assert one.vision in vision_recipes.QUANTIZED
    assert preset("small") == PRESETS["small"]
    assert preset(None) == DEFAULT
    with pytest.raises(OptionError, match="small, balanced, best"):
        preset("tiny")


def test_costs_are_those_of_the_page() -> None:
    """The module that --help shows and the table of the page come from one measurement."""
    rows = {
        cells[0]: cells
        for line in PAGE.read_text().splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 11
    }
    assert set(COSTS) == set(PRESETS)
    for name, cost in COSTS.items():
        cells = rows[name]
        assert tuple(cells[1:4]) == (PRESETS[name].llm, PRESETS[name].vision, PRESETS[name].imatrix)
        assert cells[4] == f"{cost['share']:.0%}"
        assert float(cells[5]) == cost["divergence"]
        assert float(cells[10]) == cost["decode"]


def test_smaller_presets_cost_more() -> None:
    shares, divergences = ([COSTS[name][what] for name in PRESETS] for what in ("share", "divergence"))
    assert shares == sorted(shares)
    assert divergences == sorted(divergences, reverse=True)


def test_the_description_has_every_recipe_and_cost() -> None:
    said = describe()
    for name, one in PRESETS.items():
        clause = next(clause for clause in said.split("; ") if clause.startswith(f"{name}: "))
        assert one.llm in clause
        assert re.search(r"\d+% of the size, KL \de-\d\d", clause)
