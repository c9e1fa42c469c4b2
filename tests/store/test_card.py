"""Cards: what a bundle was made of, for people and for the hub, and nothing that a checkpoint smuggles in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from llava_edge.quantize.preset_costs import COSTS
from llava_edge.quantize.presets import PRESETS, cost_of
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.bundle.manifest import Manifest
from llava_edge.store.card import CARD, base_in, card, licence_in, licence_of, write_card
from llava_edge.store.origins import hub_licence
from support.hub_server import hub_server


@pytest.fixture
def manifest() -> Manifest:
    return Bundle.open(demo_bundle()).manifest


HEADS = {
    "---\nlicense: llama3\n---\n# x": "llama3",
    "---\nlanguage:\n- en\nlicense: 'apache-2.0'\ntags: [a]\n---\n": "apache-2.0",
    '---\r\nlicense: "mit"\r\n---\r\n': "mit",
    "---\nlicense: other\nlicense_name: tongyi qianwen\nlicense_link: https://hub.example/LICENSE\n---\n": (
        "other (tongyi qianwen, https://hub.example/LICENSE)"
    ),
    "---\nlicense: other\nlicense_link: LICENSE\n---\n": "other",
    "---\nlicense:\n- mit\n---\n": "",
    "---\nlicense: <script>alert(1)</script>\n---\n": "",
    "# no head\nlicense: mit\n": "",
    "---\nlicense: mit\n": "",
    "": "",
}


@pytest.mark.parametrize("text", HEADS)
def test_the_licence_that_a_card_names(text: str, tmp_path: Path) -> None:
    assert licence_of(text) == HEADS[text]
    (tmp_path / CARD).write_bytes(text.encode())
    assert licence_in(tmp_path) == HEADS[text].replace("\r", "")


def test_no_card_no_licence(tmp_path: Path) -> None:
    assert licence_in(tmp_path) == base_in(tmp_path) == ""
    (tmp_path / CARD).write_bytes(b"\xff\xfe")
    assert licence_in(tmp_path) == base_in(tmp_path) == ""


@pytest.mark.parametrize("licence", ["llama3", "other (tongyi qianwen, https://hub.example/L)", "other (own)", ""])
@pytest.mark.parametrize("base", ["owner/some-model", ""])
def test_a_card_hands_on_what_it_was_told(licence: str, base: str, tmp_path: Path, manifest: Manifest) -> None:
    write_card(tmp_path, manifest, base=base, licence=licence)
    assert (licence_in(tmp_path), base_in(tmp_path)) == (licence, base)
    text = (tmp_path / CARD).read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: llava-edge\n")
    assert ("not stated" in text) == (licence == "")


def test_what_a_card_says(manifest: Manifest) -> None:
    text = card(manifest, base="owner/model", licence="mit", cost="on the demo model: nothing")
    for said in ("q4\\_k\\_m", "q4_k_m"):
        assert (said in text) == ("\\" not in said)
    for said in ("int8", "owner/model", "on the demo model: nothing", "llava-edge pull", "5.86 MB", "mit"):
        assert said in text
    for name, value in manifest.parity.measured.items():
        assert f"{value:.3g}" in text, name
    unmeasured = dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, measured={}))
    assert "--no-verify" in card(unmeasured)


def test_a_name_stays_a_name(manifest: Manifest) -> None:
    """Names come from folders and files of others: they end no table, no line and no head, and are no link."""
    bad = "a|b\n---\nlicense: mit\n# [x](https://evil.example) `<script>`"
    text = card(dataclasses.replace(manifest, name=bad, created_by=bad), base=bad)
    assert licence_of(text) == ""
    assert len(text.splitlines()) == len(card(manifest, base="x").splitlines())
    assert "\\[x\\](https://evil.example)" in text
    assert "<script>" not in text.replace("\\<", "")


@pytest.mark.parametrize("name", PRESETS)
def test_costs_are_those_of_the_recipes(name: str, manifest: Manifest) -> None:
    preset = PRESETS[name]
    made = dataclasses.replace(
        manifest,
        llm=dataclasses.replace(manifest.llm, recipe=preset.llm),
        vision=dataclasses.replace(manifest.vision, recipe=preset.vision),
    )
    assert f"{COSTS[name]['share']:.0%} of the size" in cost_of(made)
    assert cost_of(dataclasses.replace(made, vision=dataclasses.replace(made.vision, recipe="w4"))) == ""


def test_the_hub_is_asked_for_the_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / CARD).write_text("---\nlicense: llama3\n---\n")
    with hub_server({"owner/model": tmp_path}) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert hub_licence("owner/model") == "llama3"
        assert hub_licence("owner/nothing") == ""
    assert hub_licence("owner/model") == ""
