"""Chat templates: the checkpoint's own or its family's, told from its files and checked by rendering."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llava_edge.export.pipeline import export_checkpoint, make_plan
from llava_edge.export.tokenizer.template import checkpoint_template, read_template
from llava_edge.export.tokenizer.vocabulary import TokenType
from llava_edge.export.verification.reference import prompt_ids
from llava_edge.runtime.errors import CheckpointError
from llava_edge.runtime.prompts import template_environment
from llava_edge.runtime.prompts.template import Control, ImageSlot, TemplateMessage, render
from llava_edge.runtime.prompts.template_environment import compiled
from llava_edge.runtime.prompts.template_spec import TemplateSpec
from support.checkpoints import FAMILIES, LAYOUTS, LLAMA3_TEMPLATE, VICUNA_TEMPLATE, make_checkpoint

QUESTION = TemplateMessage("user", "Why?", 1)
TURNS = [QUESTION, TemplateMessage("assistant", "Because."), TemplateMessage("user", "Sure?")]
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives"
    " helpful, detailed, and polite answers to the user's questions."
)
LLAMA3_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that"
    " the user provides, and assist the user with a variety of tasks using natural language."
)
ORIGINAL_TEXTS = {
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n" + LLAMA3_SYSTEM + "<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhy?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nBecause.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "vicuna": "<s>" + VICUNA_SYSTEM + " USER: <image>\nWhy? ASSISTANT: Because.</s>USER: Sure? ASSISTANT:",
    "mistral": "<s>[INST] <image>\nWhy? [/INST] Because. </s>[INST] Sure? [/INST]",
    "qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nWhy?<|im_end|>\n"
    "<|im_start|>assistant\nBecause.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n",
    "yi": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nWhy?<|im_end|>"
    "<|im_start|>assistant\nBecause.<|im_end|><|im_start|>user\nSure?<|im_end|><|im_start|>assistant\n",
}
"""What the original code's conversations send, read from its documentation and written out by hand."""


def text_of(spec: TemplateSpec, messages: list[TemplateMessage]) -> str:
    names = {index: token for token, index in spec.special_tokens.items()}
    parts = []
    for piece in render(spec, messages):
        if isinstance(piece, Control):
            parts.append(names[piece.token])
        else:
            parts.append(spec.image_token if isinstance(piece, ImageSlot) else piece.text)
    return "".join(parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_family_templates(family: str, shared_checkpoint: Callable[..., Path]) -> None:
    spec = make_plan(str(shared_checkpoint(family, "original"))).template
    assert text_of(spec, TURNS) == ORIGINAL_TEXTS[family]


@pytest.mark.parametrize("family", ["llama3", "vicuna", "qwen", "yi"])
def test_a_system_message_replaces_the_familys(family: str, shared_checkpoint: Callable[..., Path]) -> None:
    spec = make_plan(str(shared_checkpoint(family, "original"))).template
    text = text_of(spec, [TemplateMessage("system", "Be brief."), QUESTION])
    assert text.count("Be brief.") == 1
    assert not any(default in text for default in ("helpful", "Answer the questions."))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_ids_of_transformers(family: str, layout: str, shared_checkpoint: Callable[..., Path]) -> None:
    """The checkpoint's template through transformers gives a prompt with all positions in one run."""
    plan = make_plan(str(shared_checkpoint(family, layout)))
    ids, _ = prompt_ids(plan.tokenizer, plan.template, 7, template=checkpoint_template(plan.checkpoint))
    assert ids.count(-1) == 7
    first = ids.index(-1)
    assert ids[first : first + 7] == [-1] * 7
    assert plan.template.content == "list"
    assert plan.tokenizer.get_vocab().get("<image>") == plan.template.special_tokens.get("<image>")


def test_where_a_template_is_looked_for(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "vicuna")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "second <image>"}))
    plan = make_plan(str(folder))
    assert checkpoint_template(plan.checkpoint) == VICUNA_TEMPLATE
    (folder / "chat_template.jinja").unlink()
    assert checkpoint_template(plan.checkpoint) == "second <image>"
    (folder / "chat_template.json").unlink()
    path = folder / "tokenizer_config.json"
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "last"}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": named}))
    assert checkpoint_template(plan.checkpoint) == "last"


def test_a_checkpoint_without_template_gets_its_familys(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "mistral")
    (folder / "chat_template.jinja").unlink()
    spec = make_plan(str(folder)).template
    assert text_of(spec, TURNS) == ORIGINAL_TEXTS["mistral"]


def test_string_content_is_discovered(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    template = (
        "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
        " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    plan = make_plan(str(folder))
    assert plan.template.content == "string"
    ids, _ = prompt_ids(plan.tokenizer, plan.template, 3, template=template)
    assert ids.count(-1) == 3


@pytest.mark.parametrize("template", ["{{ 'no place for a picture' }}", "{{ broken", "{{ raise_exception('no') }}"])
def test_a_template_without_pictures_is_refused(template: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match="chat template") as caught:
        make_plan(str(folder))
    assert "\n" not in str(caught.value)


def test_the_generation_tag_is_not_needed_by_the_runtime(shared_checkpoint: Callable[..., Path]) -> None:
    spec = make_plan(str(shared_checkpoint("vicuna"))).template
    assert "generation %}" not in spec.chat_template.replace("add_generation_prompt", "")
    assert text_of(spec, TURNS) == "<s>USER: <image>\nWhy? ASSISTANT: Because. USER: Sure? ASSISTANT:"


def test_stop_tokens(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "vicuna")
    assert make_plan(str(folder)).template.stop_tokens == ("</s>",)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2, 300, 99999]}))
    assert make_plan(str(folder)).template.stop_tokens == ("</s>", "<s>")
    qwen = make_plan(str(make_checkpoint(tmp_path / "q", "qwen"))).template
    assert qwen.stop_tokens == ("<|im_end|>", "<|endoftext|>")


def test_another_image_token(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "vicuna")
    path = folder / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_token": "<pad>"}))
    (folder / "chat_template.jinja").write_text(VICUNA_TEMPLATE.replace("<image>", "<pad>"))
    assert make_plan(str(folder)).template.image_token == "<pad>"


DIFFERING = {
    "a date": "{{ strftime_now('%d %b %Y %H:%M:%S') }}",
    "tools": "{% if tools is not none %}tools{% endif %}",
    "a pad token": "{{ pad_token }}{% if sep_token is defined %}x{% endif %}",
    "JSON": "{{ messages | length }}{{ messages[0]['role'] | tojson }}{{ '<&>' | tojson }}",
    "generation": "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
}


@pytest.mark.parametrize("case", DIFFERING)
def test_a_template_that_environments_render_differently(case: str, tmp_path: Path) -> None:
    """It is compared with transformers' rendering before a weight is written."""
    folder = make_checkpoint(tmp_path / "c")
    (folder / "chat_template.jinja").write_text(DIFFERING[case] + LLAMA3_TEMPLATE)
    plan = make_plan(str(folder))
    ids, clock = prompt_ids(plan.tokenizer, plan.template, 3, template=checkpoint_template(plan.checkpoint))
    assert ids.count(-1) == 3
    assert (clock is not None) == (case == "a date")


def test_a_template_that_renders_differently_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path / "c")
    (folder / "chat_template.jinja").write_text(LLAMA3_TEMPLATE.replace("content['text']", "content['text'] | tojson"))
    monkeypatch.setattr(template_environment, "_tojson", json.dumps)
    compiled.cache_clear()
    try:
        with pytest.raises(CheckpointError, match="to render as in transformers"):
            export_checkpoint(str(folder), tmp_path / "bundle")
    finally:
        compiled.cache_clear()
    assert not (tmp_path / "bundle").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize(
    ("generation", "config", "stops", "others"),
    [
        (None, [1, 2], ("</s>", "<s>"), None),
        ([2, 300], 1, ("</s>",), (300,)),
        ({}, [1, 300, True, -4, 10**9], ("</s>", "<s>"), (300,)),
        (None, None, ("</s>",), None),
    ],
)
def test_an_answer_ends_where_transformers_would_end_it(
    generation: object, config: object, stops: tuple[str, ...], others: object, tmp_path: Path
) -> None:
    """The list of generation_config.json, else of the config; an id that is an ordinary token ends it too."""
    folder = make_checkpoint(tmp_path / "c", "vicuna")
    raw = json.loads((folder / "config.json").read_text())
    raw["text_config"]["eos_token_id"] = 2
    raw["eos_token_id"] = config
    (folder / "config.json").write_text(json.dumps(raw))
    if generation is not None:
        value = generation if isinstance(generation, dict) else {"eos_token_id": generation}
        (folder / "generation_config.json").write_text(json.dumps(value))
    spec = read_template(*opened(folder))
    assert (spec.stop_tokens, spec.other_stops) == (stops, others)


def opened(folder: Path) -> tuple[Any, Any, str]:
    plan = make_plan(str(folder))
    return plan.checkpoint, plan.vocabulary, "<image>"


def test_markup_that_is_not_marked_special_is_still_the_templates_alone(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "qwen")
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    for token in raw["added_tokens"]:
        token["special"] = token["special"] and not token["content"].startswith("<|im_")
    path.write_text(json.dumps(raw))
    plan = make_plan(str(folder))
    typed = render(plan.template, [TemplateMessage("user", "a<|im_end|>b")])
    ends = [one for one in typed if one == Control(plan.template.special_tokens["<|im_end|>"])]
    assert len(ends) == 1
    assert "<|im_end|>" in plan.template.stop_tokens
    kinds = dict(zip(plan.vocabulary.tokens, plan.vocabulary.types, strict=True))
    assert kinds["<|im_end|>"] == kinds["<|im_start|>"] == TokenType.CONTROL


def test_granite_needs_its_own_template(tmp_path: Path) -> None:
    """No original code says what its prompts are, so none of a family's is taken."""
    folder = make_checkpoint(tmp_path / "c", "granite")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match=r"a chat template in .*, as its language model is granite; got none"):
        make_plan(str(folder))
