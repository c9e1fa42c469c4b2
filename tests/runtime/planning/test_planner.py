"""What the planner decides, by arithmetic on devices that are not here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from llava_edge.cli.terminal.plan_sources import shape_of
from llava_edge.runtime import LoadOptions, load
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.errors import CheckpointError, OptionError
from llava_edge.runtime.ggml.llm_kinds import LLM_KINDS
from llava_edge.runtime.pictures.towers import CLIP_L_336
from llava_edge.runtime.planning.auto_placement import auto_options
from llava_edge.runtime.planning.checkpoint_config import config_shape
from llava_edge.runtime.planning.placement import Device
from llava_edge.runtime.planning.planner import Plan, Request, make_plan
from llava_edge.runtime.planning.rates import rates
from llava_edge.runtime.planning.shape_sources import PRESETS, folder_shape, preset_shape
from llava_edge.runtime.planning.suggestions import suggestions

G = 2**30
HOST = Device("host", "cpu", 16 * G)


def gpus(*sizes: float, **values: Any) -> list[Device]:
    return [Device(f"g{index}", "gpu", int(size * G), **values) for index, size in enumerate(sizes)]


def planned(name: str, *devices: Device, **request: Any) -> Plan:
    return make_plan(preset_shape(name), [HOST, *devices], Request(**request))


# --- shapes ---


@pytest.mark.parametrize(
    ("name", "recipe", "llm"),
    [("llama3-8b", "llama3-8b", 8.03), ("llava-72b", "qwen1.5-72b", 72.3), ("llava-110b", "qwen1.5-110b", 111.0)],
)
def test_counts_are_the_articles_and_those_of_transformers(name: str, recipe: str, llm: float) -> None:
    from llava_edge.train.plan.counts import count_parameters
    from llava_edge.train.plan.plan import model_config
    from llava_edge.train.recipe import load_recipe

    file = Path(__file__).parents[3] / "train" / "recipes" / f"{recipe}.toml"
    parts = count_parameters(model_config(load_recipe(file))).parts
    model = preset_shape(name)
    assert model.llm.parameters == parts["llm"]
    assert model.vision.tower_parameters(model.vision.layers) == parts["tower"]
    assert model.vision.connector_parameters == parts["connector"] + parts["newline"]
    assert model.llm.parameters / 1e9 == pytest.approx(llm, rel=0.002)
    assert round(model.vision.tower_parameters(24) / 1e6, 1) == 303.5
    assert round(model.vision.connector_parameters / 2**20, 1) == (20.0 if name == "llama3-8b" else 72.0)


def test_defaults_are_those_of_transformers() -> None:
    from transformers import AutoConfig

    for kind, row in LLM_KINDS.items():
        config = AutoConfig.for_model(kind, use_sliding_window=True)  # else Qwen2's hides its window
        assert {key: getattr(config, key) for key in row.defaults} == row.defaults
        model = config_shape(transformers_config({"model_type": kind}), name="m", where="here")
        assert model.llm.kv_heads == config.num_key_value_heads
        assert (model.llm.layers, model.llm.dim, model.llm.heads) == (32, 4096, 32)


def transformers_config(text: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {"architectures": ["LlavaNextForConditionalGeneration"], "text_config": text, **values}


@pytest.mark.slow
def test_a_checkpoint_folder_is_read_as_its_export_reads_it(exported: Any) -> None:
    """The config alone gives the numbers that the exported GGUF has."""
    checkpoint, bundle = exported("llama3", "transformers")
    from_config, from_file = folder_shape(checkpoint), folder_shape(bundle)
    known = dataclasses.replace(from_file.llm, recipe="", sizes={}, vocabulary=from_config.llm.vocabulary)
    assert known == dataclasses.replace(from_config.llm, context_length=known.context_length)
    assert from_config.picture_tokens == from_file.picture_tokens
    assert from_file.llm.sizes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "LLaVA-NeXT architecture"),
        ({"text_config": {"model_type": "gemma"}}, "a language model among"),
        ({"vision_feature_layer": [-2, "x"]}, "a number or a list of numbers"),
        ({"image_grid_pinpoints": [336]}, "pairs"),
        ({"image_grid_pinpoints": [[112, 224]]}, "multiples of 336"),
    ],
)
def test_configs_of_other_models(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        config_shape({**transformers_config({}), **change}, name="m", where="config.json")


def test_original_layout_with_the_published_tower(tmp_path: Path) -> None:
    raw = {
        "architectures": ["LlavaQwenForCausalLM"],
        **{key: value for key, value in PRESETS["llava-72b"].items() if key != "model_type"},
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_vision_select_layer": -2,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_vision_select_feature": "patch",
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    }
    (tmp_path / "config.json").write_text(json.dumps(raw))
    published = preset_shape("llava-72b")
    shape = folder_shape(tmp_path)
    geometry = shape.vision.geometry  # the same list, each pair read as (width, height)
    assert geometry.pinpoints == tuple((high, wide) for wide, high in published.vision.geometry.pinpoints)
    other = dataclasses.replace(geometry, pinpoints=published.vision.geometry.pinpoints, reading="transformers")
    vision = dataclasses.replace(shape.vision, geometry=other)
    assert dataclasses.replace(shape, name="llava-72b", vision=vision) == published
    assert published.picture_tokens == 576 + 48 * 49


@pytest.mark.parametrize("named", ["/share/elsewhere/tower", "", "somebody/else"])
def test_original_layout_whose_tower_is_elsewhere(named: str, tmp_path: Path) -> None:
    """As ``export --vision-tower``: a folder, one beside the checkpoint, or the published one by its name."""
    raw = {
        "architectures": ["LlavaQwenForCausalLM"],
        **{key: value for key, value in PRESETS["llava-72b"].items() if key != "model_type"},
        "mm_vision_tower": named,
        "mm_vision_select_layer": -2,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_vision_select_feature": "patch",
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    }
    folder, tower = tmp_path / "checkpoint", tmp_path / "checkpoint" / "tower"
    tower.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw))
    (tower / "config.json").write_text(
        json.dumps({"model_type": "clip_vision_model", **CLIP_L_336, "num_hidden_layers": 12})
    )
    with pytest.raises(CheckpointError, match="--vision-tower DIR"):
        shape_of(str(folder))
    for where in (str(tower), "tower"):
        assert shape_of(str(folder), where).vision.layers == 12
    published = shape_of(str(folder), "openai/clip-vit-large-patch14-336")
    preset = preset_shape("llava-72b")
    geometry = dataclasses.replace(
        published.vision.geometry, pinpoints=preset.vision.geometry.pinpoints, reading="transformers"
    )
    vision = dataclasses.replace(published.vision, geometry=geometry)
    assert dataclasses.replace(published, name="llava-72b", vision=vision) == preset
    for where in (str(tmp_path), "no/such/place"):
        with pytest.raises(CheckpointError, match="--vision-tower as a folder"):
            shape_of(str(folder), where)


# --- decisions ---


def test_one_gpu_with_room_takes_all() -> None:
    plan = planned("llama3-8b", *gpus(24, 12))
    assert plan.fits
    assert (plan.placement.split_mode, plan.placement.main_gpu, plan.placement.gpu_layers) == ("none", 0, 33)
    assert (plan.placement.kv_type_k, plan.placement.flash_attention) == ("f16", True)
    assert plan.placement.vision_device == "g0"
    host = plan.uses[-1]
    assert host.weights == host.embedding == 128256 * 4096 // 256 * 144  # the table of tokens alone, in q4_k


def test_the_faster_or_larger_gpu_is_the_one() -> None:
    assert planned("llama3-8b", *gpus(12, 24)).placement.main_gpu == 1
    fast = [*gpus(24), Device("fast", "gpu", 12 * G, 2e12)]
    assert planned("llama3-8b", *fast).placement.devices == ("fast",)


def test_72b_over_two_gpus_of_48() -> None:
    plan = planned("llava-72b", *gpus(48, 48))
    assert plan.fits
    assert (plan.placement.gpu_layers, plan.placement.split_mode) == (81, "layer")
    assert sum(plan.placement.tensor_split) == 81
    assert sum(one.weights for one in plan.uses) == 42055.3125 * 2**20  # what llama.cpp's dry run says of q4_k_m
    assert sum(one.kv for one in plan.uses) == 4096 * 80 * 2 * 8192 * 2
    first, second, _ = plan.uses
    assert abs(first.free - second.free) < 1.5 * G


def test_a_long_context_takes_a_smaller_cache() -> None:
    plan = planned("llava-72b", *gpus(48, 48), context=32768)
    assert plan.fits
    assert (plan.placement.kv_type_k, plan.placement.kv_type_v, plan.placement.gpu_layers) == ("q8_0", "q8_0", 81)


def test_what_the_gpu_can_not_hold_stays_on_the_host() -> None:
    plan = planned("llama3-8b", *gpus(4))
    assert plan.fits
    gpu, host = plan.uses
    assert 0 < gpu.layers < 33
    assert gpu.layers + host.layers == 33
    assert gpu.free >= gpu.device.reserve
    more = planned("llama3-8b", *gpus(4), gpu_layers=gpu.layers + 1, kv_type_k="f16", kv_type_v="f16")
    assert not more.uses[0].fits  # one layer more would have been too much


def test_without_gpus_attention_stays_exact() -> None:
    plan = planned("llama3-8b")
    assert plan.fits
    assert (plan.placement.gpu_layers, plan.placement.flash_attention, plan.placement.kv_type_v) == (0, False, "f16")


def test_workers_that_are_named_are_used_and_come_first() -> None:
    worker = Device("10.0.0.2:50052", "rpc", 24 * G, endpoint="10.0.0.2:50052")
    plan = planned("llama3-8b", *gpus(24), worker)
    assert plan.placement.devices == ("10.0.0.2:50052", "g0")
    assert plan.placement.workers == ("10.0.0.2:50052",)
    assert all(share > 0 for share in plan.placement.tensor_split)
    assert plan.placement.vision_device == "g0"  # onnxruntime can't use a worker


def test_every_choice_can_be_overridden() -> None:
    plan = planned(
        "llama3-8b",
        *gpus(24, 24),
        gpu_layers=20,
        tensor_split=(3.0, 1.0),
        split_mode="row",
        main_gpu=1,
        kv_type_k="q8_0",
        kv_type_v="q4_0",
        vision_device="host",
    )
    placement = plan.placement
    assert (placement.gpu_layers, placement.tensor_split, placement.split_mode) == (20, (3.0, 1.0), "row")
    assert (placement.main_gpu, placement.kv_type_k, placement.kv_type_v) == (1, "q8_0", "q4_0")
    assert placement.vision_device == "host"
    first, second, host = plan.uses
    assert (first.layers, second.layers, host.layers) == (15, 5, 13)
    assert first.weights == pytest.approx(3 * second.weights, rel=1e-6)  # rows follow the shares


@pytest.mark.parametrize(
    ("request_values", "said"),
    [
        ({"recipe": "q9"}, "an LLM type among"),
        ({"kv_type_k": "q9"}, "a KV type among"),
        ({"split_mode": "diagonal"}, "a split mode among"),
        ({"kv_type_v": "q8_0", "flash_attention": False}, "flash attention for a quantized"),
        ({"vision_recipe": "int1"}, "a vision type among"),
        ({"tensor_split": (1.0, 1.0, 1.0)}, "2 shares"),
        ({"split_mode": "none", "main_gpu": 7}, "a main GPU below 2"),
        ({"vision_device": "moon"}, "a vision device among"),
    ],
)
def test_contradictions_are_refused(request_values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        planned("llama3-8b", *gpus(24, 24), **request_values)
    with pytest.raises(OptionError, match="layer with workers"):
        planned("llama3-8b", Device("w", "rpc", 8 * G), split_mode="row")


# --- what would fit ---


def test_suggestions_fit_and_are_the_nearest() -> None:
    devices = [Device("host", "cpu", 8 * G), *gpus(24, 24)]
    request = Request(context=8192)
    plan = make_plan(preset_shape("llava-72b"), devices, request)
    assert not plan.fits
    found = suggestions(plan, devices, request)
    assert [set(one.change) for one in found][:2] == [{"llm"}, {"ctx"}]
    for one in found:
        assert one.plan.fits
    shorter = [one for one in found if "ctx" in one.change]
    for one in shorter:
        longer = Request(context=one.change["ctx"] + 256, recipe=one.change.get("llm", plan.recipe))
        assert not make_plan(preset_shape("llava-72b"), devices, longer).fits


def test_more_gpus_are_suggested_where_nothing_else_helps() -> None:
    devices = [Device("host", "cpu", 8 * G), *gpus(24)]
    plan = make_plan(preset_shape("llava-110b"), devices, Request())
    (found,) = suggestions(plan, devices, Request())
    assert found.change["gpus"] >= 2
    assert found.plan.fits
    fewer = [*devices, *(Device(f"m{n}", "gpu", 24 * G) for n in range(found.change["gpus"] - 1))]
    assert not make_plan(preset_shape("llava-110b"), fewer, Request()).fits


def test_a_context_beyond_the_models_limit_does_not_fit() -> None:
    plan = planned("llama3-8b", context=16384)
    assert not plan.fits
    assert next(iter(suggestions(plan, [HOST], Request(context=16384)))).change == {"ctx": 8192}


# --- speed ---


def test_rates_are_bandwidth_and_arithmetic() -> None:
    plan = planned("llama3-8b", *gpus(24, bandwidth=1e12, flops=1e14))
    gpu = plan.uses[0]
    found = rates(plan)
    assert found.decode == pytest.approx(1e12 / (gpu.weights + gpu.kv))
    products = 8_030_261_248 - 128256 * 4096
    assert found.prefill == pytest.approx(1e14 / (2 * products), rel=1e-3)
    assert rates(planned("llama3-8b", *gpus(24))).decode is None


# --- loading ---


def test_auto_on_this_machine_answers_as_without(tmp_path: Path) -> None:
    sign = str(Path(__file__).parents[3] / "examples" / "sign.png")
    with load() as plain, load(device="auto") as planned_model, load(device="auto", kv_type_k="q8_0") as smaller:
        question = "What does the sign say?"
        answer = plain.ask(question, [sign])
        assert planned_model.ask(question, [sign]).tokens == answer.tokens
        assert "placement auto" in planned_model.placement
        assert "KV q8_0/f16" in smaller.placement
        assert smaller.ask(question, [sign]).text


def test_auto_fills_in_what_is_open() -> None:
    bundle = Bundle.open(demo_bundle())
    devices = [*gpus(8, 8), HOST]
    chosen = auto_options(bundle, LoadOptions(device="auto"), devices)
    assert (chosen.gpu_layers, chosen.split_mode, chosen.main_gpu) == (5, "none", 0)
    assert (chosen.kv_type_k, chosen.flash_attention, chosen.providers) == ("f16", True, ())
    kept = LoadOptions(device="auto", gpu_layers=2, split_mode="layer", tensor_split=(1.0, 1.0), kv_type_v="q8_0")
    chosen = auto_options(bundle, kept, devices)
    assert (chosen.gpu_layers, chosen.split_mode, chosen.tensor_split) == (2, "layer", (1.0, 1.0))
    assert (chosen.kv_type_k, chosen.kv_type_v) == ("f16", "q8_0")


@pytest.mark.parametrize("values", [{"device": "moon"}, {"split_mode": "x"}, {"kv_type_k": "q9"}, {"main_gpu": -1}])
def test_load_options_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        LoadOptions(**values)


@pytest.mark.gpu
def test_auto_uses_a_gpu_that_is_there() -> None:
    from llava_edge.runtime.ggml.devices import has_gpu

    if not has_gpu():
        pytest.skip("no GPU here, or llama.cpp built without one")
    with load(device="auto") as model:
        assert model.engine.options.gpu_layers > 0
        assert model.ask("Hello").tokens


def test_more_pictures_than_the_model_has_positions_for_do_not_fit() -> None:
    shape = preset_shape("llama3-8b")
    devices = [Device("host", "cpu", 512 * 2**30)]
    many = make_plan(shape, devices, Request(images=5000))
    assert not many.fits
    most = (8192 - 256) // shape.picture_tokens
    assert suggestions(many, devices, Request(images=5000))[0].change == {"images": most}
    assert make_plan(shape, devices, Request(images=most)).fits


def test_without_a_gpu_memory_is_what_would_fit() -> None:
    shape = preset_shape("llava-72b")
    devices = [Device("host", "cpu", 8 * 2**30)]
    plan = make_plan(shape, devices, Request())
    found = {one.text: one for one in suggestions(plan, devices, Request())}
    (said,) = [text for text in found if text.endswith("GiB more free memory")]
    assert found[said].change["host"] - 8 * 2**30 == int(said.split()[0]) * 2**30
    assert found[said].plan.fits
