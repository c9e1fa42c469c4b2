"""The whole measurement on tiny bundles: nothing against itself, parts alone, interrupted and gone on."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from llava_edge.benchmark.accuracy import run as accuracy
from llava_edge.benchmark.accuracy.attribution import MixedBundle, Subject, parts
from llava_edge.benchmark.accuracy.report import as_json, terminal
from llava_edge.benchmark.accuracy.run import compare_bundles, prepare
from llava_edge.benchmark.data.questions import Question, QuestionList
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.errors import ImageError, OptionError
from llava_edge.runtime.options import LoadOptions
from PIL import Image


def png(seed: int) -> bytes:
    low = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(low).resize((90 + 10 * seed, 70), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def ask_about(number: int, kind: str, prompt: str, *images: bytes) -> Question:
    return Question(str(number), kind, prompt, images, ("a",), "anls", max_tokens=4)


QUESTIONS = [
    ask_about(1, "colour", "What colour is it?", png(1)),
    ask_about(2, "count", "How many are there?", png(1)),
    ask_about(3, "colour", "What colour is it?", png(2)),
    ask_about(4, "count", "How many words are here?"),
    ask_about(5, "read", "What does it say?", png(3), png(1)),
]
PARTS = {"vision": ("keep", "int8"), "llm": ("q4_0", "keep"), "both": ("q4_0", "int8")}


@pytest.fixture(scope="module")
def bundles(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny bundle with its vision part, its LLM, or both quantized."""
    folder = tmp_path_factory.mktemp("quantized")
    for name, (llm, vision) in PARTS.items():
        quantize_bundle(tiny_bundle, folder / name, llm=llm, vision=vision)
    return {"reference": tiny_bundle} | {name: folder / name for name in PARTS}


def test_a_bundle_against_itself(tiny_bundle: Path, tmp_path: Path) -> None:
    result = compare_bundles(tiny_bundle, [tiny_bundle], QUESTIONS, folder=tmp_path)
    (candidate,) = result.candidates
    for measured in (candidate.overall, *candidate.types.values(), *candidate.parts.values()):
        assert measured.divergence is not None
        assert measured.accuracy is not None
        assert measured.divergence.kl_mean.value == measured.divergence.kl_p99.value == 0.0
        assert measured.divergence.top1.value == measured.divergence.same.value == 1.0
        assert measured.divergence.first_divergent is None
        assert measured.accuracy.difference.value == 0.0
    assert result.questions == 5
    assert result.pictures == 3  # 1, 2, and 3 with 1; the question without any is about none


def test_fewer_positions_of_a_picture(bundles: dict[str, Path], tmp_path: Path) -> None:
    """They belong to the vision part, and answers of another number are not taken for these."""
    same = bundles["reference"]
    arguments = (same, [same], QUESTIONS)
    result = compare_bundles(*arguments, folder=tmp_path, text=True, picture_tokens=[8, "100%"])
    fewer, whole = result.candidates
    assert [one.side.picture_tokens for one in result.candidates] == [8, "100%"]
    assert "with 8 of picture tokens" in terminal(result)
    assert json.loads(as_json(result))["candidates"][0]["picture_tokens"] == 8
    for one in (fewer.overall, fewer.parts["vision"], fewer.types["read"]):
        assert one.divergence is not None
        assert one.divergence.kl_mean.value > 0
    for one in (fewer.parts["llm"], fewer.text, whole.overall, whole.parts["vision"]):
        assert one is not None
        assert one.divergence is not None
        assert one.divergence.kl_mean.value == 0.0
    (plain,) = compare_bundles(*arguments, folder=tmp_path, attribution=False).candidates
    assert plain.side.picture_tokens is None
    assert plain.overall == whole.overall


def test_each_part_alone(bundles: dict[str, Path], tmp_path: Path) -> None:
    """A bundle quantized in one part only is what the attribution makes of that part of the full one."""
    names = ["both", "vision", "llm"]
    result = compare_bundles(
        bundles["reference"], [bundles[name] for name in names], QUESTIONS, folder=tmp_path / "kept"
    )
    both, vision, llm = result.candidates
    assert [one.side.name for one in result.candidates] == names
    assert both.parts["vision"] == vision.overall == vision.parts["vision"]
    assert both.parts["llm"] == llm.overall == llm.parts["llm"]
    for untouched in (vision.parts["llm"], llm.parts["vision"]):
        assert untouched.divergence is not None
        assert untouched.divergence.kl_mean.value == 0.0
    kl = [one.divergence.kl_mean.value for one in (both.overall, vision.overall, llm.overall) if one.divergence]
    assert len(set(kl)) == 3
    assert min(kl) > 0
    kept = tmp_path / "kept" / "candidates"
    assert len([path for path in kept.glob("*/*") if path.is_dir()]) == 4  # three candidates and the reference itself
    alone = compare_bundles(
        bundles["reference"], [bundles["both"]], QUESTIONS, folder=tmp_path / "kept", attribution=False
    )
    assert alone.candidates[0].parts == {}
    assert alone.candidates[0].overall == both.overall


def test_without_the_pictures(bundles: dict[str, Path], tmp_path: Path) -> None:
    """What the same questions give when they are asked as text alone; the vision part has no say in it."""
    names = ["both", "vision", "llm"]
    candidates = [bundles[name] for name in names]
    arguments = (bundles["reference"], candidates, QUESTIONS)
    result = compare_bundles(*arguments, folder=tmp_path / "kept", attribution=False, text=True)
    plain = compare_bundles(*arguments, folder=tmp_path / "kept", attribution=False)
    assert [one.text for one in plain.candidates] == [None] * 3
    assert [one.overall for one in plain.candidates] == [one.overall for one in result.candidates]
    both, vision, llm = result.candidates
    blind = [dataclasses.replace(one, images=()) for one in QUESTIONS]
    asked = compare_bundles(bundles["reference"], candidates, blind, folder=tmp_path / "alone", attribution=False)
    assert asked.pictures == 0
    assert "questions without pictures, greedy" in terminal(asked)
    for one, other in zip(result.candidates, asked.candidates, strict=True):
        assert one.text is not None
        assert one.text.divergence is not None
        assert other.overall.divergence is not None
        assert one.text.divergence.kl_mean.value == other.overall.divergence.kl_mean.value
        assert one.text.accuracy is not None
        assert other.overall.accuracy is not None
        assert one.text.accuracy.candidate.value == other.overall.accuracy.candidate.value
        assert one.overall.divergence is not None
        assert one.text_difference is not None
        difference = one.overall.divergence.kl_mean.value - one.text.divergence.kl_mean.value
        assert one.text_difference.value == pytest.approx(difference, abs=1e-15)
    assert vision.text is not None
    assert vision.text.divergence is not None
    assert vision.text.divergence.kl_mean.value == 0.0
    assert vision.text_difference is not None
    assert vision.text_difference.value > 0
    assert both.text == llm.text
    found = json.loads(as_json(result))["candidates"][0]
    assert found["text"]["kl_mean"] == both.text.divergence.kl_mean.value  # type: ignore[union-attr]
    assert found["text_difference_interval"][0] <= found["text_difference"] <= found["text_difference_interval"][1]
    assert terminal(result).count("  without the pictures") == 3


def test_each_prompt_is_asked_without_pictures_once(bundles: dict[str, Path], tmp_path: Path) -> None:
    counted: list[tuple[int, int]] = []
    compare_bundles(
        bundles["reference"], [bundles["llm"]], QUESTIONS, folder=tmp_path, attribution=False, text=True,
        on_progress=lambda *at: counted.append(at),
    )  # fmt: skip
    # five questions; without pictures they are four, one of which never had any
    assert counted == [(at, 2 * (5 + 3)) for at in range(1, 17)]
    result = compare_bundles(
        bundles["reference"], [bundles["llm"]], QUESTIONS[3:4], folder=tmp_path, attribution=False, text=True
    )
    assert result.candidates[0].text is None  # nothing that pictures could be taken away from


def test_one_prompt_about_two_pictures_is_one_measurement_of_text(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Asked about more pictures it would be no surer: there is no interval."""
    asked = [QUESTIONS[0], QUESTIONS[2]]
    (one,) = compare_bundles(
        bundles["reference"], [bundles["both"]], asked, folder=tmp_path, attribution=False, text=True
    ).candidates
    assert one.overall.divergence is not None
    assert one.overall.divergence.kl_mean.known
    assert one.text is not None
    assert one.text.divergence is not None
    assert not one.text.divergence.kl_mean.known
    assert one.text_difference is not None
    assert not one.text_difference.known


@pytest.mark.slow
def test_interrupted_anywhere_it_goes_on_to_the_same_result(bundles: dict[str, Path], tmp_path: Path) -> None:
    arguments = (bundles["reference"], [bundles["both"]], QUESTIONS)
    expected = compare_bundles(*arguments, folder=tmp_path / "whole").as_dict()
    counted: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        counted.append((done, total))
        raise KeyboardInterrupt

    for _ in range(20):  # once after every answer: 5 questions, of the reference and three mixtures
        with pytest.raises(KeyboardInterrupt):
            compare_bundles(*arguments, folder=tmp_path / "parts", on_progress=interrupt)
    assert counted == [(1, left) for left in range(20, 0, -1)]
    assert compare_bundles(*arguments, folder=tmp_path / "parts", on_progress=interrupt).as_dict() == expected
    files = {name: sorted((tmp_path / name).rglob("*.json")) for name in ("whole", "parts")}
    assert len(files["whole"]) == 15
    for one, other in zip(files["whole"], files["parts"], strict=True):
        assert one.name == other.name
        assert json.loads(one.read_text()) == json.loads(other.read_text())


def test_nothing_is_loaded_where_all_is_kept(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (bundles["reference"], [bundles["both"]], QUESTIONS)
    compare_bundles(*arguments, folder=tmp_path, attribution=False)
    loaded: list[str] = []
    original = Subject.load

    def load(self: Subject, options: LoadOptions) -> object:
        loaded.append(self.llm.path.name)
        return original(self, options)

    monkeypatch.setattr(Subject, "load", load)
    corrected = [dataclasses.replace(one, answers=("b",), id="x") for one in QUESTIONS[:3]]
    compare_bundles(*arguments[:2], corrected, folder=tmp_path, attribution=False)
    assert loaded == []
    next(tmp_path.rglob("*.npz")).write_bytes(b"torn")
    compare_bundles(*arguments, folder=tmp_path, attribution=False)
    assert loaded == [bundles["reference"].name]
    compare_bundles(*arguments[:2], [*QUESTIONS, ask_about(6, "new", "New?")], folder=tmp_path, attribution=False)
    assert loaded == [bundles["reference"].name] * 2 + ["both"]


def test_questions_that_do_not_fit_count_as_wrong(bundles: dict[str, Path], tmp_path: Path) -> None:
    options = LoadOptions(context=256)
    long = ask_about(7, "long", "word " * 300)
    result = compare_bundles(
        bundles["reference"], [bundles["llm"]], [QUESTIONS[3], long], folder=tmp_path, options=options
    )
    assert (result.refused, result.scored) == (1, 2)
    assert result.candidates[0].types["long"].divergence is None
    found = result.candidates[0].types["long"].accuracy
    assert found is not None
    assert found.candidate.value == found.reference.value == 0.0
    with pytest.raises(OptionError, match="fits the context"):
        compare_bundles(bundles["reference"], [bundles["llm"]], [long], folder=tmp_path, options=options)


def test_a_picture_that_does_not_open_is_refused_and_left_out_records_are_told(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    asked = [QUESTIONS[3], ask_about(7, "broken", "What?", b"no picture")]
    questions = QuestionList(asked, left_out=["row 3: no picture"])
    result = compare_bundles(bundles["reference"], [bundles["llm"]], questions, folder=tmp_path, attribution=False)
    assert (result.refused, result.scored, result.left_out) == (1, 2, ("row 3: no picture",))
    assert result.as_dict()["left_out"] == ["row 3: no picture"]
    assert "row 3: no picture" in terminal(result)


def test_free_form_answers_are_scored_by_the_judge_alone(bundles: dict[str, Path], tmp_path: Path) -> None:
    questions = [dataclasses.replace(one, metric="judged") for one in QUESTIONS[:2]] + QUESTIONS[2:]
    arguments = (bundles["reference"], [bundles["llm"]], questions)
    unjudged = compare_bundles(*arguments, folder=tmp_path)
    assert (unjudged.questions, unjudged.scored) == (5, 3)
    seen: list[tuple[str, str]] = []

    def judge(question: Question, answer: str) -> float:
        seen.append((question.id, answer))
        return 0.25

    judged = compare_bundles(*arguments, folder=tmp_path, judge=judge)
    assert judged.scored == 5
    assert [one for one, _ in seen] == ["1", "2", "1", "2"]
    count = judged.candidates[0].types["count"]
    assert count.accuracy is not None
    assert count.accuracy.scored == 2
    own = {one.id: one for one in QUESTIONS}["4"]
    kept = accuracy.prepare(*arguments, folder=tmp_path)
    text = kept.answers_of(kept.candidates[0]["both"]).read(kept.keys[3])
    assert text is not None
    from llava_edge.benchmark.accuracy.metrics import score

    assert count.accuracy.candidate.value == pytest.approx((0.25 + (score(own, text.text) or 0.0)) / 2)


@pytest.mark.slow
def test_other_models_are_refused(bundles: dict[str, Path], exported: object, tmp_path: Path) -> None:
    _, other = exported("qwen")  # type: ignore[operator]
    with pytest.raises(OptionError, match="bundles of the same model"):
        prepare(bundles["reference"], [other], QUESTIONS, folder=tmp_path)
    with pytest.raises(OptionError, match="at least one question"):
        prepare(bundles["reference"], [bundles["both"]], [], folder=tmp_path)
    gone = dataclasses.replace(QUESTIONS[0], images=(tmp_path / "none.png",))
    with pytest.raises(ImageError, match="question 1"):
        prepare(bundles["reference"], [bundles["both"]], [gone], folder=tmp_path)


def test_a_mixture_sees_with_one_and_writes_with_the_other(bundles: dict[str, Path]) -> None:
    reference, both = Bundle.open(bundles["reference"]), Bundle.open(bundles["both"])
    split = parts(reference, both)
    assert len({one.key for one in split.values()}) == 3
    with split["vision"].load(LoadOptions()) as model:
        assert isinstance(model.engine.bundle, MixedBundle)
        assert model.engine.bundle.vision_path == both.vision_path
        assert model.engine.bundle.llm_path == reference.llm_path
        assert (model.manifest.vision.recipe, model.manifest.llm.recipe) == ("int8", "f32")
    moved = Subject(both, reference)
    assert moved.key == split["vision"].key
