"""Answers held to a form: whatever a model would say, what ends by itself is of the form, by jsonschema and ``re``."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from llava_edge.runtime import GenerationOptions, LoadOptions, Model, load
from llava_edge.runtime.errors import MissingExtraError, OptionError
from llava_edge.runtime.language import constraint as module
from llava_edge.runtime.language.llm import Llm

FAMILIES = ("llama3", "qwen", "vicuna", "mistral", "yi")
"""Byte-level BPE with and without a first token, and SentencePiece with byte fallback in three ways."""
WILD: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def closed(**properties: Any) -> dict[str, Any]:
    """An object with just these properties, all of them required."""
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def text(longest: int, **more: Any) -> dict[str, Any]:
    return {"type": "string", "maxLength": longest, **more}


TREE = {
    "$defs": {"leaf": closed(n={"type": "integer", "minimum": 0, "maximum": 9}), "pair": {"$ref": "#/$defs/both"}},
    "properties": {"left": {"$ref": "#/$defs/leaf"}, "right": {"$ref": "#/$defs/leaf"}},
    "type": "object",
    "required": ["left", "right"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "nothing": {"type": "null"},
    "yes or no": {"type": "boolean"},
    "one of": {"enum": ["red", "green", 3, None, [1, 2], {"a": True}]},
    "just this": {"const": {"say": 'a "b" \\ \n é'}},
    "small whole": {"type": "integer", "minimum": -5, "maximum": 500},
    "above and below": {"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 12},
    "share": {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25},
    "steps of seven": {"type": "integer", "minimum": 0, "maximum": 999, "multipleOf": 7},
    "short text": text(12),
    "text of a length": text(6, minLength=4),
    "a pattern": {"type": "string", "pattern": "^[A-Z][a-z]{1,5}-[0-9]{2}$"},
    "a pattern inside": text(12, pattern="[0-9]x"),
    "a day": {"type": "string", "format": "date"},
    "a moment": {"type": "string", "pattern": "^[0-2][0-9]:[0-5][0-9]$"},
    "short list": {"type": "array", "items": {"type": "boolean"}, "maxItems": 4},
    "box": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 4, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [{"enum": ["x", "y"]}, {"type": "null"}], "items": False, "minItems": 2},
    "lists of lists": {"type": "array", "maxItems": 2, "items": {"type": "array", "maxItems": 2, "items": text(3)}},
    "person": closed(name=text(10), age={"type": "integer", "minimum": 0, "maximum": 130}),
    "optional": {**closed(a={"type": "null"}, b={"type": "boolean"}, c={"enum": [1]}), "required": ["b"]},
    "nested": closed(outer=closed(inner=closed(x={"enum": ["deep"]}, y={"type": "boolean"}))),
    "either": {"anyOf": [closed(kind={"const": "cat"}), closed(kind={"const": "dog"}, legs={"enum": [3, 4]})]},
    "exactly one": {"oneOf": [{"type": "null"}, text(4), {"type": "integer", "minimum": 0, "maximum": 9}]},
    "all of": {"allOf": [{"type": "integer", "minimum": 10}, {"maximum": 40}, {"multipleOf": 10}]},
    "references": TREE,
    "two types": {"type": ["boolean", "null"]},
    "named by a pattern": {
        "type": "object", "patternProperties": {"^k[0-3]$": {"type": "boolean"}}, "additionalProperties": False,
        "minProperties": 1, "maxProperties": 2,
    },
    "one more than is named": {
        "type": "object", "patternProperties": {"^k[0-3]$": {"type": "null"}}, "additionalProperties": False,
        "required": ["k1"], "minProperties": 2, "maxProperties": 2,
    },
    "odd names": closed(**{'a "quoted" name': {"type": "null"}, "größe": {"enum": [1]}, "": {"enum": ["é😀"]}}),
}  # fmt: skip


@pytest.fixture(scope="module")
def demo() -> Iterator[Model]:
    with load() as model:
        yield model


def valid(said: str, schema: dict[str, Any]) -> bool:
    validator: Any = jsonschema.Draft202012Validator
    validator.check_schema(schema)
    return bool(validator(schema).is_valid(json.loads(said)))


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_answer_that_ends_by_itself_validates(name: str, demo: Model) -> None:
    schema = SCHEMAS[name]
    draws: list[dict[str, Any]] = [{"temperature": 0.0}, *({**WILD, "seed": seed} for seed in range(4))]
    for draw in draws:
        answer = demo.ask("What is it?", max_tokens=400, schema=schema, **draw)
        assert answer.finish_reason == "stop", answer.text
        assert valid(answer.text, schema), answer.text


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_vocabulary(family: str, exported: Any) -> None:
    """Untrained models say anything: whatever a vocabulary has is drawn."""
    with load(exported(family)[1]) as model:
        for seed, (name, schema) in enumerate(SCHEMAS.items()):
            answer = model.ask("What is it?", max_tokens=300, schema=schema, seed=seed, **WILD)
            assert answer.finish_reason == "stop", (name, answer.text)
            assert valid(answer.text, schema), (name, answer.text)
            assert answer.text == answer.text.strip()


@pytest.mark.slow
def test_blanks_are_few(exported: Any) -> None:
    """One behind a comma or a colon at most, so that no model goes on in blanks until it is cut off."""
    with load(exported()[1]) as model:
        for seed in range(20):
            said = model.ask("What?", schema=SCHEMAS["box"], seed=seed, **WILD).text
            assert re.fullmatch(r"\[[0-9]+(, ?[0-9]+){3}\]", said)


REGEXES = [
    "(red|green|blue) [0-9]{1,3}",
    "a?b*c",
    "[^a-z]{0,4}!",
    "x{3,5}(é|😀)",
    "[ ]?b",
    "-?[1-9][0-9]{0,3}(,[0-9])?",
]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama3", "vicuna"])
def test_a_regular_expression_and_a_grammar_hold_the_whole_answer(family: str, exported: Any) -> None:
    with load(exported(family)[1]) as model:
        for seed, regex in enumerate(REGEXES * 3):
            answer = model.ask("What?", regex=regex, seed=seed, max_tokens=80, **WILD)
            assert answer.finish_reason == "length" or re.fullmatch(regex, answer.text), (regex, answer.text)
        grammar = 'start: "<" word ("," word)~0..2 ">"\nword: "ab" | "c"'
        for seed in range(6):
            said = model.ask("What?", grammar=grammar, seed=seed, **WILD).text
            assert re.fullmatch("<(ab|c)(,(ab|c)){0,2}>", said), said


FEW = [f"{colour} {number}" for colour in ("red", "green", "blue") for number in range(10, 30)]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_what_may_come_is_what_the_form_goes_on_with(family: str, exported: Any) -> None:
    """Against every token's bytes, in a language of sixty words that can be listed."""
    with load(exported(family)[1]) as model:
        llm: Any = model.engine.llm
        llm.check(options := GenerationOptions(regex="(red|green|blue) [12][0-9]"))
        for begun in (b"", b"re", b"blue", b"green 1"):
            held = llm._constraint(options)
            logits = np.zeros(llm.vocab_size, np.float32)
            for byte in begun:
                token = next(t for t in range(llm.vocab_size) if llm.piece(t) == bytes([byte]))
                assert held._matcher.consume_token(token)
                held._first = False
            held.restrict(logits)
            expected = set()
            for token in range(llm.vocab_size):
                piece = llm.piece(token, first=not begun)
                continues = any(word.encode().startswith(begun + piece) for word in FEW)
                # nothing but a space in front of the answer is no text, so it may come first
                is_text = piece or (not begun and llm.piece(token) == b" ")
                if is_text and continues and not llm.is_end(token):
                    expected.add(token)
            allowed = set(np.flatnonzero(logits == 0))
            assert allowed <= expected
            assert (np.delete(logits, list(allowed)) == -np.inf).all()
            # a text that is certain to come is left to the tokenizer: a byte's own token gives way to the letter's
            assert {llm.piece(token) for token in allowed} == {llm.piece(token) for token in expected}
            assert allowed == expected or begun in (b"re", b"blue")


@pytest.mark.slow
def test_a_word_that_is_a_token_only_with_its_space_may_begin_an_answer(exported: Any) -> None:
    """SentencePiece has "▁The" and may have no "The"; a plain mask would push the model off its way."""
    with load(exported("vicuna")[1]) as model:
        llm: Any = model.engine.llm
        pieces = {llm.piece(token) for token in range(llm.vocab_size)}
        alone = [t for t in range(llm.vocab_size) if (p := llm.piece(t)).startswith(b" ") and p[1:] not in pieces]
        assert alone
        for token in alone[:20]:
            word = llm.piece(token)[1:].decode()
            held = module.Constraints(llm, llm._vocab).constraint(GenerationOptions(regex=f"({word}|xq)z").form)  # type: ignore[arg-type]
            logits = np.zeros(llm.vocab_size, np.float32)
            held.restrict(logits)
            assert logits[token] == 0
            held.accept(token, logits)
            logits[:] = 0
            held.restrict(logits)
            assert {llm.piece(one) for one in np.flatnonzero(logits > -1)} == {b"z"}


class Drawn:
    """One sampler's tokens over a context of its own."""

    def __init__(self, path: Path, options: GenerationOptions, *, stop_tokens: tuple[int, ...] = ()) -> None:
        llm = Llm(path, options=LoadOptions(), stop_tokens=stop_tokens)
        llm.ensure_context(256)
        llm.decode_tokens([1], 0, logits=True)
        sampler = llm.sampler(options, seed=3, recent=[])
        self.text = b""
        for position in range(200):
            token = sampler.sample()
            if llm.is_end(token):
                break
            self.text += llm.piece(token)
            llm.decode_tokens([token], position + 1, logits=True)
        else:
            raise AssertionError("no end")
        sampler.close()
        llm.close()


def test_stop_tokens_end_only_what_is_complete(tiny_bundle: Path) -> None:
    """Also where one is a token with text, which is then no text any more."""
    llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions())
    letters = {llm.piece(token): token for token in range(llm.vocab_size)}
    llm.close()
    options = GenerationOptions(regex="[abc]{60}[0-9]", **WILD)
    for stop in (b"a", b"c", b"7"):
        said = Drawn(tiny_bundle / "llm.gguf", options, stop_tokens=(letters[stop],)).text
        assert re.fullmatch(rb"[abc]{60}[0-9]", said)


def test_a_draw_of_no_probability_gives_way_to_the_likeliest(demo: Model) -> None:
    llm: Any = demo.engine.llm
    held = llm._constraint(GenerationOptions(regex="a|b"))
    logits = np.zeros(llm.vocab_size, np.float32)
    a, b = (next(t for t in range(llm.vocab_size) if llm.piece(t) == one) for one in (b"a", b"b"))
    logits[b] = 1.0
    held.restrict(logits)
    outside = next(t for t in range(llm.vocab_size) if t not in (a, b))
    assert held.accept(outside, logits) == b


@pytest.mark.parametrize("longest", [1, 5, 17])
def test_cut_off_is_said_and_is_a_beginning(longest: int, demo: Model) -> None:
    whole = demo.ask("What is it?", schema=SCHEMAS["nested"])
    cut = demo.ask("What is it?", schema=SCHEMAS["nested"], max_tokens=longest)
    assert (cut.finish_reason, len(cut.tokens)) == ("length", longest)
    assert cut.tokens == whole.tokens[:longest]
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut.text)


def count_calls(after: int) -> Callable[[], bool]:
    calls = iter([False] * after)
    return lambda: next(calls, True)


def test_without_a_form_nothing_changes(demo: Model) -> None:
    """Before, after, and behind a cancelled answer with one: tokens and logits, bit for bit."""
    question: dict[str, Any] = {"question": "How many shapes are there?", "seed": 5, "temperature": 1.0}
    before = demo.ask(**question)
    logits = demo.engine.llm.logits()
    cancelled = demo.chat().generate("How many?", schema=SCHEMAS["person"], cancelled=count_calls(6))
    assert cancelled.finish_reason == "cancel"
    assert cancelled.text
    again = demo.ask(**question)
    assert again.tokens == before.tokens
    assert np.array_equal(demo.engine.llm.logits(), logits)
    with load() as fresh:
        assert fresh.ask(**question).tokens == before.tokens


def test_a_conversation_goes_on_behind_one(demo: Model) -> None:
    chat = demo.chat()
    first = chat.generate("What is it?", schema=SCHEMAS["person"])
    assert chat.turns[-1].message.text == first.text
    second = chat.generate("And the colour?", regex="red|blue")
    assert second.text in ("red", "blue")
    assert second.cached_tokens >= first.prompt_tokens - 2


@pytest.mark.slow
def test_isolated_is_token_for_token_the_same(demo: Model) -> None:
    with load(isolate=True) as isolated:
        for seed, name in enumerate(("person", "either", "box")):
            draw = {**WILD, "seed": seed, "schema": SCHEMAS[name]}
            assert isolated.ask("What is it?", **draw).tokens == demo.ask("What is it?", **draw).tokens
        with pytest.raises(OptionError, match="uniqueItems"):
            isolated.ask("What is it?", schema={"type": "array", "uniqueItems": True})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{
        key: ({"schema": {"type": kind, key: value}}, f'Unimplemented keys: .*"{re.escape(key)}"')
        for kind, key, value in (
            ("array", "uniqueItems", True),
            ("array", "contains", {}),
            ("array", "unevaluatedItems", False),
            ("object", "propertyNames", {}),
            ("object", "dependentRequired", {}),
            ("object", "dependentSchemas", {}),
            ("object", "unevaluatedProperties", False),
            ("string", "not", {"const": "a"}),
            ("string", "if", {}),
            ("string", "$dynamicRef", "#a"),
        )
    },
    "hidden lenience": ({"schema": {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}}, "unique"),
    "deep inside": ({"schema": {"properties": {"a": {"items": {"not": {}}}}}}, '"not"'),
    "another file": ({"schema": {"$ref": "https://example.org/a.json"}}, "https://example.org/a.json"),
    "nowhere": ({"schema": {"$ref": "#/$defs/a"}}, r"Pointer '/\$defs/a' does not exist"),
    "itself alone": ({"schema": {"$ref": "#"}}, "nothing can begin it"),
    "no such type": ({"schema": {"type": "text"}}, "Invalid type: text"),
    "no such format": ({"schema": {"type": "string", "format": "colour"}}, "Unknown format: colour"),
    "looking ahead": ({"schema": {"type": "string", "pattern": "(?=a)b"}}, "look-ahead"),
    "two at once": ({"schema": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "oneOf"),
    "nothing fits": ({"schema": {"type": "integer", "minimum": 5, "maximum": 2}}, "Unsatisfiable"),
    "an open bracket": ({"regex": "[a-"}, "invalid regex"),
    "looking back": ({"regex": "(?<=a)b"}, "look-behind"),
    "no grammar": ({"grammar": "hello"}, "Expected token ':'"),
    "a missing rule": ({"grammar": "start: nope"}, 'unknown name: "nope"'),
    "a missing token": ({"grammar": "start: <|nope|>"}, "unknown special token"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_held_is_refused_before_any_work(
    name: str, demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr(demo.engine.pictures.tower, "encode", never)
    monkeypatch.setattr(demo.engine.llm, "decode_tokens", never)
    given, said = REFUSED[name]
    chat = demo.chat()
    with pytest.raises(OptionError, match=said) as caught:
        chat.generate("What is it?", images=["examples/sign.png"], **given)
    assert chat.turns == ()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450


def test_without_its_package_it_is_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with load() as model:
        with pytest.raises(MissingExtraError, match=r"llguidance.*llava-edge\[schema\]"):
            model.ask("What is it?", schema={})
        assert model.ask("What is it?", max_tokens=2).tokens


def test_an_error_on_the_way_is_never_an_end(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its error state llguidance allows end tokens: an answer would stop as if it were complete."""
    grammar = 'start: "aaaaaaaa"{1000000000}'
    with pytest.raises(OptionError, match="Too many items"):
        demo.ask("What?", grammar=grammar)
    monkeypatch.setattr(module, "LEXER_STATES", 12)
    with load() as small, pytest.raises(OptionError, match="llguidance"):
        small.ask("What?", regex="(ab|cd|ef|gh)*x[0-9]{3}.*y{20}", max_tokens=100, seed=1, **WILD)
    end = next(t for t in range(demo.engine.llm.vocab_size) if demo.engine.llm.is_end(t))
    with pytest.raises(OptionError, match="not complete"):
        demo.ask("What?", grammar=f'start: <[{end}]> "a"')


def test_the_vocabulary_is_built_once_and_a_form_compiled_once(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.ask("What?", regex="a")
    monkeypatch.setattr(module, "Constraints", None)
    compiled: list[object] = []
    stack = module._on_deep_stack
    monkeypatch.setattr(module, "_on_deep_stack", lambda work: compiled.append(work) or stack(work))
    for regex in ("b", "b", "c"):
        demo.ask("What?", regex=regex)
    assert len(compiled) == 2


def chain(size: int) -> str:
    """A Lark grammar in which every rule is the next one's."""
    names = ("".join(name) for count in (1, 2, 3, 4) for name in itertools.product("abcdefghij", repeat=count))
    rules = ["start: a"]
    length, name = 0, next(names)
    for other in names:
        rules.append(f"{name}: {other}")
        length, name = length + len(rules[-1]) + 1, other
        if length > size:
            break
    return "\n".join([*rules, f'{name}: "x"'])


def references(count: int) -> dict[str, Any]:
    steps = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(count)}
    return {"$defs": {**steps, f"d{count}": {"enum": [7]}}, "$ref": "#/$defs/d0"}


HOSTILE: dict[str, dict[str, Any]] = {
    "rules": {"grammar": chain(60_000)},
    "references": {"schema": references(7000)},
    "nested": {"schema": json.loads('{"items":' * 98 + "{}" + "}" * 98)},
    "nested patterns": {"regex": "(" * 30_000 + "a" + ")" * 30_000},
    "nested rules": {"grammar": "start: " + "(" * 30_000 + '"a"' + ")" * 30_000},
    "repeated": {"regex": "((a{1,1000}){1,1000}){1,1000}"},
    "a long list": {"schema": {"type": "array", "items": {"type": "null"}, "minItems": 10**9}},
    "a long text": {"schema": {"type": "string", "minLength": 10**9}},
    "many words": {"schema": {"enum": [f"v{index}" for index in range(20_000)]}},
    "many objects": {"schema": {"anyOf": [closed(**{f"k{index}": {"type": "null"}}) for index in range(1500)]}},
    "many properties": {"schema": closed(**{f"k{index}": {"type": "null"} for index in range(1000)})},
    "products": {
        "schema": {
            "allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {}}} for j in range(10)]} for i in range(8)],
            "type": "object",
        }
    },
    "states": {"regex": "(?:a.*b)?" * 5000},
    "a large multiple": {"schema": {"type": "integer", "multipleOf": 99_991}},
    "ambiguous": {"grammar": 'start: s\ns: s s s | s s | "a" | "b"'},
    "names": {"schema": {"type": "object", "patternProperties": {f"^a{i}.*z$": {} for i in range(30)}}},
    "patterns": {"schema": {"allOf": [{"type": "string", "pattern": "a" * (i + 1)} for i in range(12)]}},
}
PROGRAM = """
import json, re, sys, threading, time
from llava_edge.runtime import load
from llava_edge.runtime.errors import OptionError
forms, ends = json.load(sys.stdin), {}
def run():
    with load() as model:
        model.ask("What?", regex="a")
        for name, form in forms.items():
            began = time.process_time()
            try:
                end = model.ask("What?", max_tokens=30, temperature=1.5, seed=1, **form).finish_reason
            except OptionError as error:
                end = "refused"
            ends[name] = end, time.process_time() - began
threading.stack_size(2**20)  # a thread of a macOS application has half of that
thread = threading.Thread(target=run)
thread.start()
thread.join()
# ru_maxrss would begin with that of the process which started this one
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(json.dumps([ends, int(peak[1])]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak in /proc")
def test_hostile_forms_take_bounded_time_and_memory_and_kill_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(HOSTILE), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-500:]
    ends, kilobytes = json.loads(done.stdout)
    assert set(ends) == set(HOSTILE)
    assert max(seconds for _, seconds in ends.values()) < 5
    assert kilobytes < 700 * 1024
    assert {name for name, (end, _) in ends.items() if end != "refused"} >= {"rules", "references", "many words"}
