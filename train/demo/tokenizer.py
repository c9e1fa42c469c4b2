"""The demo's tokenizer and chat template: Llama-3's in every rule, with a vocabulary learnt from the demo's own text.

The pre-tokenizer is Llama-3's exact expression, so llama.cpp's ``llama-bpe`` applies. All 256 bytes are in the
alphabet, so any text can be encoded. The words on signs and the numbers in tables are kept out of the text: they are
spelt out character by character, which a small model learns from far fewer pictures than one token a word (of 90
numbers with a token each it had not learnt to read one when it read most signs).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from .pictures import Scene, sample_scene
from .questions import ask, ask_for_description

BEGIN = "<|begin_of_text|>"
END = "<|end_of_text|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
END_OF_TURN = "<|eot_id|>"
IMAGE = "<image>"
SPECIAL_TOKENS = (BEGIN, END, START_HEADER, END_HEADER, END_OF_TURN, IMAGE)

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""The ``Split`` expression of Llama-3's tokenizer.json."""

CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{%- if message['content'] is string %}{{- message['content'] | trim }}"
    "{%- else %}{%- for part in message['content'] %}"
    "{%- if part['type'] == 'image' %}{{- '<image>\n' }}"
    "{%- elif part['type'] == 'text' %}{{- part['text'] | trim }}"
    "{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)


def train_tokenizer(
    vocabulary: int, *, positions: int, seed: int = 0, scenes: int = 4000, more_text: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """A tokenizer of at most ``vocabulary`` tokens, special tokens included. ``more_text`` is learnt from as well."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.chain(_text(seed, scenes), more_text), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN}:1 $B:1",
        special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END_OF_TURN,
        pad_token=END,
        extra_special_tokens={"image_token": IMAGE},
        chat_template=CHAT_TEMPLATE,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )


def _text(seed: int, scenes: int) -> Iterator[str]:
    """What the vocabulary is learnt from: roles, questions, and the answers that are not read from signs."""
    random = np.random.default_rng([seed, 0x70])
    for _ in range(scenes):
        yield "system\n\nuser\n\nassistant\n\n\n"
        scene = sample_scene(random)
        for turn in [*ask(scene, random), ask_for_description(_without_text(scene), random)]:
            yield turn.question
            if turn.type not in ("read", "table"):
                yield turn.answer


def _without_text(scene: Scene) -> Scene:
    """The scene with nothing to read: its sign is blank and its table has days alone."""
    signs = tuple(dataclasses.replace(sign, text="") for sign in scene.signs)
    tables = tuple(dataclasses.replace(table, rows=tuple((day, "") for day, _ in table.rows)) for table in scene.tables)
    return dataclasses.replace(scene, signs=signs, tables=tables)
