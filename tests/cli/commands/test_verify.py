"""``llava-edge verify --json``: one object, whatever comes out, with the numbers of the table."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge import runtime
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle, write_manifest
from llava_edge.runtime.parity import measure
from support.command_line import run_here


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    shutil.copytree(demo_bundle(), tmp_path / "bundle")
    return tmp_path / "bundle"


def strict(text: str) -> Any:
    """One JSON value, without Python's NaN."""

    def refuse(word: str) -> Any:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_the_object_of_a_whole_bundle(bundle: Path) -> None:
    (bundle / ".DS_Store").write_bytes(b"")
    status, out, err = run_here("verify", str(bundle), "--json")
    assert (status, err) == (0, "")
    found = strict(out)
    manifest = Bundle.open(bundle).manifest
    assert list(found) == ["bundle", "files", "unlisted", "recorded", "measured", "worse", "holds"]
    assert found["bundle"] == str(bundle)
    assert found["files"] == [entry.name for entry in manifest.files]
    assert found["unlisted"] == [".DS_Store"]
    assert found["recorded"] == manifest.parity.measured
    assert found["measured"] == pytest.approx(measure(bundle), abs=1e-6)
    assert (found["worse"], found["holds"]) == ([], True)
    table = run_here("verify", str(bundle))[1]
    assert all(f"{name:<18}" in table for name in found["measured"])


def test_parity_that_does_not_hold_is_in_the_object_and_an_error(bundle: Path) -> None:
    np.save(bundle / "newline.npy", 10 * np.load(bundle / "newline.npy"))
    write_manifest(bundle, Bundle.open(demo_bundle()).manifest)
    status, out, err = run_here("verify", str(bundle), "--json")
    assert status == 1
    found = strict(out)
    assert found["holds"] is False
    assert "embeddings" in found["worse"]
    assert found["error"]["type"] == "BundleError"
    assert found["error"]["got"].startswith("worse ")
    (line,) = err.splitlines()
    assert f"got {found['error']['got']}; {found['error']['fix']}" in line


def test_what_was_not_recorded_or_not_measured(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    for recorded, holds in (({}, None), ({"moons": 1.0}, False)):
        write_manifest(
            bundle, dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, measured=recorded))
        )
        found = strict(run_here("verify", str(bundle), "--json")[1])
        assert found["holds"] is holds
        assert found["recorded"] == recorded


def test_a_file_that_was_altered_is_an_error_alone(bundle: Path) -> None:
    with (bundle / "llm.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    status, out, _ = run_here("verify", str(bundle), "--json")
    assert status == 1
    assert list(strict(out)) == ["error"]


def test_with_what_would_answer(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are read by llama.cpp for the record, and beside it as a load would have them: here in int8."""
    from llava_edge.runtime.prompt_engine import choice, prompt_engine

    attended: list[int] = []
    attend = prompt_engine.PromptEngine._attend
    monkeypatch.setattr(prompt_engine.PromptEngine, "_attend", lambda *a: (attended.append(1), attend(*a))[1])
    monkeypatch.setattr(choice, "int8_sums_known", lambda: True)
    monkeypatch.setattr(choice, "LEAST_FOR_INT8", 0)
    monkeypatch.setattr(choice, "speed_up", lambda *_, **__: 2.0)
    alone = strict(run_here("verify", str(bundle), "--json")[1])
    assert not attended
    status, out, _ = run_here("verify", str(bundle), "--as-loaded", "--json")
    found = strict(out)
    assert status == 0
    assert attended
    assert {name: one for name, one in found.items() if name != "as_loaded"} == alone
    loaded = found["as_loaded"]
    assert list(loaded) == ["placement", "measured", "worse", "held"]
    assert "prompts onnxruntime" in loaded["placement"]
    assert loaded["worse"] == []
    assert loaded["held"] is True
    assert set(loaded["measured"]) == set(found["measured"])
    assert loaded["measured"]["logits_kl"] != found["measured"]["logits_kl"]
    assert loaded["measured"]["features"] == found["measured"]["features"]


def test_what_would_answer_is_what_is_configured(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def placement(*words: str) -> str:
        status, out, _ = run_here("verify", str(bundle), "--as-loaded", "--json", *words)
        assert status == 0
        return str(strict(out)["as_loaded"]["placement"])

    assert "prompts llama.cpp (" in placement()  # auto: a small model
    assert "prompts onnxruntime" in placement("--prompt-engine", "onnxruntime")
    monkeypatch.setenv("LLAVA_EDGE_PROMPT_ENGINE", "onnxruntime")
    assert "prompts onnxruntime" in placement()
    assert placement("--prompt-engine", "llama.cpp").endswith("prompts llama.cpp")
    for words in (("--as-loaded",), ()):
        status, out, _ = run_here("verify", str(bundle), *words, "--prompt-engine", "none")
        assert (status, out) == (2, "")  # before a file was read
    status, _, err = run_here("verify", str(bundle), "--prompt-engine", "onnxruntime")
    assert (status, err) == (
        0,
        "--prompt-engine has no effect without --as-loaded: the record is held to llama.cpp\n",
    )
    assert run_here("verify", str(bundle))[2] == ""  # what is configured is for the commands that it is for


def test_as_loaded_is_as_a_load_is(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reference values of the language model the record is measured on mapped weights, a load is not."""
    from llava_edge.runtime import parity

    manifest, loaded = Bundle.open(bundle).manifest, []
    values = dict(np.load(bundle / manifest.parity.file))
    for name in ("logprobs", "greedy", "margins"):
        values.pop(name)
    monkeypatch.setattr(Bundle, "parity_values", lambda _: values)

    def load(path: Path, **options: Any) -> Any:
        loaded.append(options)
        return runtime.load(path, **options)

    monkeypatch.setattr(parity, "load", load)
    assert run_here("verify", str(bundle), "--as-loaded")[0] == 1  # the record has what can't be measured any more
    assert loaded == [{"repack": False, "gpu_layers": 0, "prompt_engine": "llama.cpp"}, {"prompt_engine": "auto"}]


def test_the_card_is_no_stranger(tmp_path: Path, exported: Any) -> None:
    """quantize writes it, and the manifest leaves it to who publishes the bundle."""
    small = tmp_path / "q8"
    quantize_bundle(exported("llama3")[1], small, llm="q8_0", vision="keep")
    assert (small / "README.md").exists()
    (small / "notes").touch()
    status, out, _ = run_here("verify", str(small))
    assert status == 0
    assert "not listed there, and ignored: notes\n" in out
    assert strict(run_here("verify", str(small), "--json")[1])["unlisted"] == ["notes"]


def test_what_would_answer_is_held_to_the_record(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava_edge.runtime import parity

    here = parity.measure(bundle)
    manifest = Bundle.open(bundle).manifest
    for worse, status in (("argmax", 0), ("greedy", 0), ("logits_kl", 1), ("features", 1)):
        wrong = {**here, worse: 0.0 if worse in ("argmax", "greedy") else 3 * here[worse] + 1}
        monkeypatch.setattr(parity, "measure", lambda _, as_loaded=None, on_placement=print, wrong=wrong: (
            (on_placement("cpu"), wrong)[1] if as_loaded == "auto" else here
        ))  # fmt: skip
        found, out, err = run_here("verify", str(bundle), "--as-loaded")
        assert found == status, worse
        assert "as loaded: cpu" in out
        assert ("as loaded: worse" in err) == bool(status)
    assert manifest.parity.measured["argmax"] == 1


def test_a_record_without_divergence_does_not_hold_the_prompt_engine(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava_edge.runtime import parity

    manifest = Bundle.open(bundle).manifest
    numbers = {name: one for name, one in manifest.parity.measured.items() if name != "logits_kl"}
    record = dataclasses.replace(manifest.parity, measured=numbers)
    write_manifest(bundle, dataclasses.replace(manifest, parity=record))
    monkeypatch.setattr(parity, "measure", lambda _, as_loaded=None, on_placement=print: (
        (on_placement("cpu"), numbers)[1] if as_loaded == "auto" else numbers
    ))  # fmt: skip
    status, out, _ = run_here("verify", str(bundle), "--as-loaded")
    assert status == 0
    assert "as loaded: no divergence was recorded" in out
    assert strict(run_here("verify", str(bundle), "--as-loaded", "--json")[1])["as_loaded"]["held"] is False
