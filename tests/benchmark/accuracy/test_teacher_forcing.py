"""Distributions at given answers: those of transformers, and KL as torch computes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.benchmark.accuracy.teacher_forcing import force_answers, spread_questions
from llava_edge.benchmark.recipes import imatrix_gain, presets
from llava_edge.runtime.distances import kl_divergence
from llava_edge.runtime.errors import DataError
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

pytestmark = pytest.mark.slow

ASKED, ANSWER = "What is in this picture?", "A red square, and a dog."


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three questions about two pictures."""
    folder = tmp_path_factory.mktemp("heldout")
    records = []
    for index, (name, asked) in enumerate([("a.png", ASKED), ("a.png", "How many?"), ("b.png", ASKED)]):
        low = np.random.default_rng(ord(name[0])).integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(low).resize((130, 90), Image.Resampling.BICUBIC).save(folder / name)
        turns = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": ANSWER}]
        records.append({"id": str(index), "image": name, "conversations": turns})
    (folder / "questions.json").write_text(json.dumps(records))
    return folder


@pytest.mark.parametrize("family", ["llama3", "vicuna"])
def test_distributions_are_transformers_at_every_answer_token(family: str, exported: Any, data: Path) -> None:
    checkpoint, bundle = exported(family, "transformers")
    model = LlavaNextForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ASKED}]}
    told = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    texts = [
        processor.apply_chat_template([asked], add_generation_prompt=True),
        processor.apply_chat_template([asked, told]),
    ]
    bos = processor.tokenizer.bos_token
    image = Image.open(data / "a.png")
    prompt, whole = (
        processor(text=text, images=image, return_tensors="pt", add_special_tokens=not text.startswith(bos))
        for text in texts
    )
    begin, end = prompt["input_ids"].shape[1], whole["input_ids"].shape[1]
    assert whole["input_ids"][0, :begin].tolist() == prompt["input_ids"][0].tolist()
    with torch.no_grad():
        expected = model(**whole).logits[0, begin - 1 : end - 1].log_softmax(-1).numpy()
    (found,) = force_answers(bundle, spread_questions(str(data), 1), threads=1)
    assert found.shape == expected.shape
    assert kl_divergence(expected, found).max() <= 1e-4  # rung 5 of the fidelity ladder


def test_divergence_is_torchs() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.randn(7, 50, generator=draw).log_softmax(-1) for _ in range(2))
    expected = torch.nn.functional.kl_div(other.double(), one.double(), log_target=True, reduction="none").sum(-1)
    np.testing.assert_allclose(kl_divergence(one.numpy(), other.numpy()), expected.numpy(), rtol=1e-5)


def test_questions_are_read_and_spread(data: Path, tmp_path: Path) -> None:
    assert [question.prompt for question in spread_questions(str(data))] == [ASKED, "How many?", ASKED]
    assert [question.images for question in spread_questions(str(data), 2)] == [(data / "a.png",)] * 2
    with pytest.raises(DataError, match="one JSON or JSONL file"):
        spread_questions(str(tmp_path))


def test_the_gain_is_relative_to_no_matrix_at_one_size(tiny_bundle: Path, data: Path) -> None:
    calibration = f"{data / 'questions.json'}"
    variants = imatrix_gain.measure(
        tiny_bundle,
        spread_questions(str(data)),
        recipe="q4_k_m",
        matrices=("none", f"calibrate-text:{calibration}", f"calibrate:{calibration}"),
        threads=1,
    )
    none, text, pictures = variants
    assert (none.ratio, none.low, none.high) == (1.0, 1.0, 1.0)
    assert none.size == text.size == pictures.size
    assert none.divergence > 0
    for one in (text, pictures):
        assert one.ratio == pytest.approx(one.divergence / none.divergence)
        assert one.low <= one.ratio <= one.high
        assert one.divergence != none.divergence
    assert imatrix_gain.table(variants).count("\n") == 4


def test_preset_rows_are_recorded_whole(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    wanted = [("small", "q4_0", "int8", "none"), ("best", "q8_0", "f16", "none")]
    small, best = presets.measure(tiny_bundle, spread_questions(str(data)), wanted, rounds=1)
    assert small.share < best.share < 1
    assert small.divergence > best.divergence > 0
    assert small.feature_error > best.feature_error > 0
    assert min(small.encode, small.prefill, small.decode) > 0
    (tmp_path / "docs").mkdir()
    (tmp_path / "quantize").mkdir()
    page = tmp_path / "docs" / "quantization.md"
    page.write_text(f"before\n{presets.BEGIN}\nold\n{presets.END}\nafter\n")
    presets.record(tmp_path, [small, best], [], "the tiny model:")
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    assert presets.table([small, best]).splitlines()[2] in lines
    found: dict[str, Any] = {}
    exec((tmp_path / "quantize" / "preset_costs.py").read_text(), found)
    assert found["COSTS"]["small"]["share"] == pytest.approx(small.share, abs=1e-3)
    assert set(found["COSTS"]) == {"small", "best"}
    assert sorted(path.name for path in (tmp_path / "quantize").iterdir()) == ["preset_costs.py"]
