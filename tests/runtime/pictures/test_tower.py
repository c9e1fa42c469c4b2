"""The vision session: order, progress, cancelling, and refusals in one line."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime.errors import BundleError, Cancelled, MissingExtraError, NativeError, OptionError
from llava_edge.runtime.onnx_runtime import session
from llava_edge.runtime.onnx_runtime.importing import import_onnxruntime
from llava_edge.runtime.pictures.tower import VisionEncoder
from llava_edge.runtime.system import machine
from support.tiny_vision import TinyShape, make_model, make_pixels, reference_features, relative_error, write_graph

SHAPE = TinyShape()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("vision"), SHAPE)


@pytest.fixture
def encoder(graph: Path) -> VisionEncoder:
    return VisionEncoder(graph, dim=SHAPE.dim, geometry=SHAPE.geometry, threads=1)


def test_tiles_keep_their_order(encoder: VisionEncoder) -> None:
    pixels = make_pixels(SHAPE, 5)
    features = encoder.encode(pixels)
    assert features.dtype == np.float32
    assert features.shape == (5, 16, SHAPE.dim)
    # float32 arithmetic in another order than torch's
    assert relative_error(features, reference_features(*make_model(SHAPE), pixels)) <= 1e-5


def test_no_tiles(encoder: VisionEncoder) -> None:
    assert encoder.encode(make_pixels(SHAPE, 0)).shape == (0, 16, SHAPE.dim)


def test_progress_counts_tiles(encoder: VisionEncoder) -> None:
    seen: list[tuple[int, int]] = []
    encoder.encode(make_pixels(SHAPE, 3), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_cancelling_stops_between_tiles(encoder: VisionEncoder) -> None:
    done: list[int] = []
    with pytest.raises(Cancelled, match="after 2 of 5"):
        encoder.encode(
            make_pixels(SHAPE, 5), on_progress=lambda count, _: done.append(count), cancelled=lambda: len(done) == 2
        )
    assert done == [1, 2]
    assert encoder.encode(make_pixels(SHAPE, 1)).shape[0] == 1


def test_provider(encoder: VisionEncoder) -> None:
    assert encoder.provider == encoder.choice.provider == "CPUExecutionProvider"
    assert str(encoder.choice) == "vision on cpu: the only one in this onnxruntime"
    assert encoder.choice.on_cpu


def test_beyond_the_cpu_the_overview_goes_first_and_the_rest_in_batches(
    encoder: VisionEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "choice", replace(encoder.choice, on_cpu=False))
    pixels, seen = make_pixels(SHAPE, 8), []
    features = encoder.encode(
        pixels,
        on_features=lambda so_far, done: seen.append((done, so_far[:done].copy())),
        on_progress=lambda *_: None,
    )
    assert [done for done, _ in seen] == [1, 6, 8]
    assert all(np.array_equal(part, features[:done]) for done, part in seen)
    # float32 arithmetic in another order than torch's
    assert relative_error(features, reference_features(*make_model(SHAPE), pixels)) <= 1e-5


def test_a_provider_that_is_not_built_in(graph: Path) -> None:
    with pytest.raises(OptionError, match="among cpu; got NoSuchProvider"):
        VisionEncoder(graph, dim=SHAPE.dim, geometry=SHAPE.geometry, providers=["NoSuchProvider"])


def test_closing_twice_and_using_after(encoder: VisionEncoder) -> None:
    encoder.close()
    encoder.close()
    with pytest.raises(NativeError, match="closed"):
        encoder.encode(make_pixels(SHAPE))


@pytest.mark.parametrize(
    "pixels",
    [make_pixels(SHAPE).astype(np.float64), make_pixels(SHAPE)[:, :, :-1], make_pixels(SHAPE)[0]],
    ids=["float64", "height", "no tile axis"],
)
def test_pixels_of_another_kind(encoder: VisionEncoder, pixels: np.ndarray) -> None:
    with pytest.raises(OptionError, match="tiles, 3, 32, 32"):
        encoder.encode(pixels)


def test_a_failing_run_says_what_failed(encoder: VisionEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def run(self, *_: object) -> None:
            raise RuntimeError("out of memory\nstack")

    monkeypatch.setattr(encoder, "_session", Failing())
    with pytest.raises(NativeError, match="out of memory") as caught:
        encoder.encode(make_pixels(SHAPE))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "missing"])
def test_a_corrupt_file(graph: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "vision.onnx"
    content = {"empty": b"", "text": b"not a graph", "truncated": graph.read_bytes()[:-1000], "missing": None}[damage]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((NativeError, BundleError)) as caught:
        VisionEncoder(path, dim=SHAPE.dim, geometry=SHAPE.geometry)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_graph_of_another_width(graph: Path) -> None:
    with pytest.raises(BundleError, match="features"):
        VisionEncoder(graph, dim=SHAPE.dim + 1, geometry=SHAPE.geometry)


def test_a_graph_of_another_tile_size(graph: Path) -> None:
    with pytest.raises(BundleError, match="pixels"):
        VisionEncoder(graph, dim=SHAPE.dim, geometry=replace(SHAPE.geometry, image_size=40))


def test_without_onnxruntime(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r'pip install "llava-edge\[cpu\]".*\[cuda\]'):
        VisionEncoder(graph, dim=SHAPE.dim, geometry=SHAPE.geometry)


@pytest.mark.parametrize(
    ("flags", "exact"), [("avx2 fma", True), ("avx2 avx512_vnni", False), ("avx2 avx_vnni", False), ("neon", False)]
)
def test_exact_integer_products_only_where_they_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, exact: bool
) -> None:
    entries: dict[str, str] = {}
    options = type("Options", (), {"add_session_config_entry": lambda _, key, value: entries.update({key: value})})
    runtime = type("Onnxruntime", (), {"SessionOptions": options})
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    session.session_options(runtime, None)
    assert ("session.x64quantprecision" in entries) is exact


def test_threads_that_wait_sleep() -> None:
    """Where another program computes too, one that spins keeps the one that it waits for from a core."""
    options = session.session_options(import_onnxruntime(), 2)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_exact_integer_products_where_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "nothing")
    assert not machine.int8_sums_overflow()
