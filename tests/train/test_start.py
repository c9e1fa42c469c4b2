"""A run that can't end well does not begin: what is wrong is said before the first step, and nothing is left."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime.errors import LlavaEdgeError
from llava_edge.train import run as run_module
from llava_edge.train.model.base import read_base
from llava_edge.train.model.generation import read_generation_config
from llava_edge.train.run import run
from support.command_line import run_here
from support.reference_training import PINPOINTS, small_base, stage, write_recipe, write_samples
from transformers import GenerationConfig


class Stepped(Exception):
    """A stage went as far as training."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    write_samples(folder, 6, text_only=1)
    small_base(folder / "base")
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Samples, pictures and a base to spoil; a stage that would train raises :class:`Stepped`."""

    def step(*_: Any, **__: Any) -> None:
        raise Stepped

    monkeypatch.setattr(run_module, "run_stage", step)
    shutil.copytree(template, tmp_path / "place")
    return tmp_path / "place"


def start(place: Path, *stages: dict[str, Any], **more: Any) -> None:
    config = write_recipe(place / "r.toml", place / "base", list(stages) or [stage(place)], **more)
    run(config, place / "out")


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob("*out*"))


def test_a_start_that_is_well_trains(place: Path) -> None:
    with pytest.raises(Stepped):
        start(place)


def spoil_sample(change: dict[str, Any]) -> Callable[[Path], None]:
    def spoil(place: Path) -> None:
        samples = json.loads((place / "samples.json").read_text())
        samples[4].update(change)
        (place / "samples.json").write_text(json.dumps(samples))

    return spoil


def cut_picture(place: Path) -> None:
    picture = place / "images" / "4.png"
    picture.write_bytes(picture.read_bytes()[:600])


def write_generation(text: str) -> Callable[[Path], None]:
    return lambda place: (place / "base" / "generation_config.json").write_text(text) and None


TALK = [{"from": "human", "value": "<image>" + "long " * 3000}, {"from": "gpt", "value": "A cat."}]
SPOILT: list[tuple[str, Callable[[Path], None], str]] = [
    ("a long question", spoil_sample({"conversations": TALK}), "sample-4.*an answer within|within 512 .*sample-4"),
    ("a record", spoil_sample({"conversations": []}), "sample-4"),
    ("a picture that is not there", spoil_sample({"image": "none.png"}), "sample-4"),
    ("a cut picture", cut_picture, "sample-4"),
    ("no pictures", lambda place: shutil.rmtree(place / "images"), "a folder or a tar"),
    ("no samples", lambda place: (place / "samples.json").unlink(), "samples at"),
    ("no weights' config", lambda place: (place / "base" / "config.json").unlink(), "a checkpoint at"),
    ("junk generation settings", write_generation("{"), "a JSON object in .*generation_config.json"),
    ("a list of generation settings", write_generation("[1]"), "a JSON object in .*generation_config.json"),
    ("an end that is no token", write_generation('{"eos_token_id": "</s>"}'), "token ids as eos_token_id"),
]


@pytest.mark.parametrize(("what", "spoil", "said"), SPOILT, ids=[one[0] for one in SPOILT])
def test_what_is_wrong_is_said_first_and_nothing_is_left(
    what: str, spoil: Callable[[Path], None], said: str, place: Path
) -> None:
    spoil(place)
    with pytest.raises(LlavaEdgeError, match=said) as caught:
        start(place)
    assert "\n" not in str(caught.value)
    assert left(place) == []


def test_a_later_stage_is_looked_at_before_the_first_trains(place: Path) -> None:
    first = stage(place, name="first", prompt="plain", rates={"connector": 1e-3})
    with pytest.raises(Stepped):
        start(place, first, stage(place))
    shutil.rmtree(place / "out.work")
    for wrong, said in (
        ({"data": [{"samples": str(place / "none.json")}]}, "samples at"),
        ({"evaluation": [{"samples": str(place / "none.json")}]}, "samples at"),
        ({"pinpoints": [[100, 100]]}, "multiples of 56"),
        ({"sequence_length": 20}, "pictures and an answer within 20 positions"),
        ({"batch": 5}, "in 1 devices of 2 samples"),
    ):
        with pytest.raises(LlavaEdgeError, match=said):
            start(place, first, stage(place, **wrong))
        assert left(place) == []
    with pytest.raises(LlavaEdgeError, match="layers of the language model among nothing"):
        start(place, first, stage(place), lora={"rank": 2, "alpha": 2, "targets": ["q_proj", "nothing"]})
    assert left(place) == []


def test_a_start_that_kept_nothing_is_no_earlier_run(place: Path) -> None:
    """After a kill, or an error of the first step, which may be the recipe's: begun again without --resume."""
    with pytest.raises(Stepped):
        start(place)
    assert left(place) == ["out.work"]
    with pytest.raises(Stepped):
        start(place, stage(place, batch=2))
    mark = place / "out.work" / "stage-1-everything" / "checkpoints" / "checkpoint-2" / "complete"
    mark.parent.mkdir(parents=True)
    mark.touch()
    with pytest.raises(LlavaEdgeError, match="no earlier run in"):
        start(place)
    assert mark.is_file()


def test_what_was_there_before_a_failed_start_stays(place: Path) -> None:
    cut_picture(place)
    (place / "out.work").mkdir()
    (place / "out.work" / "mine").touch()
    with pytest.raises(LlavaEdgeError, match="sample-4"):
        start(place)
    assert (place / "out.work" / "mine").is_file()


@pytest.mark.parametrize("output", ["new-base", "new-base/inside", "."])
def test_an_output_over_what_is_read(output: str, place: Path) -> None:
    """A base that is going to be assembled there would be replaced by what was trained from it."""
    model = {"base": str(place / "new-base"), "llm": "none", "tower": "none", "chat_template": "llama3"}
    config = write_recipe(place / "r.toml", place / "base", [stage(place)], model=model)
    with pytest.raises(LlavaEdgeError, match=r"an --output apart from|nothing at"):
        run(config, place / output)
    assert not (place / "new-base").exists()


GENERATION: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"eos_token_id": [3, 4]}, {"eos_token_id": [3, 4]}, False),
    ({"temperature": 0.9, "top_p": 0.6}, {"temperature": 0.9, "top_p": 0.6, "do_sample": True}, True),
    ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.6, "do_sample": True}, True),
    ({"num_return_sequences": 4, "eos_token_id": 3}, {"eos_token_id": 3, "do_sample": True}, True),
    ({"max_new_tokens": -1, "eos_token_id": 3}, {"eos_token_id": 3, "max_new_tokens": None}, True),
    ({"watermarking_config": 3, "bos_token_id": 1}, {"bos_token_id": 1}, True),
    ({"cache_implementation": "nope", "eos_token_id": [3]}, {"eos_token_id": [3], "cache_implementation": None}, True),
    ({"num_beams": 1, "early_stopping": True, "eos_token_id": 5}, {"eos_token_id": 5, "early_stopping": None}, True),
]


@pytest.mark.parametrize(("written", "expected", "noted"), GENERATION)
def test_generation_settings_that_would_not_be_saved_are_repaired(
    written: dict[str, Any], expected: dict[str, Any], noted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against transformers, which saves and loads them again after its Trainer has put another id in."""
    (tmp_path / "generation_config.json").write_text(json.dumps(written))
    config = read_generation_config(tmp_path)
    assert ("note: " in capsys.readouterr().err) is noted
    config.pad_token_id = 7
    config.save_pretrained(tmp_path / "saved")
    again = GenerationConfig.from_pretrained(tmp_path / "saved")
    got = {name: getattr(again, name) for name in expected}
    assert {name: value or None for name, value in got.items()} == expected


def test_without_generation_settings_there_is_nothing_to_repair(tmp_path: Path) -> None:
    assert read_generation_config(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, {"lora": {"rank": 2, "alpha": 2, "targets": ["q_proj"]}}], ids=["full", "lora"])
def test_a_base_that_samples_greedily_trains_to_its_end(lora: dict[str, Any], template: Path, tmp_path: Path) -> None:
    """The Vicuna and Llama-2 chat checkpoints: a temperature without sampling, and an end that the Trainer changes."""
    shutil.copytree(template, tmp_path / "place")
    place = tmp_path / "place"
    write_generation(json.dumps({"do_sample": False, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [1]}))(place)
    config = write_recipe(place / "r.toml", place / "base", [stage(place, batch=2)], **lora)
    status, _, said = run_here("train", "--config", str(config), "--output", str(place / "out"))
    assert status == 0, said
    assert "sampling is switched on" in said
    saved = json.loads((place / "out" / "generation_config.json").read_text())
    assert (saved["do_sample"], saved["temperature"]) == (True, 0.6)


def test_a_processor_that_can_not_be_saved(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = type(read_base(place / "base", PINPOINTS).processor)

    def fail(*_: Any, **__: Any) -> None:
        raise TypeError("Object of type set is not JSON serializable")

    monkeypatch.setattr(processor, "save_pretrained", fail)
    with pytest.raises(LlavaEdgeError, match=r"that can be saved again .*not JSON serializable"):
        start(place)
    assert left(place) == []


@pytest.mark.parametrize("package", ["matplotlib", "tensorboard"])
def test_a_package_that_a_checkpoint_needs_is_missed_first(
    package: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    config = write_recipe(place / "r.toml", place / "base", [stage(place)])
    status, _, said = run_here("train", "--config", str(config), "--output", str(place / "out"))
    assert status == 1
    assert f"expected the package {package}" in said
    assert left(place) == []
