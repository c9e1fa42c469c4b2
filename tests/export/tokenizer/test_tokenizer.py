"""llama.cpp, on the exported vocabulary, gives the reference tokenizer's ids."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llava_edge.export.pipeline import make_plan
from llava_edge.export.tokenizer.check import BATTERY, check_tokenizer, differences
from llava_edge.export.tokenizer.vocabulary import TokenType
from llava_edge.runtime.errors import CheckpointError
from llava_edge.runtime.language.vocabulary import open_vocabulary
from support.checkpoints import FAMILIES, LAYOUTS, make_checkpoint
from support.gguf_files_written import write_plan
from support.gguf_reading import read_fields
from support.tokenizers_fixture import CORPUS, sentencepiece_tokenizer


def edit_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / "tokenizer.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return folder


def noise(count: int) -> list[str]:
    """Short strings of characters from all kinds of text, in every order."""
    draw = random.Random(0)
    alphabet = "".join(BATTERY)
    return ["".join(draw.choice(alphabet) for _ in range(draw.randint(1, 12))) for _ in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_the_reference_tokenizers(family: str, tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    plan = make_plan(str(shared_checkpoint(family)))
    with open_vocabulary(write_plan(plan, tmp_path / "llm.gguf")) as tokenize:
        texts = [*BATTERY, *CORPUS, *noise(500)]
        assert list(differences(tokenize, plan.tokenizer, plan.template, texts)) == []


@pytest.mark.parametrize("family", ["vicuna", "mistral", "yi"])
def test_a_sentencepiece_model_alone(family: str, tmp_path: Path) -> None:
    import sentencepiece

    folder = make_checkpoint(tmp_path / "c", family, "original", tokenizer_model_only=True)
    assert not (folder / "tokenizer.json").exists()
    plan = make_plan(str(folder))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    with open_vocabulary(write_plan(plan, tmp_path / "llm.gguf")) as tokenize:
        for text in [*BATTERY, *noise(300)]:
            assert tokenize(" " + text) == processor.encode(text), text


def test_an_old_sentencepiece_tokenizer_equals_its_json(tmp_path: Path) -> None:
    both = make_plan(str(make_checkpoint(tmp_path / "both", "vicuna", "original")))
    alone = make_plan(str(make_checkpoint(tmp_path / "alone", "vicuna", "original", tokenizer_model_only=True)))
    assert alone.vocabulary == both.vocabulary


def test_qwen_from_vocab_and_merges(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "qwen", "original")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    whole = make_plan(str(folder))
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer.json").unlink()
    apart = make_plan(str(folder))
    assert apart.vocabulary.tokens == whole.vocabulary.tokens
    assert apart.vocabulary.merges == whole.vocabulary.merges
    assert apart.vocabulary.pre == "qwen2"


@pytest.mark.parametrize(("scheme", "expected"), [("first", "first"), ("always", "every"), ("never", "none")])
def test_metaspace_schemes(scheme: str, expected: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "vicuna")
    tokenizer = sentencepiece_tokenizer(("<image>", "<pad>"), "first").tokenizer
    tokenizer = json.loads(json.dumps(tokenizer))
    tokenizer["pre_tokenizer"]["prepend_scheme"] = scheme
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    plan = make_plan(str(folder))
    assert plan.template.space_prefix == expected
    with open_vocabulary(write_plan(plan, tmp_path / "llm.gguf")) as tokenize:
        assert list(differences(tokenize, plan.tokenizer, plan.template, [*BATTERY, *noise(200)])) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_special_tokens_are_control_tokens(layout: str, shared_checkpoint: Callable[..., Path]) -> None:
    vocabulary = make_plan(str(shared_checkpoint("llama3", layout))).vocabulary
    for token, index in vocabulary.traits.control.items():
        assert vocabulary.tokens[index] == token
        assert vocabulary.types[index] == TokenType.CONTROL
    assert ("<image>" in vocabulary.traits.control) == (layout != "original")
    assert {"<|begin_of_text|>", "<|eot_id|>"} <= set(vocabulary.traits.control)


def test_types_of_the_rest(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "vicuna")
    vocabulary = make_plan(str(folder)).vocabulary
    assert vocabulary.types[vocabulary.tokens.index("<0x41>")] == TokenType.BYTE
    assert vocabulary.types[vocabulary.tokens.index("<unk>")] == TokenType.UNKNOWN
    assert vocabulary.types[vocabulary.tokens.index("▁a")] == TokenType.NORMAL
    size = len(vocabulary.tokens)
    assert vocabulary.tokens[-1] == f"[PAD{size - 1}]"  # rows are padded to a multiple of 64
    assert vocabulary.types[-1] == TokenType.UNUSED
    assert size % 64 == 0


def test_an_added_token_that_is_not_special_is_user_defined(tmp_path: Path) -> None:
    def change(value: dict[str, Any]) -> None:
        for token in value["added_tokens"]:
            if token["content"] in ("<image>", "<pad>"):
                token["special"] = False

    folder = edit_tokenizer(make_checkpoint(tmp_path / "c"), change)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"})
    )
    vocabulary = make_plan(str(folder)).vocabulary
    assert vocabulary.types[vocabulary.tokens.index("<pad>")] == TokenType.USER_DEFINED
    # else a user could type it: llama.cpp always parses user-defined tokens
    assert vocabulary.types[vocabulary.tokens.index("<image>")] == TokenType.CONTROL


def test_fields(tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    llama3 = read_fields(write_plan(make_plan(str(shared_checkpoint("llama3"))), tmp_path / "a.gguf"))
    assert (llama3["tokenizer.ggml.model"], llama3["tokenizer.ggml.pre"]) == ("gpt2", "llama-bpe")
    assert llama3["tokenizer.ggml.add_bos_token"] is True
    assert llama3["tokenizer.ggml.eot_token_id"] == llama3["tokenizer.ggml.eos_token_id"]
    qwen = read_fields(write_plan(make_plan(str(shared_checkpoint("qwen"))), tmp_path / "b.gguf"))
    assert qwen["tokenizer.ggml.pre"] == "qwen2"
    assert qwen["tokenizer.ggml.add_bos_token"] is False
    vicuna = read_fields(write_plan(make_plan(str(shared_checkpoint("vicuna"))), tmp_path / "c.gguf"))
    assert vicuna["tokenizer.ggml.model"] == "llama"
    assert vicuna["tokenizer.ggml.add_space_prefix"] is True
    yi = read_fields(write_plan(make_plan(str(shared_checkpoint("yi"))), tmp_path / "d.gguf"))
    assert yi["tokenizer.ggml.add_bos_token"] is False


REFUSED: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda value: value["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\w+"), "pre-tokenizer"),
    (lambda value: value["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"), "pre-tokenizer"),
    (lambda value: value["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True), "pre-tokenizer"),
    (lambda value: value.update(pre_tokenizer={"type": "Whitespace"}), "pre-tokenizer"),
    (lambda value: value.update(normalizer={"type": "Lowercase"}), "normalizer"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_unknown_tokenizers_are_refused(change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path) -> None:
    folder = edit_tokenizer(make_checkpoint(tmp_path / "c"), change)
    with pytest.raises(CheckpointError, match=said):
        make_plan(str(folder))


def test_broken_tokenizer_files(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "vicuna")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="tokenizer"):
        make_plan(str(folder))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="SentencePiece"):
        make_plan(str(folder))
    (folder / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        make_plan(str(folder))


def test_more_tokens_than_rows(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", text={"vocab_size": 400})
    with pytest.raises(CheckpointError, match="400 rows"):
        make_plan(str(folder))


def test_the_check_at_the_end_of_export_sees_other_ids(tmp_path: Path, shared_checkpoint: Callable[..., Path]) -> None:
    qwen, llama3 = (make_plan(str(shared_checkpoint(family))) for family in ("qwen", "llama3"))
    with pytest.raises(CheckpointError, match="to tokenize"):
        check_tokenizer(write_plan(qwen, tmp_path / "llm.gguf"), llama3.tokenizer, llama3.template)
