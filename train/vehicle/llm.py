"""A language model from a GGUF file as a folder in transformers' layout.

transformers unpacks the weights. Its tokenizers it builds without looking at ``tokenizer.ggml.pre``, so the step that
splits digits is put back here, and llama.cpp's own ids of some texts say whether the result is right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.errors import CheckpointError, OptionError, first_line, needing_extra
from ...runtime.language.vocabulary import open_vocabulary
from ...runtime.system.storage import writing_folder

SINGLE_DIGITS = ("smollm", "refact", "starcoder", "command-r")
"""Names of pre-tokenizers that cut digits one by one and then as GPT-2 does."""
TEXTS = (
    "What colour is the circle?",
    " a  b   c\n\n\td\r\n",
    "0 12 345 6789 1.5e-3 2026-11-27 50%",
    "I'm, you're, HE'LL; don't — won't…",
    "def f(x: int) -> int:\n\treturn x ** 2  # πr²",
    "Größe 你好 हिन्दी 😀👍🏽",
)
"""Texts on which the ids have to be llama.cpp's."""


def write_llm(gguf: Path, destination: Path) -> None:
    """Write the model in the file ``gguf`` to the folder ``destination``, in bf16, whole or not at all.

    Raises :class:`OptionError` where transformers reads no model from the file, and :class:`CheckpointError` where its
    tokenizer gives other ids than llama.cpp's.
    """
    import torch

    with needing_extra("export"):
        import gguf as _  # noqa: F401 - transformers reads with it

    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**place)
        model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise OptionError(
            expected=f"a GGUF language model that transformers reads at {gguf}",
            got=first_line(error),
            fix="check --llm",
        ) from error
    _split_digits(tokenizer, _pre_tokenizer(gguf))
    _check_ids(tokenizer, gguf)
    with writing_folder(destination) as partial:
        _as_if_loaded_plainly(model).to(torch.bfloat16).save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def _as_if_loaded_plainly(model: Any) -> Any:
    """The same weights in a model that transformers doesn't remember as a GGUF: it would refuse to save that."""
    config = type(model.config).from_dict({**model.config.to_dict(), "quantization_config": None})
    del config.quantization_config
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    return plain


def _pre_tokenizer(path: Path) -> str:
    from gguf import GGUFReader

    field = GGUFReader(path).fields.get("tokenizer.ggml.pre")
    return "" if field is None else str(field.contents())


def _split_digits(tokenizer: Any, pre: str) -> None:
    from tokenizers import pre_tokenizers

    if pre in SINGLE_DIGITS:
        bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        steps = [pre_tokenizers.Digits(individual_digits=True), bytes_of_words]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)


def _check_ids(tokenizer: Any, path: Path) -> None:
    with open_vocabulary(path) as tokenize:
        for text in TEXTS:
            expected, got = tokenize(text), tokenizer(text, add_special_tokens=False)["input_ids"]
            if expected != got:
                raise CheckpointError(
                    expected=f"llama.cpp's ids {expected} of {text!r} from {path}",
                    got=f"{got} from transformers",
                    fix="give the model's folder in transformers' layout instead of a GGUF",
                )
