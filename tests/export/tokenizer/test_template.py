"""Chat templates: the checkpoint's own or its family's, told from its files and checked by rendering."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from llava_edge.export.pipeline import make_plan
from llava_edge.export.tokenizer.template import checkpoint_template
from llava_edge.export.verification.reference import prompt_ids
from llava_edge.runtime.errors import CheckpointError
from llava_edge.runtime.prompts.template import Control, ImageSlot, TemplateMessage, render
from llava_edge.runtime.prompts.template_spec import TemplateSpec
from support.checkpoints import FAMILIES, LAYOUTS, VICUNA_TEMPLATE, make_checkpoint

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
    ids = prompt_ids(plan.tokenizer, plan.template, 7, template=checkpoint_template(plan.checkpoint))
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
    ids = prompt_ids(plan.tokenizer, plan.template, 3, template=template)
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
