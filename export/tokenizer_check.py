"""The export's own check that llama.cpp gives the reference's ids, on text of many kinds."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib

from ..runtime.errors import CheckpointError, NativeError
from ..runtime.manifest import TemplateSpec
from ..runtime.segments import TextSegment, build_segments
from ..runtime.template import Plain

BATTERY = (
    "What is in this picture?",
    " leading space,  two  spaces, trailing ",
    "   \n\n\t tabs\tand\r\nlines   \n\n\n end",
    "I'm, you're, he'll, THEY'VE, it's; don't — won't…",
    "def area(r: float) -> float:\n\treturn 3.14159 * r ** 2  # πr²\n",
    "0 12 345 6789 12345678901 1.5e-3 2026-11-22 $9.99 50%",
    "Größe, façade, Œuvre, żółć, İstanbul, straße",
    "Ελληνικά και Кириллица, Հայերեն, ქართული",
    "שלום עולם، مرحبا بالعالم، नमस्ते दुनिया, สวัสดีชาวโลก",
    "你好，世界。こんにちは、世界！안녕하세요 세계",
    "😀👍🏽👩‍👩‍👧‍👦🇫🇷🎉 ❤️ ✨",
    '<b>x</b> {"a": [1, 2]} && || != <= ``` https://example.org/a?b=c#d',
    "\u00a0no-break\u2003em\u200bzero\ufeff",
    "decomposed: e\u0301 a\u0308 \u1112\u1161\u11ab",
    "a" * 70 + " " * 20 + "=" * 40,
)
"""Strings every exported tokenizer is compared on."""


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _silent(level: int, text: bytes, user_data: Any) -> None:
    """llama.cpp would write its loading log to stderr."""


def check_tokenizer(gguf: Path, tokenizer: Any, spec: TemplateSpec) -> None:
    """Compare llama.cpp's ids on ``BATTERY`` with the reference's.

    Raises :class:`CheckpointError` that shows the first string on which they differ.
    """
    with open_vocabulary(gguf) as tokenize:
        for text, expected, got in differences(tokenize, tokenizer, spec, BATTERY):
            raise CheckpointError(
                expected=f"llama.cpp to tokenize {text!r} as {expected}",
                got=str(got),
                fix="report this tokenizer; its GGUF would answer worse than the reference",
            )


def differences(
    tokenize: Callable[[str], list[int]],
    tokenizer: Any,
    spec: TemplateSpec,
    texts: Iterable[str],
) -> Iterator[tuple[str, list[int], list[int]]]:
    """Yield each text whose ids differ: (text, the reference's ids, llama.cpp's ids)."""
    for text in texts:
        expected = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        segments = build_segments([Plain(text)], (), spec=spec, tokenize=tokenize)
        got = [token for one in segments if isinstance(one, TextSegment) for token in one.tokens]
        if got != expected:
            yield text, expected, got


@contextmanager
def open_vocabulary(gguf: Path) -> Iterator[Callable[[str], list[int]]]:
    """Load only the vocabulary of ``gguf`` into llama.cpp and give its tokenizer.

    Plain text only: no BOS, no control tokens, no leading space. Raises :class:`NativeError`.
    """
    lib.llama_log_set(_silent, None)
    lib.llama_backend_init()
    parameters = lib.llama_model_default_params()
    parameters.vocab_only = True
    overrides = (lib.llama_model_kv_override * 2)()  # the second, empty one ends the list
    overrides[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL
    overrides[0].key = b"tokenizer.ggml.add_space_prefix"
    overrides[0].value.val_bool = False
    parameters.kv_overrides = overrides
    model = lib.llama_model_load_from_file(str(gguf).encode(), parameters)
    if not model:
        raise NativeError(expected=f"a vocabulary in {gguf}", got="none that llama.cpp loads", fix="export again")
    vocabulary = lib.llama_model_get_vocab(model)

    def tokenize(text: str) -> list[int]:
        raw = text.encode("utf-8")
        ids = (ctypes.c_int32 * (len(raw) + 8))()
        count = lib.llama_tokenize(vocabulary, raw, len(raw), ids, len(ids), False, False)
        return list(ids[:count])

    try:
        yield tokenize
    finally:
        lib.llama_model_free(model)
