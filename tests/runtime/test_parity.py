"""The parity record: what holds, what can be one, and what time its prompt was rendered at."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle, write_manifest
from llava_edge.runtime.errors import BundleError
from llava_edge.runtime.parity import checked, holds, measure
from llava_edge.runtime.prompts.template_environment import rendering_at
from support.command_line import run_here

RECORDED = {"tiles": 1.0, "prompt_ids": 1.0, "argmax": 1.0, "features": 1e-3, "greedy": 20.0, "greedy_expected": 20.0}


@pytest.mark.parametrize("name", ["tiles", "prompt_ids", "argmax"])
@pytest.mark.parametrize("expected", [0.0, 20.0])
def test_what_is_to_be_equal_must_be(name: str, expected: float) -> None:
    """Also where the reference's first token is nearly a tie, and so no greedy token is expected."""
    measured = {**RECORDED, "greedy_expected": expected}
    assert holds(name, RECORDED, measured)
    assert not holds(name, RECORDED, {**measured, name: 0.0})
    assert not holds(name, RECORDED, {**measured, name: float("nan")})


def test_greedy_tokens_after_a_near_tie_may_differ() -> None:
    assert holds("greedy", RECORDED, {**RECORDED, "greedy": 3.0, "greedy_expected": 3.0})
    assert not holds("greedy", RECORDED, {**RECORDED, "greedy": 2.0, "greedy_expected": 3.0})


WRONG: dict[str, dict[str, Any]] = {
    "nothing": {"pixels": None},
    "of no length": {"pixels": np.zeros(0, np.float32)},
    "of another kind": {"features": np.zeros((64, 256), np.int32)},
    "of other dimensions": {"embedding_index": np.zeros((50, 1), np.int32)},
    "of other lengths": {"margins": np.zeros(1, np.float32)},
    "a stride of 0": {"pixels_stride": np.array(0)},
    "a negative index": {"embedding_index": np.full(50, -1, np.int32)},
    "a clock of two": {"clock": np.array([2026, 1])},
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_a_record_is_refused(case: str) -> None:
    values = {**Bundle.open(demo_bundle()).parity_values(), **WRONG[case]}
    with pytest.raises(BundleError, match="a parity record in here; got none or others as"):
        checked({name: one for name, one in values.items() if one is not None}, "here")


def with_values(folder: Path, **values: Any) -> Path:
    """The demo bundle with other reference values, its hashes right."""
    shutil.copytree(demo_bundle(), folder)
    bundle = Bundle.open(folder)
    np.savez_compressed(folder / "parity.npz", **{**bundle.parity_values(), **values})
    write_manifest(folder, bundle.manifest)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"pixels": np.zeros(7, np.float32)},
        {"feature_index": np.full((64, 2), 9999, np.int32)},
        {"features": np.zeros((64, 3), np.float32)},
        {"logprobs": np.zeros(10**6, np.float32)},
        {"clock": np.array([2026, 13, 45, 0, 0, 0, 0])},
    ],
)
def test_a_record_of_another_model_is_one_line(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a parity record of this model") as caught:
        measure(with_values(tmp_path / "bundle", **values))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_prompt_with_a_date_is_compared_at_that_date(tmp_path: Path) -> None:
    """On another day the rendered text is another one; the record says on which it was taken."""
    bundle = Bundle.open(demo_bundle())
    spec = bundle.manifest.template
    dated = dataclasses.replace(spec, chat_template=spec.chat_template + "{{ strftime_now('%Y-%m-%d') }}")
    folder = with_values(tmp_path / "bundle", clock=np.array([2019, 3, 4, 5, 6, 7, 8]))
    write_manifest(folder, dataclasses.replace(bundle.manifest, template=dated))
    first = measure(folder)
    with rendering_at(datetime.datetime(2031, 1, 1)):
        second = measure(folder)
    assert first == second


@pytest.mark.slow
def test_verify_names_what_is_not_listed(tmp_path: Path) -> None:
    shutil.copytree(demo_bundle(), tmp_path / "bundle")
    (tmp_path / "bundle" / ".DS_Store").touch()
    (tmp_path / "bundle" / "a\x1b[31m.txt").touch()
    status, said, _ = run_here("verify", str(tmp_path / "bundle"))
    assert status == 0
    assert "not listed there, and ignored: .DS_Store, a\\x1b[31m.txt" in said
    assert "parity holds" in said
