"""The vehicle from a tiny GGUF and the demo: what is unpacked is what was packed, and only the connector learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_edge.benchmark.data.heldout import heldout
from llava_edge.export.pipeline import make_plan
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.errors import BundleError, CheckpointError, OptionError
from llava_edge.runtime.onnx_runtime.session import open_session
from llava_edge.runtime.pictures.picture import load_picture
from llava_edge.runtime.pictures.tiles import lay_out, pixels_of
from llava_edge.train.model.saved_weights import name_in_memory
from llava_edge.train.vehicle import llm as llm_module
from llava_edge.train.vehicle.build import RECIPE, build
from llava_edge.train.vehicle.llm import write_llm
from llava_edge.train.vehicle.tower import unpack_graph, write_tower
from support.reference_training import weights
from support.tokenizers_fixture import TokenizerFiles, digits_tokenizer
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
HEADS, KEY_HEADS = 2, 1


@pytest.fixture(scope="module")
def small() -> tuple[LlamaForCausalLM, TokenizerFiles]:
    """A llama with tied embeddings and SmolLM's kind of tokenizer."""
    files = digits_tokenizer(SPECIAL, ())
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=files.size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, tie_word_embeddings=True, max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0}, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config), files


@pytest.fixture(scope="module")
def gguf_file(small: tuple[LlamaForCausalLM, TokenizerFiles], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(*small, tmp_path_factory.mktemp("gguf") / "small.gguf")


def write_gguf(model: LlamaForCausalLM, files: TokenizerFiles, path: Path, *, pre: str = "smollm") -> Path:
    """As llama.cpp's converter writes a Llama: f32, rows of queries and keys in its order."""
    import gguf

    config, bpe = model.config, files.tokenizer["model"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(sorted(bpe["vocab"], key=bpe["vocab"].__getitem__))
    writer.add_token_types([3 if index < len(SPECIAL) else 1 for index in range(config.vocab_size)])
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in bpe["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        for part, heads in (("q_proj", HEADS), ("k_proj", KEY_HEADS)):
            if part in name:
                halves = values.reshape(heads, 2, -1, values.shape[1])
                values = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
        if name != "lm_head.weight":
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_becomes_the_model_that_it_was(
    small: tuple[LlamaForCausalLM, TokenizerFiles], gguf_file: Path, tmp_path: Path
) -> None:
    model, files = small
    write_llm(gguf_file, tmp_path / "llm")
    read = LlamaForCausalLM.from_pretrained(tmp_path / "llm", dtype="auto")
    for name, tensor in model.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor.to(torch.bfloat16)), name
    assert read.config.tie_word_embeddings
    assert read.config.rope_parameters["rope_theta"] == 100000.0
    assert not hasattr(read.config, "quantization_config")
    (tmp_path / "own").mkdir()
    files.write(tmp_path / "own")
    own, got = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("own", "llm"))
    for text in ("2026-11-27: 12345 cats", " a  b\n\nc'll"):
        assert got(text)["input_ids"] == own(text)["input_ids"]
    assert got.convert_tokens_to_ids("<|im_end|>") == got.eos_token_id == 2


def test_a_tokenizer_that_gives_other_ids_is_refused(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def split_otherwise(tokenizer: Any, pre: str) -> None:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)

    monkeypatch.setattr(llm_module, "_split_digits", split_otherwise)
    with pytest.raises(CheckpointError, match=r"llama\.cpp's ids"):
        write_llm(gguf_file, tmp_path / "llm")
    assert not (tmp_path / "llm").exists()


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"nothing")
    with pytest.raises(OptionError, match="a GGUF language model"):
        write_llm(tmp_path / "x.gguf", tmp_path / "llm")


def test_the_demos_tower_sees_what_the_demo_sees(tmp_path: Path) -> None:
    bundle = Bundle.open(demo_bundle())
    write_tower(bundle, tmp_path / "tower")
    tower = CLIPVisionModel.from_pretrained(tmp_path / "tower").eval()
    _, connector = unpack_graph(bundle)
    picture, geometry = load_picture(heldout() / "003.png"), bundle.manifest.geometry
    pixels = pixels_of(picture.image, geometry, lay_out(picture.size, geometry))
    expected = open_session(bundle.vision_path).run(None, {"pixels": pixels})[0]
    with torch.no_grad():
        hidden = tower(torch.tensor(pixels), output_hidden_states=True).hidden_states[-2][:, 1:]
        first, second = (
            {kind: torch.tensor(connector[f"{layer}.{kind}"]) for kind in ("weight", "bias")} for layer in (0, 2)
        )
        inner = torch.nn.functional.gelu(torch.nn.functional.linear(hidden, **first))
        got = torch.nn.functional.linear(inner, **second).numpy()
    assert np.linalg.norm(got - expected) < 0.03 * np.linalg.norm(expected)


def test_a_graph_that_is_not_int8_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a vision graph in int8"):
        write_tower(Bundle.open(tiny_bundle), tmp_path / "tower")


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped recipe with a handful of samples."""
    text = RECIPE.read_text()
    for line in [line for line in text.splitlines() if "count = " in line]:
        text = text.replace(line, line[: line.index("count")] + "count = 24 }]")
    path = tmp_path_factory.mktemp("recipe") / "vehicle.toml"
    path.write_text(text)
    return path


def test_only_the_connector_learns_and_the_exporter_knows_the_rest(
    gguf_file: Path, recipe_file: Path, tmp_path: Path
) -> None:
    build(gguf_file, tmp_path / "out", config=recipe_file)
    before, after = (
        {name_in_memory(name): tensor for name, tensor in weights(folder).items()}
        for folder in (tmp_path / "out.work" / "base", tmp_path / "out")
    )
    assert before.keys() == after.keys()
    learnt = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    connector = {name for name in before if "multi_modal_projector" in name or "image_newline" in name}
    assert learnt == connector
    llm = weights(tmp_path / "out.work" / "llm")
    rows = llm["model.embed_tokens.weight"].shape[0]
    assert torch.equal(after["model.language_model.embed_tokens.weight"][:rows], llm["model.embed_tokens.weight"])
    plan = make_plan(str(tmp_path / "out"))
    assert plan.template.stop_tokens[0] == "<|im_end|>"
    assert plan.vocabulary.pre == "refact"
    asked = json.loads((tmp_path / "out.work" / "data" / "conversations.json").read_text())
    assert len(asked) == 24


def test_a_recipe_without_counts_is_refused(gguf_file: Path, recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(recipe_file.read_text().replace(", count = 24", ""))
    with pytest.raises(OptionError, match="and their count"):
        build(gguf_file, tmp_path / "out", config=tmp_path / "r.toml")
    assert not (tmp_path / "out.work").exists()


def test_a_language_model_that_is_not_there_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a GGUF file, or a folder"):
        build(tmp_path / "none.gguf", tmp_path / "out", config=recipe_file)
