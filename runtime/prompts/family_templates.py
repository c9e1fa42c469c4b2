"""Chat templates by family, for checkpoints that carry none, in jinja with list content.

Each renders what the original LLaVA-NeXT code sends to the model: its conversations ``llava_llama_3``,
``qwen_1_5``, ``vicuna_v1``, ``mistral_instruct`` and ``chatml_direct``. The first message may be a
system message and then replaces the family's own system text.
"""

from __future__ import annotations

from typing import Literal

IMAGE_TOKEN = "<image>"
"""What stands for a picture in these templates."""
OWN_TEMPLATE = ("granite",)
"""Language models of which no original code sets the prompts: a checkpoint has its own template, or none is known."""
Family = Literal["llama3", "vicuna", "mistral", "chatml", "chatml-yi"]

_TEXT = "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
_PICTURES_AND_TEXT = (
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}" + _TEXT
)


def _with_default_system(turn: str, system: str, opening: str) -> str:
    """A template of equal turns, beginning with ``system`` where the messages bring none."""
    return (
        "{% if messages[0]['role'] != 'system' %}"
        + turn.replace("{{ role }}", "system").replace("{{ content }}", system)
        + "{% endif %}{% for message in messages %}"
        + turn.replace("{{ role }}", "{{ message['role'] }}").replace("{{ content }}", _PICTURES_AND_TEXT)
        + "{% endfor %}{% if add_generation_prompt %}"
        + opening
        + "{% endif %}"
    )


_LLAMA3 = "{{ '<|begin_of_text|>' }}" + _with_default_system(
    "<|start_header_id|>{{ role }}<|end_header_id|>{{ '\\n\\n' }}{{ content }}<|eot_id|>",
    "You are a helpful language and vision assistant. You are able to understand the visual content that"
    " the user provides, and assist the user with a variety of tasks using natural language.",
    "<|start_header_id|>assistant<|end_header_id|>{{ '\\n\\n' }}",
)
_CHATML = _with_default_system(
    "<|im_start|>{{ role }}{{ '\\n' }}{{ content }}<|im_end|>{{ '\\n' }}",
    "You are a helpful assistant.",
    "<|im_start|>assistant{{ '\\n' }}",
)
_CHATML_YI = _with_default_system(
    "<|im_start|>{{ role }}{{ '\\n' }}{{ content }}<|im_end|>",
    "Answer the questions.",
    "<|im_start|>assistant{{ '\\n' }}",
)
_VICUNA = (
    "{% if messages[0]['role'] != 'system' %}"
    '{{ "A chat between a curious user and an artificial intelligence assistant. The assistant gives'
    " helpful, detailed, and polite answers to the user's questions. \" }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}" + _TEXT + "{{ ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' }}" + _PICTURES_AND_TEXT + "{{ ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' }}" + _TEXT + "{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
_MISTRAL = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '<<SYS>>\\n' }}" + _TEXT + "{{ '\\n<</SYS>>\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '[INST] ' }}" + _PICTURES_AND_TEXT + "{{ ' [/INST]' }}"
    "{% else %}{{ ' ' }}" + _TEXT + "{{ ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
TEMPLATES: dict[str, str] = {
    "llama3": _LLAMA3,
    "vicuna": _VICUNA,
    "mistral": _MISTRAL,
    "chatml": _CHATML,
    "chatml-yi": _CHATML_YI,
}


def family_of(model_type: str, control: dict[str, int]) -> Family:
    """Tell the family by the language model's type and the tokenizer's control tokens."""
    if "<|start_header_id|>" in control:
        return "llama3"
    if "<|im_start|>" in control or model_type == "qwen2":
        return "chatml" if model_type == "qwen2" else "chatml-yi"
    return "mistral" if model_type == "mistral" else "vicuna"
