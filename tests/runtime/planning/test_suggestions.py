"""Why a plan does not fit, and what would: every change that is proposed is tried as it stands."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from llava_edge.runtime.planning.placement import Device
from llava_edge.runtime.planning.planner import Request, make_plan
from llava_edge.runtime.planning.shape_sources import preset_shape
from llava_edge.runtime.planning.suggestions import Suggestion, suggestions

G = 2**30
LLAMA = preset_shape("llama3-8b")  # 2928 positions a picture, 577 without tiles, 8192 in all


def host(size: float) -> Device:
    return Device("host", "cpu", int(size * G))


def proposed(*devices: Device, model: str = "llama3-8b", **request: Any) -> list[Suggestion]:
    asked = Request(**request)
    return suggestions(make_plan(preset_shape(model), devices, asked), devices, asked)


def applied(model: str, devices: list[Device], request: Request, change: dict[str, Any]) -> bool:
    """Whether a plan fits after ``change``, made as somebody would who reads it: by the options that it names."""
    values = {"llm": "recipe", "ctx": "context", "images": "images", "detail": "detail"}
    asked = dataclasses.replace(request, **{values[key]: value for key, value in change.items() if key in values})
    if "kv_type" in change:
        asked = dataclasses.replace(asked, kv_type_k=change["kv_type"], kv_type_v=change["kv_type"])
    there = [
        dataclasses.replace(one, memory=change["host"]) if "host" in change and one.kind == "cpu" else one
        for one in devices
    ]
    there += [Device(f"more{index}", "gpu", change["memory"]) for index in range(change.get("gpus", 0))]
    return make_plan(preset_shape(model), there, asked).fits


def test_every_change_fits_by_itself() -> None:
    draw = random.Random(5)
    seen: set[str] = set()
    for _ in range(120):
        model = draw.choice(["llama3-8b", "vicuna-7b", "yi-34b", "llava-72b"])
        devices = [host(draw.uniform(1, 12) if draw.random() < 0.7 else 64)]
        devices += [Device(f"g{index}", "gpu", draw.choice([8, 24]) * G) for index in range(draw.choice([0, 0, 1, 2]))]
        request = Request(
            context=draw.choice([0, 0, 512, 1000, 4096, 6000, 20000]),
            images=draw.choice([0, 1, 2, 3, 8, 500]),
            detail=draw.choice(["high", "low", "auto"]),  # type: ignore[arg-type]
            kv_type_k=(kind := draw.choice(["", "", "f32"])),
            kv_type_v=kind,
        )
        plan = make_plan(preset_shape(model), devices, request)
        assert plan.fits is not bool(plan.reasons)
        for one in suggestions(plan, devices, request):
            assert one.plan.fits
            assert applied(model, devices, request, one.change), (model, devices, request, one.text)
            assert all(str(value) in one.text for key, value in one.change.items() if key in ("ctx", "images", "llm"))
            seen |= set(one.change)
    assert seen == {"llm", "ctx", "images", "detail", "kv_type", "host", "gpus", "memory"}


@pytest.mark.parametrize(
    ("request_values", "changes"),
    [
        ({"images": 3}, [{"images": 2}, {"detail": "low"}]),
        ({"images": 2, "context": 4096}, [{"ctx": 6912}, {"images": 1}, {"detail": "low"}]),
        ({"images": 8, "context": 512}, [{"images": 2, "ctx": 8192}, {"detail": "low", "ctx": 8192}]),
        ({"context": 16384}, [{"ctx": 8192}]),
        ({"images": 0, "context": 16384}, [{"ctx": 8192}]),
        ({"images": 3, "context": 16384}, [{"images": 2, "ctx": 8192}, {"detail": "low", "ctx": 8192}]),
        ({"images": 1, "context": 2928}, [{"ctx": 4096}, {"detail": "low"}]),
        ({"images": 50, "detail": "low"}, [{"images": 13}]),
        ({"images": 50, "detail": "auto"}, [{"images": 13}]),
    ],
)
def test_pictures_that_do_not_fit_the_context(request_values: dict[str, Any], changes: list[dict[str, Any]]) -> None:
    """With memory for everything: a smaller type or one more GPU gives no room in a context."""
    assert [one.change for one in proposed(host(512), **request_values)] == changes


@pytest.mark.parametrize(
    ("request_values", "said"),
    [
        ({"images": 3}, ["3 pictures of 2928 positions and 256 for text are 9040; the model has 8192"]),
        (
            {"context": 4096, "images": 2},
            ["2 pictures of 2928 positions and 256 for text are 6112; the context has 4096"],
        ),
        ({"context": 9000}, ["the model has 8192 positions, not 9216"]),
        ({"images": 2}, []),
        ({"context": 256, "images": 0}, []),
    ],
)
def test_why_a_context_does_not_do(request_values: dict[str, Any], said: list[str]) -> None:
    plan = make_plan(LLAMA, [host(512)], Request(**request_values))
    assert list(plan.reasons) == said
    assert plan.fits is not bool(said)
    assert plan.placed


def test_what_each_device_lacks() -> None:
    plan = make_plan(preset_shape("llava-72b"), [host(8), Device("g", "gpu", 24 * G)], Request())
    assert not plan.fits
    lacking = {one.device.name: (one.device.reserve - one.free) / G for one in plan.uses if not one.fits}
    assert list(plan.reasons) == [f"{name} lacks {size:.2f} GiB" for name, size in lacking.items()]


def test_both_context_and_memory() -> None:
    found = proposed(host(5), images=2, context=4096)
    assert found
    assert all(
        {"ctx", "images", "detail"} & set(one.change) and {"host", "gpus", "llm"} & set(one.change) for one in found
    )
    assert found[0].text == "a context of 6912 and 2 GiB more free memory"


def test_fewer_pictures_where_memory_is_what_lacks() -> None:
    devices = [Device("host", "cpu", 6250 * 2**20)]
    (one,) = [one for one in proposed(*devices, images=2) if set(one.change) == {"images"}]
    assert one.change == {"images": 1}
