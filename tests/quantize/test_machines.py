"""Recipes by kind of machine: which kind this is, and what ``quantize --for`` takes, says and records."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from llava_edge.cli.terminal.written import Written
from llava_edge.quantize import machines, pipeline
from llava_edge.quantize.machines import kind_of, recipes_for
from llava_edge.quantize.vision import choice
from llava_edge.quantize.vision.choice import choose_vision_here
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.bundle.disk_space import disk_need
from llava_edge.runtime.bundle.manifest import Manifest
from llava_edge.runtime.bundle.manifest_checks import check_manifest
from llava_edge.runtime.errors import BundleError, OptionError
from llava_edge.runtime.ggml.llm_recipes import MACHINES, QUANTIZED
from llava_edge.runtime.pictures import vision_recipes
from support.command_line import run_here


@pytest.mark.parametrize(
    ("flags", "architecture", "gpu", "kind"),
    [
        ({"avx2"}, "x86_64", False, "avx2"),
        ({"avx2", "avx512f", "avx512_vnni"}, "x86_64", False, "avx512"),
        ({"avx2", "avx512f", "amx_tile"}, "x86_64", False, "amx"),
        ({"avx2", "avx512f", "amx_tile"}, "x86_64", True, "cuda"),
        ({"asimd"}, "aarch64", False, "arm"),
        (set(), "arm64", False, "arm"),  # macOS tells no flags
    ],
)
def test_kinds(flags: set[str], architecture: str, gpu: bool, kind: str) -> None:
    assert kind_of(flags, architecture, gpu=gpu) == kind


def test_a_machine_that_is_none_of_them() -> None:
    with pytest.raises(OptionError, match="riscv64 without AVX2"):
        kind_of({"rv64"}, "riscv64", gpu=False)
    with pytest.raises(OptionError, match="a machine among this, avx2"):
        recipes_for("zen3")


@pytest.mark.parametrize("word", ["", "zen 3"])
@pytest.mark.parametrize("option", ["--for", "--preset", "--llm", "--vision"])
def test_a_wrong_word_is_in_quotes(option: str, word: str, tmp_path: Path) -> None:
    keep = ("--llm", "keep") if option == "--vision" else ()
    status, _, err = run_here("quantize", str(demo_bundle()), "-o", str(tmp_path / "b"), *keep, option, word)
    assert status == 2
    assert f"got '{word}'; choose one" in err


def test_every_kind_has_recipes_that_exist() -> None:
    for name in MACHINES:
        found = recipes_for(name)
        assert found.machine == name
        assert found.llm in QUANTIZED
        assert found.vision in vision_recipes.QUANTIZED
        assert found.why
    assert recipes_for("cuda").vision == "f16"
    assert recipes_for("amx").vision == recipes_for("avx512").vision == "int8"


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "processor_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr(machines, "has_gpu", lambda: False)
    found = recipes_for("this")
    assert found.machine == "avx2"
    assert found.vision == choose_vision_here()  # what was found here, not what is usual there


def test_json_has_the_recipes_and_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Bundle.open(demo_bundle()).manifest
    written = Written(tmp_path / "b")
    written.needs(disk_need(tmp_path / "b", {"a": 1}))
    written.tell(dataclasses.replace(manifest, llm=dataclasses.replace(manifest.llm, machine="amx")), "", as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert [said[name] for name in ("llm", "vision", "machine")] == [manifest.llm.recipe, manifest.vision.recipe, "amx"]


def quantized(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks of the pipeline, which hands a manifest back and writes nothing."""
    asked: dict[str, Any] = {}
    manifest = Bundle.open(demo_bundle()).manifest

    def quantize_bundle(*_: object, **given: Any) -> Manifest:
        asked.update(given)
        given["on_step"]("LLM")
        return manifest

    monkeypatch.setattr(pipeline, "quantize_bundle", quantize_bundle)
    return asked


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = quantized(monkeypatch)
    status, _, err = run_here("quantize", str(demo_bundle()), "-o", str(tmp_path / "b"), "--for", "cuda")
    assert status == 0
    assert (asked["llm"], asked["vision"], asked["machine"]) == ("q4_k_m", "f16", "cuda")
    assert err.startswith("for cuda: LLM q4_k_m (not measured there; ")
    assert run_here("quantize", str(demo_bundle()), "-o", str(tmp_path / "b"), "--for", "cuda", "--llm", "q8_0")[0] == 0
    assert (asked["llm"], asked["vision"]) == ("q8_0", "f16")
    status, _, err = run_here("quantize", str(demo_bundle()), "-o", str(tmp_path / "b"), "--preset", "best")
    assert status == 0
    assert asked["machine"] is None
    assert err.startswith("preset best, for any machine: LLM q8_0, vision f16")


def test_the_line_says_what_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exported: Any) -> None:
    asked = quantized(monkeypatch)
    source = exported("llama3")[1]
    own = Bundle.open(source).manifest
    words = ("quantize", str(source), "-o", str(tmp_path / "b"), "--for", "cuda", "--llm", "keep")
    line = f"for cuda: LLM {own.llm.recipe} (asked for, instead of q4_k_m), vision f16\n"
    assert run_here(*words)[2].startswith(line)
    assert asked["machine"] == "cuda"
    status, _, err = run_here(*words, "--vision", "keep")
    assert (status, asked["llm"], asked["vision"], asked["machine"]) == (0, "keep", "keep", None)
    assert (
        f"vision {own.vision.recipe} (asked for, instead of f16); both are other than for cuda, so it is not recorded\n"
        in err
    )
    assert "not measured" in recipes_for("avx512").why


@pytest.mark.parametrize("vision", ["keep", "auto", "int8"])
def test_words_are_what_they_come_to(vision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The demo's vision is in int8, this machine's choice here is, and avx512's: nothing is instead of anything."""
    asked = quantized(monkeypatch)
    monkeypatch.setattr(choice, "choose_vision_here", lambda: "int8")
    words = ("quantize", str(demo_bundle()), "-o", str(tmp_path / "b"), "--for", "avx512", "--llm", "f16")
    status, _, err = run_here(*words, "--vision", vision)
    assert status == 0
    assert err.startswith("for avx512: LLM f16 (asked for, instead of q4_k_m), vision int8\n")
    assert (asked["vision"], asked["machine"]) == (vision, "avx512")


def test_a_kept_model_keeps_its_machine(exported: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    pipeline.quantize_bundle(exported("llama3")[1], first, llm="q8_0", vision="keep", machine="arm")
    assert pipeline.quantize_bundle(first, second, llm="keep", vision="f16").llm.machine == "arm"
    assert (
        pipeline.quantize_bundle(first, tmp_path / "third", llm="keep", vision="f16", machine="amx").llm.machine
        == "amx"
    )


def test_nothing_is_said_of_recipes_before_the_source_is_checked(tmp_path: Path) -> None:
    status, _, err = run_here("quantize", str(tmp_path / "none"), "-o", str(tmp_path / "b"), "--for", "cuda")
    assert status != 0
    assert err.startswith("llava-edge: expected")


def test_a_machine_and_a_preset_are_a_wrong_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = quantized(monkeypatch)
    for words in (("--for", "this", "--preset", "best"), ("--for", "zen3")):
        status, out, err = run_here("quantize", str(demo_bundle()), "-o", str(tmp_path / "b"), *words)
        assert (status, out, asked) == (2, "", {})
        assert "--preset" in err or "zen3" in err


def test_the_manifest_says_it(tmp_path: Path) -> None:
    manifest = Bundle.open(demo_bundle()).manifest
    assert '"machine"' not in manifest.to_json()
    for_amx = dataclasses.replace(manifest, llm=dataclasses.replace(manifest.llm, machine="amx"))
    assert Manifest.from_json(for_amx.to_json(), where="here") == for_amx
    check_manifest(for_amx, "here")
    other = dataclasses.replace(manifest, llm=dataclasses.replace(manifest.llm, machine="\x1b[31m"))
    with pytest.raises(BundleError, match="a machine among avx2"):
        check_manifest(other, "here")
