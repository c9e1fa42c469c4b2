"""The pages for people who begin: their tables are the planner's, and what they name is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from llava_edge.runtime.planning.shape_sources import PRESETS, preset_shape
from support.checkpoint_tables import NAMES, TABLES, tile_operations, written

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
GUIDES = {path.name: path.read_text(encoding="utf-8") for path in (*DOCS.glob("*.md"), ROOT / "README.md")}
GUIDES["docs/README.md"] = (DOCS / "README.md").read_text(encoding="utf-8")
INSTALLS = [
    (name, line)
    for name, page in GUIDES.items()
    for line in re.findall(r"^[$>] (?:.*\\\n)*.*", page, re.MULTILINE)
    if "pip install" in line
]


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_the_planners(name: str) -> None:
    page = TABLES[name][0].read_text(encoding="utf-8")
    between = rf"(?<=<!-- {name} -->).*?(?=<!-- end of {name} -->)"
    now, again = (re.findall(between, one, re.S) for one in (page, written(page)))
    assert len(now) == 1
    assert now == again, "run: PYTHONPATH=tests python -m support.checkpoint_tables"


PUBLISHED = {  # billions of parameters, as the language models' own cards and reports give them
    "granite-vision-2b": 2.53, "vicuna-7b": 6.74, "mistral-7b": 7.24, "llama3-8b": 8.03, "vicuna-13b": 13.02,
    "yi-34b": 34.39, "llava-72b": 72.29, "llava-110b": 111.21,
}  # fmt: skip


def test_the_shapes_are_the_published_models() -> None:
    assert set(NAMES) == set(PRESETS) == set(PUBLISHED)
    counted = {name: preset_shape(name).llm.parameters / 1e9 for name in NAMES}
    assert counted == pytest.approx(PUBLISHED, rel=2e-3)


def test_five_tiles_take_what_was_counted_on_the_graph() -> None:
    """1.95 TFLOP for five tiles of CLIP-L with a connector to 4096, as ``benchmark speed`` counts them on the graph."""
    assert 5 * tile_operations(preset_shape("llama3-8b").vision) == pytest.approx(1.95e12, rel=0.01)


def test_the_index_names_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", GUIDES["docs/README.md"]))
    assert linked == {path.name for path in DOCS.glob("*.md")} - {"README.md"}


def test_words_stand_in_order_and_once() -> None:
    words = re.findall(r"^\| ([^|]+) \|", GUIDES["glossary.md"], re.MULTILINE)[2:]
    assert words == sorted(set(words), key=str.lower)
    assert {
        "position", "pinpoint", "prefill", "KL", "tower", "connector", "newline", "parity", "tile", "bundle",
    } <= set(words)  # fmt: skip


@pytest.mark.parametrize(("page", "line"), INSTALLS)
def test_installs_can_be_typed(page: str, line: str) -> None:
    """No index has the package, an extra exists, and what was chosen when llama.cpp was compiled is compiled again."""
    assert '"llava-edge[' not in line
    if "CMAKE_ARGS" in line and "-e " not in line:
        assert {"--force-reinstall", "--no-cache-dir", "--no-binary"} <= set(line.split())
    for extras in re.findall(r'-e "\.\[([\w,]+)\]"', line):
        assert set(extras.split(",")) <= set(EXTRAS)


def test_every_extra_is_explained() -> None:
    table = GUIDES["install.md"].partition("## Extras")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(EXTRAS)


def test_the_readme_activates_what_make_chat_made_before_it_is_used() -> None:
    page = GUIDES["README.md"]
    assert page.index("$ make chat") < page.index("$ source .venv/bin/activate") < page.index("\nllava-edge ask")


def test_the_cache_is_where_the_page_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from llava_edge.runtime.system.machine import cache_folder

    page = GUIDES["install.md"]
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "LLAVA_EDGE_CACHE"):
        assert name in page
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert f"~/{cache_folder().relative_to(tmp_path)}" in page
    monkeypatch.setattr("sys.platform", "darwin")
    assert f"~/{cache_folder().relative_to(tmp_path)}" in page
