"""Holds an answer to a form: before a token is drawn, llguidance says which may come.

What the draw sees of all others is a logit of minus infinity, so every sampler works as it does without a form,
and an end token is possible only where the form is complete.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..answer_forms import AnswerForm
from ..errors import OptionError, needing_extra
from ..ggml.importing import lib
from .vocabulary import tokenize_text

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

T = TypeVar("T")

_ADVICE = re.compile(r"\s*Enable 'coerce_one_of'[^.]*\.?")
"""What llguidance says of an option that its caller could set."""
STACK_BYTES = 256 * 2**20
"""Stack that a form is compiled on: llguidance goes down chains of rules there, and 32 KiB of Lark overflow 8 MB."""
LEXER_STATES = 50_000
"""States of a form's automaton that are kept, of 1 to 2 KB each; more are an error."""
ROW_ITEMS = 20_000
"""Ways in which an answer may go on at once: 5000 optional properties take more than llguidance's 2000."""
JSON_STYLE = {
    # unlimited blanks are where weak models go on for ever; none would be unlike what models have learnt
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    # what is not understood is an error, whatever the schema's own x-guidance says
    "lenient": False,
    "coerce_one_of": False,
}


class Pieces(Protocol):
    """What is asked of a model about its vocabulary, as :class:`llm.Llm` answers it."""

    vocab_size: int

    def piece(self, token: int, *, first: bool = False) -> bytes: ...

    def is_end(self, token: int) -> bool: ...


class Constraints:
    """Makes constraints over one model's vocabulary. Building it takes about 2 s for 152 000 tokens, so it is kept."""

    def __init__(self, model: Pieces, vocab: Any) -> None:
        """``vocab`` is llama.cpp's, and must live as long as this. Raises :class:`MissingExtraError`."""
        with needing_extra("schema"):
            from llguidance import LLTokenizer, TokenizerWrapper
        size = model.vocab_size
        self.ends = np.array([model.is_end(token) for token in range(size)])
        tokens = [model.piece(token) for token in range(size)]
        special = [token for token, text in enumerate(tokens) if self.ends[token] or not text]
        self.first_as, extra = _as_first(model, tokens, special)
        for token in special:
            tokens[token] = b"\xff" + (lib.llama_vocab_get_text(vocab, token) or b"<%d>" % token)
        table = _Table(tokens + extra, special, functools.partial(tokenize_text, vocab))
        self._tokenizer = LLTokenizer(
            TokenizerWrapper(table), eos_token=[int(token) for token in np.flatnonzero(self.ends)]
        )
        table.tokens.clear()
        self.entries = size + len(extra)
        self._latest: tuple[AnswerForm, LLMatcher] | None = None

    def constraint(self, form: AnswerForm) -> Constraint:
        """A constraint for one answer. Raises :class:`OptionError` where ``form`` can't be held."""
        if self._latest is None or self._latest[0] != form:
            self._latest = form, _on_deep_stack(functools.partial(_compiled, form, self._tokenizer))
        return Constraint(self, form, self._latest[1].deep_copy())


def check_form(form: AnswerForm) -> None:
    """Refuse a form that no model's answers can be held to; there need not be one.

    Raises :class:`OptionError`, and :class:`MissingExtraError` without llguidance.
    """
    with needing_extra("schema"):
        from llguidance import LLTokenizer
    _on_deep_stack(functools.partial(_compiled, form, LLTokenizer("byte")))


def _compiled(form: AnswerForm, tokenizer: LLTokenizer) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_items_in_row=ROW_ITEMS, max_lexer_states=LEXER_STATES, verbose_errors=False)
    try:
        if form.kind == "schema":
            grammar = LLMatcher.grammar_from_json_schema(form.text, overrides=JSON_STYLE)  # type: ignore[arg-type]
        elif form.kind == "regex":
            grammar = LLMatcher.grammar_from_regex(form.text)
        else:
            grammar = LLMatcher.grammar_from_lark(form.text)
        matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.compute_bitmask()  # a schema that refers to itself alone shows here
    except BaseException as error:
        if isinstance(error, ValueError) or type(error).__name__ == "PanicException":  # pyo3's is no Exception
            raise _refused(form, str(error)) from error
        raise
    if matcher.is_error():
        raise _refused(form, matcher.get_error())
    return matcher


class Constraint:
    """Where one answer is in its form."""

    def __init__(self, vocabulary: Constraints, form: AnswerForm, matcher: LLMatcher) -> None:
        self._vocabulary = vocabulary
        self._form = form
        self._matcher = matcher
        self._mask = np.zeros((vocabulary.entries + 31) // 32, np.uint32)
        self._allowed: npt.NDArray[np.bool_] = np.zeros(0, bool)
        self._first = True

    def restrict(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits (vocabulary,) of tokens that may not come to minus infinity, in place.

        Raises :class:`OptionError` where none may, or the form turns out too complex.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little").view(np.bool_)
        allowed = bits[: len(logits)]
        if self._first and (first_as := self._vocabulary.first_as) is not None:
            allowed = bits[first_as] | (first_as < 0)
        if not allowed.any():
            raise _refused(self._form, "no token of this model's vocabulary goes on from here")
        logits[~allowed] = -np.inf
        self._allowed = allowed

    def accept(self, token: int, logits: npt.NDArray[np.float32]) -> int:
        """Go on with ``token``, and return it.

        Rounding may make a draw fall on a token of no probability; the likeliest of the restricted ``logits`` comes
        in its place. Raises :class:`OptionError` where the form turns out too complex, or ends an answer too early.
        """
        if not self._allowed[token]:
            token = int(logits.argmax())
        if self._vocabulary.ends[token]:
            if not self._matcher.is_accepting():  # a Lark grammar can name an end token
                raise _refused(self._form, "it ends an answer that is not complete")
            return token
        entry = token
        if self._first and self._vocabulary.first_as is not None:
            entry = int(self._vocabulary.first_as[token])
        self._first = False
        if entry >= 0:
            self._matcher.consume_token(entry)
            self._check()
        return token

    def _check(self) -> None:
        """In its error state llguidance allows end tokens alone, and an answer would end as if it were complete."""
        if self._matcher.is_error():
            raise _refused(self._form, self._matcher.get_error())


class _Table:
    """A vocabulary as llguidance's ``TokenizerWrapper`` wants it. It holds no model, so no circle keeps one alive."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], special: list[int], tokenize: Callable[[str], list[int]]) -> None:
        self.tokens = tokens
        self.special_token_ids = special
        self.eos_token_id = 0  # named beside it
        self._tokenize = tokenize

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenize(text.decode())


def _as_first(
    model: Pieces, tokens: list[bytes], special: list[int]
) -> tuple[npt.NDArray[np.int64] | None, list[bytes]]:
    """What each token counts as where it is an answer's first: a SentencePiece word loses its leading space there.

    Returns entries (vocabulary,), -1 for a token that is nothing but that space, None where every token counts as
    itself; and the texts of entries beyond the vocabulary, for words that are no tokens without their space.
    """
    apart = set(special)
    first = [model.piece(token, first=True) for token in range(len(tokens))]
    if first == tokens:
        return None, []
    known = {text: token for token, text in enumerate(tokens) if token not in apart}
    extra: list[bytes] = []
    entries = np.arange(len(tokens))
    for token, text in enumerate(first):
        if text != tokens[token] and token not in apart:
            if text and text not in known:
                known[text] = len(tokens) + len(extra)
                extra.append(text)
            entries[token] = known[text] if text else -1
    return entries, extra


def _on_deep_stack(function: Callable[[], T]) -> T:
    """Call ``function`` in a thread with room for deep recursion."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    before = threading.stack_size(STACK_BYTES)
    try:
        thread = threading.Thread(target=run, name="compile a form")
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _refused(form: AnswerForm, message: str) -> OptionError:
    words = {"schema": "JSON Schema", "regex": "regular expression", "grammar": "Lark grammar"}
    said = message.replace("<non-verbose/>", "").replace("NoExtensionBias", "nothing can begin it")
    said = " ".join(_ADVICE.sub("", said).split()).rstrip(".")  # its options are not ours to set
    if len(said) > 200:
        said = f"{said[:99]} … {said[-98:]}"
    return OptionError(
        expected=f"a {words[form.kind]} that answers can be held to",
        got=f"llguidance: {said}",
        fix="change what it names (docs/json-answers.md says what is understood)",
    )
