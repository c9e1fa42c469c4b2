"""Training runs on a tiny checkpoint: what moves, at which rate, and that an interruption changes nothing."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from llava_edge.export.pipeline import export_checkpoint
from llava_edge.runtime import load
from llava_edge.runtime.errors import OptionError
from llava_edge.train.data.dataset import SampleDataset
from llava_edge.train.data.grouping import grouped_order
from llava_edge.train.loop.trainer import COMPLETE, last_checkpoint
from llava_edge.train.model.parts import freeze, parameter_groups, part_of, unreached
from llava_edge.train.model.saved_weights import load_saved_weights
from llava_edge.train.recipe import load_recipe
from llava_edge.train.run import run
from PIL import Image
from support.checkpoints import make_checkpoint
from support.command_line import run_here
from support.reference_training import (
    SMALL_TEXT,
    SMALL_VISION,
    checkpoint_times,
    fork_training,
    losses,
    small_base,
    stage,
    weights,
    write_recipe,
    write_samples,
)
from transformers import LlavaNextForConditionalGeneration

pytestmark = pytest.mark.slow

CONNECTOR = {"connector": 1e-3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with samples, pictures and a base checkpoint."""
    folder = tmp_path_factory.mktemp("training")
    write_samples(folder)
    small_base(folder / "base")
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """Both stages, run once in this process."""
    first = stage(place, name="connector", prompt="plain", rates=CONNECTOR, pinpoints=[[56, 56]])
    evaluation = [{"samples": str(place / "samples.json"), "images": str(place / "images")}]
    config = write_recipe(
        place / "both.toml",
        place / "base",
        [first, stage(place, evaluation=evaluation)],
        run={"evaluation_steps": 2, "gradient_checkpointing": True},
    )
    run(config, place / "both")
    return place / "both"


def moved(before: Path, after: Path) -> set[str]:
    """Names of tensors that differ between two checkpoints of the same names."""
    old, new = weights(before), weights(after)
    assert set(old) == set(new)
    return {name for name in old if not torch.equal(old[name].float(), new[name].float())}


def test_stage_1_moves_the_connector_and_the_newline_alone(place: Path, trained: Path) -> None:
    stage_1 = place / "both.work" / "stage-1-connector" / "model"
    expected = {name for name in weights(stage_1) if "multi_modal_projector" in name or "image_newline" in name}
    assert moved(place / "base", stage_1) == expected


def test_stage_2_moves_everything_that_matters(place: Path, trained: Path) -> None:
    """All but what lies behind the tower's feature layer, and the embeddings of tokens that never came up."""
    still = set(weights(trained)) - moved(place / "both.work" / "stage-1-connector" / "model", trained)
    assert all(".encoder.layers.2." in name or "post_layernorm" in name for name in still), still
    assert still


def test_each_part_has_its_rate(place: Path) -> None:
    model = LlavaNextForConditionalGeneration.from_pretrained(place / "base")
    rates = {"connector": 3e-3, "llm": 2e-3, "tower": 1e-3}
    freeze(model, rates)
    groups = parameter_groups(model.named_parameters(), rates, weight_decay=0.0)
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    beyond = unreached(model.config)
    for name, parameter in model.named_parameters():
        expected = None if name.startswith(beyond) else rates[part_of(name)]
        assert rate_of.get(id(parameter)) == expected, name
    assert {part_of(name) for name, _ in model.named_parameters()} == set(rates)
    assert part_of("model.image_newline") == "connector"
    with pytest.raises(ValueError, match="no part claims"):
        part_of("model.other.weight")
    with pytest.raises(ValueError, match="without a rate"):
        parameter_groups(model.named_parameters(), CONNECTOR, weight_decay=0.0)


def test_the_optimizer_steps_at_these_rates(place: Path, tmp_path: Path) -> None:
    """AdamW's first step is the rate itself where a gradient is: the largest move of each part shows it."""
    rates = {"connector": 8e-4, "llm": 4e-4, "tower": 1e-4}
    once = stage(place, rates=rates, batch=16, warm_up_ratio=0.0, clip_norm=1.0)
    run(write_recipe(tmp_path / "once.toml", place / "base", [once]), tmp_path / "once")
    before, after = weights(place / "base"), weights(tmp_path / "once")
    furthest = dict.fromkeys(rates, 0.0)
    for name, tensor in after.items():
        part = part_of(name)
        furthest[part] = max(furthest[part], float((tensor - before[name].float()).abs().max()))
    assert furthest == pytest.approx(rates, rel=0.02)


def test_the_loss_is_logged_and_drawn(place: Path, trained: Path) -> None:
    rows = losses(trained, "stage-2-everything")
    steps = [row for row in rows if row["loss"]]
    assert [int(row["step"]) for row in steps] == [1, 2, 3, 4]
    assert [int(row["step"]) for row in rows if row["eval_loss"]] == [2, 4]
    folder = place / "both.work" / "stage-2-everything"
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))


def test_the_run_folder_says_how_it_was_made(place: Path, trained: Path) -> None:
    work = place / "both.work"
    assert json.loads((work / "recipe.json").read_text())["stages"][1]["rates"]["tower"] == 2e-4
    assert json.loads((work / "versions.json").read_text())["torch"] == torch.__version__
    index = json.loads((work / "stage-1-connector" / "index.json").read_text())
    assert len(index["fingerprint"]) == 64
    assert len(index["entries"]) == 16


def test_the_result_is_exported_and_answers(trained: Path, tmp_path: Path) -> None:
    """With the parity check: the trained checkpoint is an ordinary one."""
    manifest = export_checkpoint(str(trained), tmp_path / "bundle", llm_type="f32")
    assert manifest.geometry.pinpoints[0] == (112, 112)
    with load(tmp_path / "bundle") as model:
        assert model.ask("What?", [], max_tokens=2).tokens


def test_a_second_start_needs_resume_and_the_same_recipe(place: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    with pytest.raises(OptionError, match="nothing at"):
        run(place / "both.toml", tmp_path / "precious", resume=True)
    with pytest.raises(OptionError, match="add --resume"):
        run(place / "both.toml", trained)
    run(place / "both.toml", trained, resume=True)  # all stages are there: nothing to do
    changed = (place / "both.toml").read_text().replace("seed = 3", "seed = 4")
    (tmp_path / "changed.toml").write_text(changed)
    with pytest.raises(OptionError, match="another seed"):
        run(tmp_path / "changed.toml", trained, resume=True)


@pytest.mark.parametrize("layout", ["transformers", "transformers-old"])
def test_weights_come_back_by_their_names_in_memory(layout: str, tmp_path: Path) -> None:
    """What transformers' own resuming does not do: tensors are saved under the names of the base."""
    make_checkpoint(tmp_path / "base", layout=layout, text=SMALL_TEXT, vision=SMALL_VISION)
    model = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=torch.float32)
    model.save_pretrained(tmp_path / "saved")
    fresh = LlavaNextForConditionalGeneration(model.config)
    load_saved_weights(fresh, tmp_path / "saved")
    for (name, one), (_, other) in zip(model.named_parameters(), fresh.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_interrupted_checkpoints_are_not_resumed_from(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
    for step in (2, 4, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert not (tmp_path / "checkpoint-6").exists()


def kill_after(process: BaseProcess, log: Path, rows: int) -> None:
    """Kill a run, without a chance to tidy up, once its log has ``rows`` lines of losses."""
    try:
        end = time.monotonic() + 120
        while not log.is_file() or len(log.read_text().splitlines()) <= rows:
            assert process.is_alive()
            assert time.monotonic() < end
            time.sleep(0.005)
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("more", "kills"),
    [({}, [3, 7]), ({"lora": {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"], "dropout": 0.1}}, [7])],
    ids=["full", "lora"],
)
def test_killed_and_resumed_equals_an_uninterrupted_run(
    more: dict[str, Any], kills: list[int], place: Path, tmp_path: Path
) -> None:
    """Bit for bit: losses, gradient norms and weights; with accumulation, dropout, and a kill inside an epoch."""
    config = write_recipe(tmp_path / "r.toml", place / "base", [stage(place, epochs=3.0)], run={"keep": 9}, **more)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    undisturbed = fork_training(config, whole)
    log = tmp_path / "cut.work" / "stage-1-everything" / "loss.csv"
    written: dict[str, int] = {}
    for number, rows in enumerate(kills):
        kill_after(fork_training(config, cut, resume=number > 0), log, rows)
        written |= checkpoint_times(cut)
    assert not cut.exists()
    resumed = fork_training(config, cut, resume=True)
    for process in (resumed, undisturbed):
        process.join(120)
        assert process.exitcode == 0
    assert "checkpoint-2" in written
    assert checkpoint_times(cut).items() >= written.items()  # none was written again: no run began anew
    assert len(losses(whole)) == 12
    assert losses(cut) == losses(whole)
    one, other = weights(whole), weights(cut)
    assert set(one) == set(other)
    assert all(torch.equal(one[tensor], other[tensor]) for tensor in one)


def test_each_epoch_has_its_own_order(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    read = SampleDataset.read

    def recording(self: SampleDataset, position: int) -> Any:
        seen.append(position)
        return read(self, position)

    monkeypatch.setattr(SampleDataset, "read", recording)
    only = stage(place, rates=CONNECTOR, epochs=2.0)
    run(write_recipe(tmp_path / "r.toml", place / "base", [only]), tmp_path / "out")
    index = json.loads((tmp_path / "out.work" / "stage-1-everything" / "index.json").read_text())
    lengths = [length for *_, length in index["entries"]]
    pictured = [images > 0 for _, _, images, _ in index["entries"]]
    expected = [grouped_order(lengths, pictured, batch=4, seed=3, epoch=epoch) for epoch in (0, 1)]
    assert seen == expected[0] + expected[1]


def test_broken_samples_are_fatal_or_skipped(place: Path, tmp_path: Path, capsys: Any) -> None:
    samples = json.loads((place / "samples.json").read_text())
    samples[3]["image"] = "missing.png"
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    data = [{"samples": str(tmp_path / "samples.json"), "images": str(place / "images")}]
    only = stage(place, rates=CONNECTOR, data=data)
    fatal = write_recipe(tmp_path / "fatal.toml", place / "base", [only])
    with pytest.raises(ValueError, match="sample-3"):
        run(fatal, tmp_path / "fatal")
    skip = write_recipe(tmp_path / "skip.toml", place / "base", [only], run={"broken": "skip"})
    run(skip, tmp_path / "skip")
    assert "sample-3" in capsys.readouterr().err
    index = json.loads((tmp_path / "skip.work" / "stage-1-everything" / "index.json").read_text())
    assert (len(index["entries"]), len(index["broken"])) == (15, 1)
    with (tmp_path / "skip.work" / "stage-1-everything" / "loss.csv").open() as file:
        assert len(list(csv.reader(file))) == 1 + 4


def test_a_damaged_picture_ends_the_command_in_one_line(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "images", tmp_path / "images")
    damaged = tmp_path / "images" / "5.png"
    Image.effect_noise((90, 70), 80).save(damaged, format="JPEG")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])  # behind the header
    data = [{"samples": str(place / "samples.json"), "images": str(tmp_path / "images")}]
    only = stage(place, rates=CONNECTOR, data=data)
    config = write_recipe(tmp_path / "r.toml", place / "base", [only], run={"workers": 1})
    status, _, said = run_here("train", "--config", str(config), "--output", str(tmp_path / "o"))
    assert status == 1
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("llava-edge: ")]
    assert "('sample-5') of " in line
    assert "; got '5.png': " in line


def test_bf16_trains_float32_weights(place: Path, tmp_path: Path) -> None:
    """Frozen matrices are held in bf16 and stay what they were; vectors and what trains keep float32."""
    only = stage(place, rates=CONNECTOR)
    run(write_recipe(tmp_path / "bf16.toml", place / "base", [only], run={"precision": "bf16"}), tmp_path / "bf16")
    changed = moved(place / "base", tmp_path / "bf16")
    assert all("multi_modal_projector" in name or "image_newline" in name for name in changed)
    assert changed
    after = weights(tmp_path / "bf16")
    assert after["model.multi_modal_projector.linear_1.weight"].dtype == torch.float32
    assert after["model.language_model.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16
    assert after["model.language_model.norm.weight"].dtype == torch.float32


def test_a_recipe_without_its_base_says_so(place: Path, tmp_path: Path) -> None:
    config = write_recipe(tmp_path / "r.toml", tmp_path / "none", [stage(place)])
    assert load_recipe(config).name == "tiny"
    with pytest.raises(OptionError, match="a checkpoint at"):
        run(config, tmp_path / "out")
