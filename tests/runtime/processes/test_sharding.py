"""Layers on workers: the same answers, and errors instead of crashes and hangs. All on loopback, on CPUs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
from llava_edge.runtime import LoadOptions, Model, load
from llava_edge.runtime.errors import NativeError, OptionError, WorkerError
from llava_edge.runtime.ggml import rpc
from llava_edge.runtime.processes import connections as endpoints_module
from llava_edge.runtime.processes import watching
from llava_edge.runtime.processes import worker as worker_module
from llava_edge.runtime.processes.isolated_llm import IsolatedLlm, LlmProcess
from PIL import Image

pytestmark = pytest.mark.slow

QUESTIONS = ("What is this?", "And its colour?")
COMMAND = [sys.executable, "-m", "llava_edge.cli.main"]


def picture(colour: str) -> Image.Image:
    image = Image.new("RGB", (130, 70), colour)
    image.paste("white", (20, 10, 90, 40))
    return image


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Worker:
    """A worker process of its own, started by the command that users have."""

    def __init__(self, port: int = 0, *more: str) -> None:
        self.port = port or free_port()
        self.endpoint = f"127.0.0.1:{self.port}"
        command = [*COMMAND, "worker", "--port", str(self.port), "--threads", "1", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def ready(self) -> Worker:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            assert self.process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> str:
        """Kill it and return all that it printed."""
        self.process.kill()
        return self.process.communicate()[0].decode()


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Worker]]:
    started = [Worker() for _ in range(3)]
    try:
        yield [one.ready() for one in started]
    finally:
        for one in started:
            one.end()


class Wire:
    """Stands between a client and a worker and counts what it carries to the worker."""

    def __init__(self, worker: Worker) -> None:
        self._target = worker.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.carried = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._target))
                for end in (client, server):  # many small messages: waiting to fill a packet costs minutes
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._threads.append(threading.Thread(target=self._carry_both_ways, args=(client, server)))
                self._threads[-1].start()

    def _carry_both_ways(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            back = threading.Thread(target=self._carry, args=(server, client, False))
            back.start()
            self._carry(client, server, True)
            back.join()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                self.carried += len(chunk) if counted else 0
                target.sendall(chunk)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def wires(workers: list[Worker]) -> Iterator[list[Wire]]:
    """One to each worker."""
    laid = [Wire(one) for one in workers]
    yield laid.copy()
    for one in laid:
        one.close()


def answers(bundle: Path, **options: Any) -> list[tuple[int, ...]]:
    """Greedy tokens of a conversation about two pictures, the second one added later."""
    with load(bundle, threads=1, **options) as model:
        chat = model.chat()
        first = chat.generate(QUESTIONS[0], images=[picture("teal")], max_tokens=12)
        second = chat.generate(QUESTIONS[1], images=[picture("gold")], max_tokens=12)
        assert second.cached_tokens > first.image_tokens[0]  # what was prefilled there is kept there
        drawn = model.ask(QUESTIONS[0], [picture("teal")], max_tokens=12, temperature=1.0, seed=3)
        return [first.tokens, second.tokens, drawn.tokens]


@pytest.fixture(scope="module")
def expected(tiny_bundle: Path) -> list[tuple[int, ...]]:
    found = answers(tiny_bundle)
    assert all(len(tokens) > 3 for tokens in found)
    return found


@pytest.mark.parametrize(("count", "isolate"), [(2, False), (3, False), (2, "engine")])
def test_workers_give_the_tokens_of_one_process(
    count: int, isolate: Any, wires: list[Wire], tiny_bundle: Path, expected: list[tuple[int, ...]]
) -> None:
    del wires[count:]
    workers = tuple(one.endpoint for one in wires)
    found = answers(tiny_bundle, workers=workers, tensor_split=(1.0,) * count, isolate=isolate)
    assert found == expected
    weights = 256 * 256 * 4  # at least one square f32 matrix of the tiny model's width
    assert all(one.carried > weights for one in wires), [one.carried for one in wires]


def test_shares_decide_who_gets_layers(wires: list[Wire], tiny_bundle: Path) -> None:
    options: dict[str, Any] = {"workers": tuple(one.endpoint for one in wires[:2])}
    load(tiny_bundle, threads=1, tensor_split=(1.0, 0.0), **options).close()
    assert wires[0].carried > 10 * wires[1].carried
    with pytest.raises(OptionError, match="2 shares"):
        load(tiny_bundle, threads=1, tensor_split=(1.0, 1.0, 1.0), **options)


def test_without_shares_the_planner_splits(wires: list[Wire], tiny_bundle: Path) -> None:
    """By the memory that each worker says is free: here the same, so layers go to both and none stays."""
    endpoints = tuple(one.endpoint for one in wires[:2])
    with load(tiny_bundle, threads=1, workers=endpoints) as model:
        layers = open_model_layers(model)
        assert model.engine.options.gpu_layers == layers + 1 == sum(model.engine.options.tensor_split)
        assert all(share > 0 for share in model.engine.options.tensor_split)
        assert all(one in model.placement for one in endpoints)
        assert not model.engine.overlaps  # they compute on the vision tower's cores
    assert all(one.carried > 256 * 256 * 4 for one in wires[:2])


def test_a_load_starts_one_process(workers: list[Worker], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was asked for the workers' memory; it ends with a load that fails too."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def counted(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(command, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", counted)
    with load(tiny_bundle, threads=1, repack=False, workers=(workers[0].endpoint,)) as model:
        assert [one.pid for one in started if one.args[0] == sys.executable] == [child_of(model).pid]
    with pytest.raises(OptionError, match="1 shares"):
        load(tiny_bundle, threads=1, repack=False, workers=(workers[0].endpoint,), tensor_split=(1.0, 1.0))
    assert all(one.returncode is not None for one in started)


def open_model_layers(model: Model) -> int:
    reader = gguf.GGUFReader(model.engine.bundle.llm_path)
    return int(reader.fields["llama.block_count"].contents())


def test_a_worker_that_dies_is_an_error_and_one_that_comes_back_is_used(
    workers: list[Worker], tiny_bundle: Path, expected: list[tuple[int, ...]]
) -> None:
    doomed = Worker().ready()
    options = {"workers": (workers[0].endpoint, doomed.endpoint), "tensor_split": (1.0, 1.0)}
    with load(tiny_bundle, threads=1, **options) as model:
        chat = model.chat()
        stream = chat.stream(QUESTIONS[0], images=[picture("teal")], max_tokens=900)
        next(stream)
        doomed.signal(signal.SIGSTOP)  # so that it certainly dies while it is waited for
        threading.Timer(0.5, doomed.end).start()
        began = time.monotonic()
        with pytest.raises(WorkerError, match=doomed.endpoint) as caught:
            list(stream)
        assert time.monotonic() - began < 10
        assert caught.value.got == f"{doomed.endpoint} no longer there"
        assert "\n" not in str(caught.value)
        with pytest.raises(WorkerError):
            chat.generate(QUESTIONS[1])
        assert model.encode_image(picture("gold")).embeddings.any()  # the host lives, its vision part too
    back = Worker(doomed.port).ready()
    try:
        assert answers(tiny_bundle, **options) == expected
    finally:
        back.end()


def test_a_worker_that_hangs_is_an_error(tiny_bundle: Path) -> None:
    stuck = Worker().ready()
    try:
        with load(tiny_bundle, threads=1, workers=(stuck.endpoint,), worker_timeout=1.5) as model:
            stuck.signal(signal.SIGSTOP)
            with pytest.raises(WorkerError, match=r"no answer within 1\.5 s"):
                model.ask(QUESTIONS[0], [picture("teal")])
    finally:
        stuck.end()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's list of connections")
def test_vanished_machines_are_noticed_from_both_sides(workers: list[Worker], tiny_bundle: Path) -> None:
    """The kernel's own list shows a keep-alive timer (2) on both ends of the connection."""
    with load(tiny_bundle, threads=1, workers=(workers[0].endpoint,)):
        end = time.monotonic() + 30
        while (timers := timers_at(workers[0].port)) != ["02", "02"] and time.monotonic() < end:
            time.sleep(watching.WATCH_SECONDS)
    assert timers == ["02", "02"]


def timers_at(port: int) -> list[str]:
    """The kind of timer that each end of the open connections of ``port`` has running."""
    ours = f":{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [one[5][:2] for one in lines if one[3] == "01" and (one[1].endswith(ours) or one[2].endswith(ours))]


def test_no_worker_there(tiny_bundle: Path) -> None:
    with pytest.raises(WorkerError, match=r"refused.*llava-edge worker"):
        load(tiny_bundle, workers=(f"127.0.0.1:{free_port()}",))


def test_a_worker_serves_one_model_at_a_time(
    workers: list[Worker], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints_module, "GREETING_SECONDS", 0.5)
    with (
        load(tiny_bundle, threads=1, workers=(workers[0].endpoint,)),
        pytest.raises(WorkerError, match="one model at a time"),
    ):
        load(tiny_bundle, threads=1, workers=(workers[0].endpoint,))


def test_something_else_at_the_port(tiny_bundle: Path) -> None:
    def hang_up() -> None:
        client = listener.accept()[0]
        client.recv(9)
        client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(WorkerError, match=r"not a llama\.cpp worker|reset"):
            load(tiny_bundle, workers=(f"127.0.0.1:{listener.getsockname()[1]}",))


def test_a_build_without_rpc_says_how_to_build_it(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "ggml_function", lambda *_: lambda *_: None)  # no backend of that name
    for attempt in (lambda: load(tiny_bundle, workers=("127.0.0.1:1",)), lambda: worker_module.serve("127.0.0.1", 1)):
        with pytest.raises(OptionError, match="GGML_RPC=on"):
            attempt()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7"])
def test_other_addresses_than_loopback_need_trust(host: str) -> None:
    with pytest.raises(OptionError, match="--trust-network"):
        worker_module.serve(host, free_port())


def test_trusted_network_is_served() -> None:
    worker = Worker(0, "--host", "0.0.0.0", "--trust-network").ready()
    endpoints_module.check_workers([worker.endpoint])
    assert "0.0.0.0" in worker.end()


def test_worker_refusals_are_one_line(workers: list[Worker]) -> None:
    for options in (["--port", str(workers[0].port)], ["--host", "0.0.0.0"], ["--host", "no.such.host.invalid"]):
        done = subprocess.run([*COMMAND, "worker", *options], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("llava-edge: expected ")


def test_interrupt_ends_a_worker_at_once() -> None:
    worker = Worker().ready()
    worker.signal(signal.SIGINT)
    assert worker.process.wait(20) == -signal.SIGINT
    worker.end()


@pytest.mark.parametrize("isolate", [True, "engine"])
def test_isolated_gives_the_same_answers(tiny_bundle: Path, expected: list[tuple[int, ...]], isolate: Any) -> None:
    assert answers(tiny_bundle, isolate=isolate) == expected


@pytest.fixture
def isolated(tiny_bundle: Path) -> Iterator[Model]:
    with load(tiny_bundle, threads=1, isolate=True) as model:
        yield model


def child_of(model: Model) -> LlmProcess:
    assert isinstance(model.engine.llm, IsolatedLlm)
    return model.engine.llm.process


def test_native_abort_is_an_error(isolated: Model) -> None:
    stream = isolated.chat().stream(QUESTIONS[0], max_tokens=900)
    next(stream)
    os.kill(child_of(isolated).pid, signal.SIGABRT)
    with pytest.raises(NativeError, match="SIGABRT"):
        list(stream)


def test_errors_come_through_as_they_are(isolated: Model, tmp_path: Path) -> None:
    with pytest.raises(NativeError, match="ensure_context"):
        isolated.engine.llm.decode_tokens([1], 0, logits=True)
    assert isolated.engine.llm.tokenize("still there")
    (tmp_path / "llm.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(NativeError, match=r"llama\.cpp: "):
        IsolatedLlm(tmp_path / "llm.gguf", options=LoadOptions())


def test_cancelling_keeps_the_isolated_model(isolated: Model) -> None:
    pieces: list[str] = []
    chat = isolated.chat()
    for piece in chat.stream(QUESTIONS[0], max_tokens=900, cancelled=lambda: len(pieces) == 2):
        pieces.append(piece)
    assert chat.answer is not None
    assert chat.answer.finish_reason == "cancel"
    assert chat.generate(QUESTIONS[1], max_tokens=3).cached_tokens > 0


def test_interrupt_between_question_and_answer_does_not_mix_them_up(
    isolated: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a reply is waited for: the next reply on the pipe would be that of the lost question.

    The model stays usable. Who interrupts again, because it takes too long, gives it up.
    """
    replies = child_of(isolated)._lanes[0].replies
    another = isolated.engine.llm.tokenize("another")

    class Interrupted:
        def __init__(self, times: int) -> None:
            self.left = times

        def get(self, timeout: float | None) -> Any:
            self.left -= 1
            if self.left >= 0:
                raise KeyboardInterrupt
            return replies.get(timeout=timeout)

        def put(self, reply: Any) -> None:
            replies.put(reply)

    monkeypatch.setattr(child_of(isolated)._lanes[0], "replies", Interrupted(1))
    with pytest.raises(KeyboardInterrupt):
        isolated.engine.llm.tokenize("a question")
    assert isolated.engine.llm.tokenize("another") == another
    monkeypatch.setattr(child_of(isolated)._lanes[0], "replies", Interrupted(2))
    with pytest.raises(KeyboardInterrupt):
        isolated.engine.llm.tokenize("a question")
    with pytest.raises(NativeError, match="load the model again"):
        isolated.engine.llm.tokenize("another")


def test_closed_is_closed(tiny_bundle: Path) -> None:
    model = load(tiny_bundle, threads=1, isolate=True)
    child = child_of(model)
    model.close()
    model.close()
    assert child.status == 0
    with pytest.raises(NativeError, match="closed"):
        model.engine.llm.tokenize("x")


def test_child_leaves_with_the_application(tiny_bundle: Path) -> None:
    code = (
        "import sys, time; from llava_edge.runtime import load\n"
        f"model = load({str(tiny_bundle)!r}, threads=1, isolate=True)\n"
        "print(model.engine.llm.process.pid, flush=True); time.sleep(60)"
    )
    application = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert application.stdout is not None
    child = int(application.stdout.readline())
    application.kill()
    application.communicate()
    end = time.monotonic() + 10
    while _alive(child):
        assert time.monotonic() < end
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": ("127.0.0.1",)}, "HOST:PORT"),
        ({"workers": ("127.0.0.1:0",)}, "HOST:PORT"),
        ({"workers": ("::1:50052",)}, "IPv4"),
        ({"workers": "127.0.0.1:50052"}, "tuple"),
        ({"workers": ("127.0.0.1:50052",) * 2}, "different"),
        ({"tensor_split": (0.0, 0.0)}, "one above 0"),
        ({"tensor_split": (-1.0,)}, "tensor_split"),
        ({"worker_timeout": -1}, "worker_timeout"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        LoadOptions(**options)
