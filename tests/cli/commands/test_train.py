"""``llava-edge train``: the plan it prints, and one line for whatever is wrong with a recipe or what it names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.command_line import run_here
from support.reference_training import SMALL_TEXT, SMALL_VISION, small_base, stage, write_recipe, write_samples

RECIPES = Path(__file__).parents[3] / "train" / "recipes"
KINDS = {"llava": (RECIPES / "llama3-8b.toml", "seed = 42"), "demo": (RECIPES / "demo.toml", "seed = 0")}
BOTH_KINDS = "LLaVA's, with [[stages]], or the demo's, with [tower] and [language]"


def refused(*arguments: str, status: int = 1) -> str:
    """The one line that the command says, after which it ends with ``status``."""
    found, out, err = run_here("train", *arguments)
    assert (found, out) == (status, "")
    lines = [line for line in err.splitlines() if not line.startswith("[transformers]")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("llava-edge: expected ")
    return lines[0]


def test_the_command_prints_the_plan() -> None:
    arguments = ["--config", str(KINDS["llava"][0]), "--json", "--world-size", "16", "--sharding", "zero3"]
    status, out, err = run_here("train", *arguments)
    assert (status, err) == (0, "")
    values = json.loads(out)
    assert (values["world_size"], values["sharding"]) == (16, "zero3")
    assert [stage["name"] for stage in values["stages"]] == ["connector", "instruction"]


@pytest.mark.parametrize(
    ("status", "arguments", "said"),
    [
        (2, ["--config", str(RECIPES / "demo.toml"), "--dry-run"], "[[stages]]"),
        (2, ["--config", str(RECIPES / "llama3-8b.toml")], "--output"),
        (2, ["--config", str(RECIPES / "llama3-8b.toml"), "--dry-run", "--world-size", "0"], "--world-size"),
        (2, ["--config", str(RECIPES / "llama3-8b.toml"), "--dry-run", "--sharding", "zero9"], "sharding none, zero2"),
        (1, ["--config", "none.toml", "--dry-run"], "a recipe at none.toml; got No such file"),
    ],
)
def test_a_wrong_command_line(status: int, arguments: list[str], said: str) -> None:
    assert said in refused(*arguments, status=status)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sed = 0", "got 'sed'"),
        ("seed = 0\nsed = 0", "got 'sed'"),
        ('seed = "0"', "int at recipe.toml.seed; got '0'"),
        ("seed = 0.5", "int at recipe.toml.seed; got '0.5'"),
        ("", "the keys seed at recipe.toml"),
        ("seed =", "TOML in "),
        ("[seed]", "recipe.toml"),
    ],
)
def test_a_damaged_recipe_of_either_kind(kind: str, line: str, said: str, tmp_path: Path) -> None:
    path, seed = KINDS[kind]
    text = path.read_text(encoding="utf-8")
    assert seed in text
    config = tmp_path / "recipe.toml"
    config.write_text(text.replace(seed, line, 1), encoding="utf-8")
    assert said in refused("--config", str(config), "--output", str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", f"{BOTH_KINDS}; got an empty file"),
        (b"a = 1\n[b]\n", f"{BOTH_KINDS}; got a, b"),
        (b"\xff\xfe\x00", "got no UTF-8 text"),
        (b"a = " + b"[" * 100_000, "TOML in "),
        (b"stages = 3", "the keys name, seed, model"),
        (b"tower = 3", "the keys seed, workers"),
    ],
)
def test_what_is_no_recipe(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(content)
    for way in (["--dry-run"], ["--output", str(tmp_path / "out")]):
        if b"tower" not in content or "--output" in way:
            assert said in refused("--config", str(tmp_path / "recipe.toml"), *way)
    assert "got Is a directory" in refused("--config", str(tmp_path), *way)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 3200", "steps = 0", "a positive tower.steps"),
        ("batch = 128", "batch = -1", "a positive tower.batch"),
        ("learning_rate = 1e-3", "learning_rate = nan", "a finite number"),
        ("learning_rate = 1e-3", "learning_rate = inf", "a finite number"),
        ("tower_learning_rate = 2e-4", "tower_learning_rate = -1.0", "a positive looking.tower_learning_rate"),
        ("hidden = 256", "hidden = 99999999999", "a positive vision.hidden"),
        ("pictures = 48000", "pictures = 0", "a positive data.pictures"),
        ("grids = [[2, 2]", "grids = [[2]", "2 values at recipe.toml.tile.grids[0]"),
        ("grids = [[2, 2]", "grids = [[0, 2]", "tile.grids of one tile or more"),
        ("patch = 8", "patch = 7", "that tile.patch divides"),
        ("heads = 4\n\n[llm]", "heads = 3\n\n[llm]", "heads that divide hidden"),
        ("vocabulary = 640", "vocabulary = 5", "an llm.vocabulary of"),
        ("workers = 1", "workers = -1", "workers of 0 or more"),
        ("[looking]", "[lokking]", "got 'lokking'"),
        ('"demo-stages.toml"', '"none.toml"', "none.toml; got No such file"),
        ('"demo-stages.toml"', '"other.toml"', "samples among captions, conversations"),
    ],
)
def test_a_wrong_recipe_of_the_demo(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = KINDS["demo"][0].read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "recipe.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    stages = (RECIPES / "demo-stages.toml").read_text(encoding="utf-8")
    (tmp_path / "other.toml").write_text(stages.replace('"captions"', '"photos"'), encoding="utf-8")
    assert said in refused("--config", str(tmp_path / "recipe.toml"), "--output", str(tmp_path / "out"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples, pictures and a base checkpoint."""
    folder = tmp_path_factory.mktemp("training")
    write_samples(folder, 4, text_only=1)
    small_base(folder / "base")
    return folder


LONG = "x" * 5000
CONFIG = '{"model_type": "llava_next", "vision_config": {}, "text_config": '


def test_a_base_checkpoint_that_is_none(place: Path, tmp_path: Path) -> None:
    """The plan and the run read the same config.json."""
    for number, (content, said) in enumerate(
        [
            ("{", "JSON in "),
            ("[]", "got 'list'"),
            ('{"model_type": "llama"}', "got 'llama'"),
            ('{"model_type": "llava_next"}', "and vision_config"),
            (CONFIG + '{"model_type": "nonsense"}}', "Unrecognized model type"),
            (CONFIG + '{"model_type": "llama", "hidden_size": "x"}}', "hidden_size"),
            (CONFIG + '{"model_type": "llama", "hidden_size": -3}}', "hidden size"),
        ]
    ):
        base = tmp_path / f"base-{number}"
        base.mkdir()
        (base / "config.json").write_text(content)
        config = str(write_recipe(tmp_path / f"{number}.toml", base, [stage(place)]))
        assert said in refused("--config", config, "--dry-run")
        assert said in refused("--config", config, "--output", str(tmp_path / f"out-{number}"))


@pytest.mark.parametrize(
    ("pattern", "content", "said"),
    [
        ("*.safetensors", None, "a model's weights in "),
        ("*.safetensors", b"x", "a model's weights in "),
        ("tokenizer*", None, "a processor and a tokenizer in "),
        ("tokenizer.json", b"{", "a processor and a tokenizer in "),
        ("*processor*", None, "a processor and a tokenizer in "),
    ],
)
def test_a_base_checkpoint_with_a_hole(
    pattern: str, content: bytes | None, said: str, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "base", tmp_path / "base")
    damaged = list((tmp_path / "base").glob(pattern))
    assert damaged
    for path in damaged:
        path.unlink() if content is None else path.write_bytes(content)
    config = write_recipe(tmp_path / "r.toml", tmp_path / "base", [stage(place)])
    assert said in refused("--config", str(config), "--output", str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({}, "or model.text and model.vision in the recipe; got neither"),
        ({"text": {"model_type": "nonsense"}, "vision": SMALL_VISION}, "Unrecognized model type"),
        ({"text": {"model_type": "llama", **SMALL_TEXT, "hidden_size": "x"}, "vision": SMALL_VISION}, "hidden_size"),
    ],
)
def test_shapes_that_are_none(model: dict[str, Any], said: str, place: Path, tmp_path: Path) -> None:
    settings = {"base": str(tmp_path / "none"), **model}
    config = write_recipe(tmp_path / "r.toml", tmp_path, [stage(place)], model=settings)
    assert said in refused("--config", str(config), "--dry-run")


def data(samples: str | Path, images: str | Path = "") -> dict[str, Any]:
    return {"data": [{"samples": str(samples), "images": str(images)}]}


def test_data_that_is_not_there_or_not_readable(place: Path, tmp_path: Path) -> None:
    samples = place / "samples.json"
    (tmp_path / "broken.json").write_text("[1,")
    (tmp_path / "numbers.json").write_text("[7, 8]")
    named = [{**json.loads(samples.read_text())[0], "image": name} for name in ("a\0b\n.png", LONG, ".")]
    for number, record in enumerate(named):
        (tmp_path / f"named-{number}.json").write_text(json.dumps([record]))
    planned = [
        (data(tmp_path / "none.json"), "no such file, and no count"),
        (data(tmp_path), "no such file, and no count"),
        (data(LONG), "got File name too long"),
        (data(tmp_path / "broken.json"), "JSON in "),
        (data("a\0b"), "got one with a NUL"),
    ]
    trained = [
        (data(tmp_path / "none.json"), "got No such file"),
        (data(tmp_path), "got Is a directory"),
        (data(tmp_path / "numbers.json"), "an object in record 0 of "),
        (data(samples), "'0.png' in the recipe in record 0 ('sample-0') of "),
        (data(samples, tmp_path / "none"), "a folder or a tar; got neither"),
        (data(samples, LONG), "got File name too long"),
        (data(samples, samples), "an uncompressed tar"),
        (data(tmp_path / "named-0.json", place / "images"), "'a\\x00b\\n.png' in "),
        (data(tmp_path / "named-1.json", place / "images"), "xxx… in "),
        (data(tmp_path / "named-2.json", place / "images"), "got Is a directory"),
    ]
    for number, (changes, said) in enumerate(planned + trained):
        config = str(write_recipe(tmp_path / f"{number}.toml", place / "base", [stage(place, **changes)]))
        way = ["--dry-run"] if number < len(planned) else ["--output", str(tmp_path / f"out-{number}")]
        line = refused("--config", config, *way)
        assert said in line
        assert len(line) < 1000
        assert line.isprintable()


def test_no_sample_is_left(place: Path, tmp_path: Path) -> None:
    (tmp_path / "numbers.json").write_text("[7, 8]")
    only = stage(place, **data(tmp_path / "numbers.json"))
    config = write_recipe(tmp_path / "r.toml", place / "base", [only], run={"broken": "skip"})
    status, _, err = run_here("train", "--config", str(config), "--output", str(tmp_path / "out"))
    *skipped, line = [line for line in err.splitlines() if not line.startswith("[transformers]")]
    assert status == 1
    assert ["record 0" in skipped[0], "record 1" in skipped[1], len(skipped)] == [True, True, 2]
    assert "a usable sample in stage 'everything'; got 2 broken ones" in line


def test_adapters_for_layers_that_are_not_there(place: Path, tmp_path: Path) -> None:
    lora = {"rank": 2, "alpha": 2, "targets": ["nothing"]}
    config = write_recipe(tmp_path / "r.toml", place / "base", [stage(place)], lora=lora)
    for way in (["--dry-run"], ["--output", str(tmp_path / "out")]):
        assert "layers of the language model among nothing" in refused("--config", str(config), *way)


def test_an_output_that_can_not_be_written(place: Path, tmp_path: Path) -> None:
    config = str(write_recipe(tmp_path / "r.toml", place / "base", [stage(place)]))
    assert "nothing at" in refused("--config", config, "--output", config)
    assert "got Not a directory" in refused("--config", config, "--output", f"{config}/out")
    assert "got File name too long" in refused("--config", config, "--output", LONG)
    (tmp_path / "out.work").mkdir()
    for broken in ("{", "3"):
        (tmp_path / "out.work" / "recipe.json").write_text(broken)
        assert "recipe of an earlier run" in refused("--config", config, "--output", str(tmp_path / "out"), "--resume")


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_that_is_there_is_left_alone(kind: str, tmp_path: Path) -> None:
    """Said before anything is trained."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "kept").touch()
    assert f"nothing at {out} yet" in refused("--config", str(KINDS[kind][0]), "--output", str(out))
    assert [path.name for path in out.iterdir()] == ["kept"]
