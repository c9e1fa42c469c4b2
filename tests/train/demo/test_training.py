"""The demo's pipeline in two steps a stage: parts that move, interruptions, and a checkpoint that answers."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from llava_edge.runtime.errors import MissingExtraError
from llava_edge.train.data.sequences import IGNORED
from llava_edge.train.demo import run as pipeline
from llava_edge.train.demo.data_set import CAPTIONS, CONVERSATIONS, PICTURES, easy_vqa_folder, write_data
from llava_edge.train.demo.loop import answer_loss
from llava_edge.train.demo.model import build_model
from llava_edge.train.demo.pictures import Bar, Scene, Table, draw, sample_scene
from llava_edge.train.demo.recipe import DemoRecipe, DrawnData, load_demo_recipe
from llava_edge.train.demo.samples import Batch
from llava_edge.train.demo.tower import patch_labels
from torch import Tensor
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from .conftest import RECIPE, Demo

pytestmark = pytest.mark.slow

SMALL = {
    "steps": 2,
    "batch": 2,
    "warm_up": 1,
    "workers": 0,
    "compile": "false",
    "pictures": 12,
    "captions": 4,
    "easy_vqa": "false",
    "log_steps": 1,
    "save_steps": 100,
    "device_batch": 2,
}


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's two recipes with two steps of two samples a stage."""
    folder = tmp_path_factory.mktemp("recipe")
    for name in (RECIPE.name, load_demo_recipe(RECIPE).data.recipe):
        lines = (RECIPE.parent / name).read_text(encoding="utf-8").splitlines()
        keys = [line.split(" =")[0] for line in lines]
        small = [f"{key} = {SMALL[key]}" if key in SMALL else line for key, line in zip(keys, lines, strict=True)]
        (folder / name).write_text("\n".join(small), encoding="utf-8")
    return folder / RECIPE.name


@pytest.fixture(scope="module")
def checkpoint(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "checkpoint"
    pipeline.run(tiny_recipe, out)
    return out


def test_looking_changes_every_part_that_the_loss_can_reach(demo: Demo, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_demo_recipe(tiny_recipe)
    model = build_model(recipe, demo.tokenizer)
    before = weights(model)
    pipeline.train_looking(recipe, model, demo.prompting, tmp_path)
    still = set(before) - changed(before, weights(model))
    last = f"vision_tower.encoder.layers.{recipe.vision.layers - 1}."
    # Features come from layer −2: the last layer and the norm after it have no say in the loss.
    assert all(last in name or "post_layernorm" in name for name in still), still


def test_language_changes_the_language_model_alone(demo: Demo, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_demo_recipe(tiny_recipe)
    model = build_model(recipe, demo.tokenizer)
    before = weights(model)
    pipeline.train_language(recipe, model, demo.prompting, tmp_path)
    names = changed(before, weights(model))
    assert names == {name for name in before if name.startswith(("model.language_model.", "lm_head."))}


def test_an_interrupted_run_goes_on_where_it_stopped(demo: Demo, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_demo_recipe(tiny_recipe)
    results = []
    for folder, interrupted in (("whole", False), ("broken", True)):
        (tmp_path / folder).mkdir()
        torch.manual_seed(1)
        model = build_model(recipe, demo.tokenizer)
        if interrupted:
            _train_until(1, recipe, model, demo, tmp_path / folder)
            model = build_model(recipe, demo.tokenizer)
        pipeline.train_looking(recipe, model, demo.prompting, tmp_path / folder)
        results.append(weights(model))
    assert not changed(*results)


def _train_until(
    step: int, recipe: DemoRecipe, model: LlavaNextForConditionalGeneration, demo: Demo, work: Path
) -> None:
    """Stop the stage after `step` steps, with a state saved at each."""
    whole = answer_loss
    batches: list[Batch] = []

    def failing(model: LlavaNextForConditionalGeneration, batch: Batch) -> Tensor:
        batches.append(batch)
        if len(batches) > step:
            raise KeyboardInterrupt
        return whole(model, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llava_edge.train.demo.loop.STEPS_BETWEEN_SAVES", 1)
        patch.setattr(pipeline, "answer_loss", failing)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train_looking(recipe, model, demo.prompting, work)


def test_the_checkpoint_loads_in_transformers_and_generates(checkpoint: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = LlavaNextForConditionalGeneration.from_pretrained(checkpoint)
    image = draw(sample_scene(np.random.default_rng(1)))
    question = [{"type": "image", "image": image}, {"type": "text", "text": "How many shapes are there?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert output.shape[1] > inputs["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == [processor.tokenizer.convert_tokens_to_ids("<|eot_id|>")]
    assert model.config.text_config.hidden_size % 256 == model.config.text_config.intermediate_size % 256 == 0


def test_the_two_stages_are_the_reference_trainers(checkpoint: Path) -> None:
    work = checkpoint.with_name(checkpoint.name + ".work")
    assert (work / "base" / "model.safetensors").is_file()
    resolved = json.loads((work / "recipe.json").read_text(encoding="utf-8"))
    assert [stage["name"] for stage in resolved["stages"]] == ["connector", "instruction"]
    for number, stage in enumerate(resolved["stages"], start=1):
        assert (work / f"stage-{number}-{stage['name']}" / "loss.csv").is_file()
        assert Path(stage["data"][0]["samples"]).parent == work / "data"


def test_the_data_set_is_drawn_whole_and_the_same_each_time(tmp_path: Path) -> None:
    data = DrawnData(pictures=6, captions=2, easy_vqa=False, recipe="")
    for name in ("one", "two"):
        write_data(tmp_path / name, data, seed=3)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) == {CAPTIONS, CONVERSATIONS, PICTURES}
    with tarfile.open(tmp_path / "one" / PICTURES) as tar:
        names = tar.getnames()
    conversations = json.loads(one[CONVERSATIONS])
    assert [record["image"] for record in conversations] == names
    assert [len(record["conversations"]) for record in json.loads(one[CAPTIONS])] == [2, 2]
    assert all(record["conversations"][0]["value"].startswith("<image>\n") for record in conversations)


def test_easy_vqa_is_mixed_in_whole_and_without_its_test_questions(tmp_path: Path) -> None:
    write_data(tmp_path, DrawnData(pictures=1, captions=1, easy_vqa=True, recipe=""), seed=0)
    records = json.loads((tmp_path / CONVERSATIONS).read_text(encoding="utf-8"))[1:]
    train = json.loads((easy_vqa_folder() / "train" / "questions.json").read_text(encoding="utf-8"))
    asked = [
        (turns[index]["value"].removeprefix("<image>\n"), turns[index + 1]["value"], int(Path(record["image"]).stem))
        for record in records
        for turns in [record["conversations"]]
        for index in range(0, len(turns), 2)
    ]
    assert sorted(asked) == sorted(map(tuple, train))
    with tarfile.open(tmp_path / PICTURES) as tar:
        contents = {tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
    tests = {path.read_bytes() for path in (easy_vqa_folder() / "test" / "images").glob("*.png")}
    assert len(tests) > 900
    assert not contents & tests


def test_without_the_easy_vqa_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "easy_vqa", None)
    with pytest.raises(MissingExtraError, match=r"llava-edge\[train\]"):
        easy_vqa_folder()


def grid(scene: Scene, name: str) -> np.ndarray:
    """A question's labels pixel by pixel, with the tile as large as the scene."""
    size = max(scene.width, scene.height) + 8
    return patch_labels(scene, (1.0, 1.0), (0, 0), tile_size=size, patch_size=1)[name].reshape(size, size, -1)


def test_patch_labels_follow_the_shapes() -> None:
    scene = next(scene for seed in range(99) if len((scene := sample_scene(np.random.default_rng(seed))).shapes) > 1)
    objects, middles = grid(scene, "objects")[..., 0], grid(scene, "middles")[..., 0]
    assert middles.sum() == len(scene.shapes)
    for shape in scene.shapes:
        left, top, right, bottom = shape.box
        assert (objects[top:bottom, left:right] == objects[top, left]).all()
        assert objects[top - 1, left - 1] == 0
        assert middles[top:bottom, left:right].sum() == 1


def test_patch_labels_rank_the_bars() -> None:
    boxes = ((10, 40, 20, 90), (30, 10, 40, 90), (50, 60, 60, 90))
    bars = tuple(Bar(colour, 0, box) for colour, box in zip(("red", "blue", "teal"), boxes, strict=True))
    white = (255, 255, 255)
    ranks = grid(Scene(96, 96, (white, white), 96, bars=bars), "ranks")[..., 0]
    assert [int(ranks[89, left]) for left in (10, 30, 50)] == [1, 0, 2]
    assert ranks[89, 25] == IGNORED


def test_patch_labels_give_each_row_its_day_and_number() -> None:
    white = (255, 255, 255)
    table = Table((("TUE", "42"), ("SUN", "17")), 0, (2, 3, 39, 25))
    scene = Scene(48, 48, (white, white), 48, tables=(table,))
    days, characters = grid(scene, "days")[..., 0], grid(scene, "characters")
    for index, (day, number) in enumerate((("TUE", "42"), ("SUN", "17"))):
        _, top, _, bottom = table.row_box(index)
        row = (top + bottom) // 2
        assert set(days[row, 6:34].tolist()) == {("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN").index(day)}
        assert ["ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[code] for code in characters[row, 20, :2]] == list(number)
    assert (days[table.row_box(0)[3] + 1] == IGNORED).all()  # between two rows


def test_patch_labels_tell_an_overview_from_a_tile() -> None:
    for seed in range(20):  # wide and tall pictures among them, which are squeezed along one side only
        scene = sample_scene(np.random.default_rng(seed))
        squeeze = (48 / scene.width, 48 / scene.height)
        for scales, expected in ((squeeze, {1}), ((1.0, 1.0), {0})):
            labels = patch_labels(scene, scales, (0, 0), tile_size=48, patch_size=8)
            assert set(labels["whole"].flatten().tolist()) == expected
