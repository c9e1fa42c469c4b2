"""A session that is cancelled or closed ends within a node of its graph, and runs of several threads take turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from llava_edge.runtime.errors import Cancelled, NativeError
from llava_edge.runtime.onnx_runtime.session import open_session
from llava_edge.runtime.onnx_runtime.stoppable import Asked, StoppableSession

WIDTH, NODES = 1024, 100
SOON = 0.5
"""Seconds: 0.1 of them are meant, the others are for a machine that does something else."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products one after the other, which take seconds together."""
    shape = [WIDTH, WIDTH]
    weight = onnx.numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32)[::-1].copy(), "w")
    nodes = [onnx.helper.make_node("MatMul", [f"x{step}", "w"], [f"x{step + 1}"]) for step in range(NODES)]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x0", f"x{NODES}")]
    graph = onnx.helper.make_graph(nodes, "slow", ends[:1], ends[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    file = tmp_path_factory.mktemp("slow") / "slow.onnx"
    onnx.save(model, file)
    return file


@pytest.fixture
def session(path: Path) -> Iterator[StoppableSession]:
    one = StoppableSession(open_session(path, threads=1))
    yield one
    one.close()


def inputs(value: float = 1.0) -> dict[str, np.ndarray]:
    return {"x0": np.full((WIDTH, WIDTH), value, np.float32)}


@pytest.mark.slow
def test_it_ends_soon_after_the_wish_and_runs_again(session: StoppableSession) -> None:
    said: list[float] = []

    def cancelled() -> bool:
        if time.monotonic() - began < 0.2:
            return False
        said.append(time.monotonic())
        return True

    began = time.monotonic()
    with pytest.raises(Cancelled):
        session.run([f"x{NODES}"], inputs(), cancelled)
    assert time.monotonic() - said[0] < SOON
    (values,) = Asked(session, lambda: False).run([f"x{NODES}"], inputs(2.0))
    np.testing.assert_array_equal(values, 2.0)  # an even number of reversals


@pytest.mark.slow
def test_closing_ends_it_and_what_waits_behind_it(session: StoppableSession) -> None:
    ends: list[str] = []

    def run() -> None:
        try:
            session.run([f"x{NODES}"], inputs())
        except NativeError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    session.close()
    assert time.monotonic() - began < SOON
    for thread in threads:
        thread.join()
    assert ends == ["expected an open model; got a closed one; load it again"] * 2
    with pytest.raises(NativeError, match="a closed one"):
        session.get_providers()


def test_onnxruntimes_own_errors_come_through(session: StoppableSession) -> None:
    with pytest.raises(Exception, match="nothing"):
        session.run(["nothing"], inputs())
    assert session.get_providers() == ["CPUExecutionProvider"]
