"""Tables into dataclasses: what fits is read, what does not is named with its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from llava_edge.runtime.bundle.strict_reading import StrictReader
from llava_edge.runtime.errors import BundleError, OptionError


@dataclass(frozen=True)
class Part:
    name: str
    share: float = 1.0


@dataclass(frozen=True)
class Whole:
    count: int
    kind: Literal["round", "flat"]
    size: tuple[int, float]
    parts: tuple[Part, ...]
    rates: dict[str, float]
    free: dict[str, Any]
    extra: Part | None = None


RAW: dict[str, Any] = {
    "count": 2, "kind": "flat", "size": [3, 4], "parts": [{"name": "a"}, {"name": "b", "share": 2}],
    "rates": {"x": 1}, "free": {"any": [None, {}]},
}  # fmt: skip
LENIENT = StrictReader(OptionError, "mend it", defaults=True)
STRICT = StrictReader(BundleError, "export again", defaults=False)


def test_nested_tables_are_read() -> None:
    whole = LENIENT.read(Whole, RAW, "file")
    expected = Whole(2, "flat", (3, 4.0), (Part("a"), Part("b", 2.0)), {"x": 1.0}, {"any": [None, {}]})
    assert whole == expected
    assert [type(whole.size[1]), type(whole.parts[1].share), type(whole.rates["x"])] == [float] * 3
    assert LENIENT.read(Whole, RAW | {"extra": None}, "file") == expected
    assert LENIENT.read(Whole, RAW | {"extra": {"name": "c"}}, "file").extra == Part("c")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": True}, "int at file.count; got 'True'"),
        ({"count": 2.0}, "int at file.count"),
        ({"kind": "square"}, "one of round, flat at file.kind; got 'square'"),
        ({"size": [3]}, "2 values at file.size"),
        ({"size": [3, "4"]}, "float at file.size[1]"),
        ({"size": {}}, "at file.size"),
        ({"parts": [{"name": "a"}, {"name": 1}]}, "str at file.parts[1].name; got '1'"),
        ({"parts": [{"name": "a", "nmae": "b"}]}, "only the keys name, share at file.parts[0]; got 'nmae'"),
        ({"parts": [{}]}, "the keys name at file.parts[0]"),
        ({"parts": ["a"]}, "an object at file.parts[0]"),
        ({"rates": {"x": False}}, "float at file.rates.x"),
        ({"extra": 3}, "an object at file.extra"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        LENIENT.read(Whole, RAW | change, "file")
    assert said in str(caught.value)
    assert str(caught.value).endswith("; mend it")


def test_without_defaults_only_what_may_be_none_can_be_left_out() -> None:
    whole = [{"name": "a", "share": 1.0}]
    with pytest.raises(BundleError, match=r"the keys free at file; .*; export again"):
        STRICT.read(Whole, {key: value for key, value in RAW.items() if key != "free"} | {"parts": whole}, "file")
    with pytest.raises(BundleError, match=r"the keys share at file\.parts\[0\]"):
        STRICT.read(Whole, RAW, "file")
    assert STRICT.read(Whole, RAW | {"parts": whole}, "file").extra is None
    assert STRICT.read(Whole, RAW | {"parts": whole, "extra": None}, "file").parts == (Part("a"),)
