"""The export's own check that llama.cpp gives the reference's ids, on text of many kinds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...runtime.errors import CheckpointError
from ...runtime.language.vocabulary import open_vocabulary
from ...runtime.prompts.segments import TextSegment, Tokenize, build_segments
from ...runtime.prompts.template import Plain
from ...runtime.prompts.template_spec import TemplateSpec

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


def check_tokenizer(gguf: Path, tokenizer: Any, spec: TemplateSpec) -> None:
    """Compare llama.cpp's ids on ``BATTERY`` with the reference's.

    Raises :class:`CheckpointError` that shows the first string on which they differ, and
    NativeError where llama.cpp loads no vocabulary from ``gguf``.
    """
    with open_vocabulary(gguf) as tokenize:
        for text, expected, got in differences(tokenize, tokenizer, spec, BATTERY):
            raise CheckpointError(
                expected=f"llama.cpp to tokenize {text!r} as {expected}",
                got=str(got),
                fix="report this tokenizer; its GGUF would answer worse than the reference",
            )


def differences(
    tokenize: Tokenize,
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
