"""Stages touch what they say, a run can be interrupted, and its checkpoint loads and answers in transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from llava_edge.train import demo as pipeline
from llava_edge.train.evaluate import accuracy, greedy_right
from llava_edge.train.loop import CONNECTOR, answer_loss
from llava_edge.train.model import build_model
from llava_edge.train.pictures import draw, sample_scene
from llava_edge.train.pretrain import patch_labels
from llava_edge.train.questions import ask
from llava_edge.train.recipe import Recipe, load_recipe
from llava_edge.train.samples import Batch, conversation, prepare_picture
from torch import Tensor
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from .conftest import HELDOUT, RECIPE, Demo


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's recipe with two steps of two samples a stage."""
    lines = RECIPE.read_text(encoding="utf-8").splitlines()
    small = {"steps": "steps = 2", "batch": "batch = 2", "warm_up": "warm_up = 1", "workers": "workers = 0"}
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text("\n".join(small.get(line.split(" =")[0], line) for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def checkpoint(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "checkpoint"
    pipeline.run(tiny_recipe, out)
    return out


def test_stage_one_changes_the_connector_and_the_newline_only(demo: Demo, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    model = build_model(recipe, demo.tokenizer)
    before = weights(model)
    pipeline.train_connector(recipe, model, demo.processor, tmp_path)
    names = changed(before, weights(model))
    assert names == {name for name in before if name.startswith(CONNECTOR)}
    assert "model.image_newline" in names
    assert len(names) == 5  # two weights and two biases of the connector beside it


def test_stage_two_changes_every_part(demo: Demo, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    model = build_model(recipe, demo.tokenizer)
    before = weights(model)
    pipeline.train_everything(recipe, model, demo.processor, tmp_path, out=tmp_path / "out")
    still = set(before) - changed(before, weights(model))
    last = f"vision_tower.encoder.layers.{recipe.vision.layers - 1}."
    # Features come from layer −2: the last layer and the norm after it have no say in the loss.
    assert all(last in name or "post_layernorm" in name for name in still), still


def test_an_interrupted_run_goes_on_where_it_stopped(demo: Demo, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    results = []
    for folder, interrupted in (("whole", False), ("broken", True)):
        (tmp_path / folder).mkdir()
        torch.manual_seed(1)
        model = build_model(recipe, demo.tokenizer)
        if interrupted:
            _train_until(1, recipe, model, demo, tmp_path / folder)
            model = build_model(recipe, demo.tokenizer)
        pipeline.train_connector(recipe, model, demo.processor, tmp_path / folder)
        results.append(weights(model))
    assert not changed(*results)


def _train_until(step: int, recipe: Recipe, model: LlavaNextForConditionalGeneration, demo: Demo, work: Path) -> None:
    """Stop the connector's stage after `step` steps, with a state saved at each."""
    whole = answer_loss
    batches: list[Batch] = []

    def failing(model: LlavaNextForConditionalGeneration, batch: Batch) -> Tensor:
        batches.append(batch)
        if len(batches) > step:
            raise KeyboardInterrupt
        return whole(model, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llava_edge.train.loop.STEPS_BETWEEN_SAVES", 1)
        patch.setattr(pipeline, "answer_loss", failing)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train_connector(recipe, model, demo.processor, work)


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


def test_greedy_right_agrees_with_generate(checkpoint: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = LlavaNextForConditionalGeneration.from_pretrained(checkpoint).eval()
    model.generation_config.eos_token_id = None  # an untrained model may end at once; three tokens are wanted
    random = np.random.default_rng(4)
    scene = sample_scene(random)
    picture = prepare_picture(processor, draw(scene))
    turn = ask(scene, random)[0]
    prompt = conversation(processor.tokenizer, [turn], picture)
    start = next(index for index, label in enumerate(prompt.labels) if label != -100)
    output = model.generate(
        input_ids=torch.tensor([prompt.token_ids[:start]]),
        pixel_values=picture.pixel_values[None],
        image_sizes=torch.tensor([picture.size]),
        max_new_tokens=3,
        do_sample=False,
    )[0].tolist()
    said, other = output[start:], [*output[start:-1], (output[-1] + 1) % 256]
    for answer, expected in ((said, True), (other, False)):
        labels = [-100] * start + answer
        sample = type(prompt)(prompt.token_ids[:start] + answer, labels, picture)
        assert greedy_right(model, processor, [sample]) == [expected]


def test_accuracy_covers_every_type(checkpoint: Path, tmp_path: Path) -> None:
    records = json.loads((HELDOUT / "questions.json").read_text(encoding="utf-8"))[:40]
    (tmp_path / "questions.json").write_text(json.dumps(records), encoding="utf-8")
    for record in records:
        shutil.copy(HELDOUT / record["image"], tmp_path)
    assert set(accuracy(checkpoint, tmp_path)) == {"colour", "count", "position", "read", "shape"}


def test_patch_labels_follow_the_scene() -> None:
    scene = sample_scene(np.random.default_rng(2))
    whole = patch_labels(scene, (1.0, 1.0), (0, 0), tile_size=max(scene.width, scene.height) + 8, patch_size=1)
    side = round(len(whole.objects) ** 0.5)
    objects = whole.objects.reshape(side, side)
    for number, shape in enumerate(scene.shapes):
        left, top, right, bottom = shape.box
        assert (objects[top:bottom, left:right] == objects[top, left]).all(), number
        assert objects[top - 1, left - 1] == 0
