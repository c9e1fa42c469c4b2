"""Other libraries' errors in one line, and packages that are not there."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from llava_edge.runtime import errors
from llava_edge.runtime.errors import (
    Cancelled,
    LlavaEdgeError,
    MissingExtraError,
    OptionError,
    StorageError,
    first_line,
    needing_extra,
)
from llava_edge.runtime.prompts.conversations import SampleError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\nb"), "a"),
        (ValueError("\n  a \r\nb"), "a "),
        (ValueError(""), "ValueError"),
        (KeyError(), "KeyError"),
        (RuntimeError(" \n "), "RuntimeError"),
        (ValueError("é" * 300), "é" * 200),
    ],
)
def test_first_line(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_a_missing_package_is_named_with_the_extras_that_bring_it() -> None:
    with pytest.raises(MissingExtraError) as caught, needing_extra("cpu", "cuda"):
        import no_such_package_at_all  # noqa: F401
    assert (caught.value.expected, caught.value.got) == ("the package no_such_package_at_all", "no such package")
    assert caught.value.fix.endswith('pip install "llava-edge[cpu]" or "llava-edge[cuda]"')


def test_a_broken_package_says_what_it_says() -> None:
    with pytest.raises(MissingExtraError, match=r"got libnothing\.so: cannot open; "), needing_extra("train"):
        raise ImportError("libnothing.so: cannot open\nat all", name="torch")


@pytest.mark.parametrize("error", [StorageError(expected="a", got="b", fix="c"), ValueError("a")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, needing_extra("train"):
        raise error
    assert caught.value is error


def test_a_part_that_is_missing_is_a_broken_package() -> None:
    for name in ("torch._C", "torch.utils.data"):
        with pytest.raises(MissingExtraError) as caught, needing_extra("train"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        assert caught.value.expected == "the package torch to be whole"
        assert "--force-reinstall" in caught.value.fix
    with pytest.raises(MissingExtraError, match="packages that are whole; got cannot load"), needing_extra("train"):
        raise ImportError("cannot load")


def test_a_module_of_ours_that_is_missing_is_no_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, needing_extra("train"):
        import llava_edge.runtime.nothing  # noqa: F401
    assert not isinstance(caught.value, LlavaEdgeError)


def test_an_inner_extra_is_not_named_anew() -> None:
    inner = MissingExtraError(expected="a", got="b", fix="install another")
    with pytest.raises(LlavaEdgeError) as caught, needing_extra("train"):
        raise inner
    assert caught.value is inner


class Extended(OptionError):
    """One of an application's own, whose constructor takes something else."""

    def __init__(self, number: int) -> None:
        super().__init__(expected="a", got=str(number), fix="c")
        self.number = number


def every_error() -> list[LlavaEdgeError]:
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, LlavaEdgeError)]
    found = [kind(expected="a", got="b", fix="c") for kind in kinds]
    return [*found, SampleError("s", expected="a", got="b"), Extended(7)]


def raised(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("error", [*every_error(), Cancelled("after 2 tiles")], ids=lambda error: type(error).__name__)
def test_errors_can_be_copied_and_sent(error: Exception, again: Any) -> None:
    error.add_note("in the kitchen")
    other = again(error)
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


def test_errors_cross_a_pool_of_processes() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(StorageError) as caught:
        pool.submit(raised, StorageError(expected="a", got="b", fix="c")).result()
    assert (caught.value.expected, caught.value.got, caught.value.fix) == ("a", "b", "c")
