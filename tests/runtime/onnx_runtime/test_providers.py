"""Which provider is tried when, why, and what happens when one does not start; all with made-up lists."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime import Bundle, demo_bundle
from llava_edge.runtime.errors import NativeError, OptionError
from llava_edge.runtime.onnx_runtime import providers, session
from llava_edge.runtime.onnx_runtime.providers import Attempt, order_attempts, start_first
from llava_edge.runtime.pictures.tower import VisionEncoder

TRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
COREML, DML, OPENVINO = "CoreMLExecutionProvider", "DmlExecutionProvider", "OpenVINOExecutionProvider"
ALL = [CPU, DML, OPENVINO, CUDA, COREML, TRT]  # not in the order of preference
ENGINE = {TRT: Path("engine.onnx")}


def order(*arguments: Any, **options: Any) -> list[str]:
    return [attempt.provider for attempt in order_attempts(*arguments, **options)]


def test_the_best_comes_first_and_the_cpu_last() -> None:
    assert order(ALL, compiled=ENGINE) == [TRT, CUDA, COREML, DML, OPENVINO, CPU]
    assert order([CPU, OPENVINO]) == [OPENVINO, CPU]
    assert order([CPU]) == [CPU]
    assert order(["AzureExecutionProvider", CPU]) == [CPU]


def test_tensorrt_waits_for_its_engine_unless_asked_for() -> None:
    without = order_attempts([TRT, CUDA, CPU], compiled={TRT: "compiled for driver 1, here 2"})
    assert [attempt.provider for attempt in without] == [CUDA, CPU]
    assert without[0].reason == "best of cuda, cpu; tensorrt left out: compiled for driver 1, here 2"
    assert order([TRT, CUDA, CPU], ["tensorrt"]) == [TRT, CPU]


def test_the_reason_names_what_was_there() -> None:
    assert order_attempts([CPU])[0].reason == "the only one in this onnxruntime"
    assert order_attempts([CPU, CUDA])[0].reason == "best of cuda, cpu"
    assert order_attempts([CPU, CUDA], ["cpu"])[0].reason == "asked for"
    with_engine = order_attempts([TRT, CUDA, CPU], compiled=ENGINE)[0]
    assert (with_engine.reason, with_engine.graph) == ("best of tensorrt, cuda, cpu, with engine.onnx", ENGINE[TRT])


@pytest.mark.parametrize("names", [["cuda", "openvino"], ["CUDA", OPENVINO], [CUDA, "OpenVINO"]])
def test_providers_are_named_our_way_or_theirs(names: list[str]) -> None:
    assert order(ALL, names) == [CUDA, OPENVINO, CPU]


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("openvino", "llava-edge[openvino]"),
        ("OpenVINO:GPU", "llava-edge[openvino]"),
        (OPENVINO, "llava-edge[openvino]"),
        ("cuda:1", "llava-edge[cuda]"),
        ("tensorrt", "llava-edge[cuda]"),
        ("directml", "onnxruntime-directml"),
        ("coreml", "macOS"),
    ],
)
def test_what_is_not_there_is_got_by_its_own_package(name: str, install: str) -> None:
    with pytest.raises(OptionError) as caught:
        order_attempts([CPU], [name])
    assert install in caught.value.fix
    assert install == "llava-edge[cuda]" or "cuda" not in caught.value.fix
    with pytest.raises(OptionError, match=r"got nonsense; choose one of those$"):
        order_attempts([CPU], ["nonsense"])


def test_every_extra_of_a_provider_is_one_of_ours() -> None:
    requires = importlib.metadata.requires("llava-edge") or []
    ours = {extra for line in requires for extra in re.findall(r"extra == ['\"]([\w-]+)", line)}
    assert ours >= set(re.findall(r"llava-edge\[(\w+)\]", " ".join(providers._BRINGS.values())))


def test_a_device_behind_the_name() -> None:
    cuda, openvino, _ = order_attempts(ALL, ["cuda:1", "openvino:GPU"])
    assert (cuda.options["device_id"], cuda.name, cuda.on_cpu) == ("1", "cuda:1", False)
    assert (openvino.options["device_type"], openvino.name, openvino.on_cpu) == ("GPU", "openvino:GPU", False)
    assert order_attempts(ALL, ["openvino"])[0].on_cpu
    with pytest.raises(OptionError, match="write cpu"):
        order_attempts(ALL, ["cpu:1"])


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(OptionError, match=r"providers among cuda, cpu; got coreml; .*macOS"):
        order_attempts([CUDA, CPU], ["coreml"])


def failing(*broken: str) -> Any:
    """A session factory that fails for some providers and else returns the provider's name."""

    def create(attempt: Attempt) -> str:
        if attempt.provider in broken:
            raise NativeError(expected="a device", got=f"no {attempt.name} device", fix="buy one")
        return attempt.provider

    return create


def test_a_provider_that_does_not_start_is_one_warning_line(caplog: pytest.LogCaptureFixture) -> None:
    session, choice = start_first(order_attempts([TRT, CUDA, CPU], compiled=ENGINE), failing(TRT, CUDA))
    assert session == choice.provider == CPU
    assert choice.on_cpu
    assert str(choice) == "vision on cpu: tensorrt did not start (no tensorrt device)"
    assert [record.getMessage() for record in caplog.records] == [
        "vision: tensorrt did not start (no tensorrt device); trying cuda",
        "vision: cuda did not start (no cuda device); trying cpu",
    ]
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_a_provider_that_starts_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    session, choice = start_first(order_attempts([CUDA, CPU]), failing())
    assert (session, choice.provider, choice.on_cpu) == (CUDA, CUDA, False)
    assert not caplog.records


def test_the_last_error_is_the_callers() -> None:
    with pytest.raises(NativeError, match="no cpu device"):
        start_first(order_attempts([CUDA, CPU]), failing(CUDA, CPU))


class FakeOnnxruntime:
    """An onnxruntime that says it has CUDA and opens sessions without it, as the real one does without a GPU."""

    __version__ = "0"

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent
        self.asked: list[list[str]] = []

    def set_default_logger_severity(self, severity: int) -> None:
        self.severity = severity

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def SessionOptions(self) -> Any:
        return SimpleNamespace(add_session_config_entry=lambda *_: None)

    def InferenceSession(self, _: str, __: Any, *, providers: list[tuple[str, Any]], enable_fallback: bool) -> Any:
        assert not enable_fallback  # onnxruntime would print to stdout and go on by itself
        self.asked.append([name for name, _ in providers])
        if self.asked[-1][0] == CUDA and not self.silent:
            raise RuntimeError("libcudnn.so.9: cannot open\nstack")
        return SimpleNamespace(get_providers=lambda: [CPU])


@pytest.mark.parametrize("silent", [True, False], ids=["left out silently", "raises"])
def test_cuda_without_a_gpu_becomes_the_cpu(
    silent: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeOnnxruntime(silent=silent)
    monkeypatch.setattr(session, "import_onnxruntime", lambda: fake)
    opened = session.open_session(Path("vision.onnx"))
    assert opened.get_providers() == [CPU]
    assert fake.asked == [[CUDA], [CPU]]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("vision: cuda did not start (")
    assert warning.endswith("trying cpu")
    assert "\n" not in warning
    assert fake.severity == session.LOG_WARNINGS


def openvino_is_here() -> bool:
    import onnxruntime

    return OPENVINO in onnxruntime.get_available_providers()


needs_openvino = pytest.mark.skipif(
    not openvino_is_here(), reason="this onnxruntime has no OpenVINO (pip install onnxruntime-openvino)"
)


def demo_encoder(*providers: str) -> VisionEncoder:
    bundle = Bundle.open(demo_bundle())
    part = bundle.manifest.vision
    return VisionEncoder(
        bundle.vision_path, dim=part.dim, geometry=bundle.manifest.geometry, threads=1, providers=providers
    )


@needs_openvino
def test_openvino_computes_the_same_features() -> None:
    pixels = np.random.default_rng(0).normal(size=(2, 3, 48, 48)).astype(np.float32)
    openvino, cpu = demo_encoder("openvino"), demo_encoder("cpu")
    assert openvino.provider == demo_encoder().provider == OPENVINO
    assert openvino.choice.on_cpu
    features, expected = openvino.encode(pixels), cpu.encode(pixels)
    assert not np.array_equal(features, expected)  # else OpenVINO took no part
    # the demo's int8 graph; the ranges of its activations are found in another order
    assert np.linalg.norm(features - expected) <= 1e-3 * np.linalg.norm(expected)


@needs_openvino
def test_an_openvino_device_that_is_not_there_becomes_the_cpu(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = demo_encoder("openvino:GPU.7")
    assert encoder.provider == CPU
    assert str(encoder.choice).startswith("vision on cpu: openvino:GPU.7 did not start (")
    assert len(caplog.records) == 1
    assert "onnxruntime" not in capfd.readouterr().err  # its own lines are kept quiet
