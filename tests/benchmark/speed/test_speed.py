"""``benchmark speed``: the contest on a tiny model, what happens to peers that fail, and the report's arithmetic."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from llava_edge.benchmark.contestants.task import Figures, Task
from llava_edge.benchmark.seeded.checkpoint import write_seeded_checkpoint
from llava_edge.benchmark.speed import rounds as speed
from llava_edge.benchmark.speed.machine import CpuClock, describe_machine, share_of_others
from llava_edge.benchmark.speed.report import as_values, markdown, plot, ratio, shares, spread
from llava_edge.benchmark.speed.roofline import Roofline, _product, measure_roofline
from llava_edge.benchmark.speed.rounds import Contest, choose_peers, compete, run_child
from llava_edge.benchmark.speed.work import Work
from llava_edge.export.pipeline import export_checkpoint
from llava_edge.runtime.errors import MissingExtraError, NativeError, OptionError
from llava_edge.runtime.language.vocabulary import open_vocabulary
from llava_edge.runtime.pictures.geometry import Geometry
from llava_edge.runtime.pictures.towers import CLIP
from llava_edge.runtime.planning.shapes import LlmShape, ModelShape, VisionShape
from PIL import Image
from tokenizers import Tokenizer

PINPOINTS = tuple((56 * rows, 56 * columns) for rows, columns in ((2, 2), (1, 2), (2, 1), (1, 3), (3, 1)))
TINY = ModelShape(
    "tiny",
    LlmShape("llama", 2, 256, heads=8, kv_heads=2, head_dim=32, feed_forward=512, vocabulary=704, context_length=1024),
    VisionShape(
        hidden=128, feed_forward=256, layers=3, used=2, heads=2, dim=256,
        geometry=Geometry(56, 14, PINPOINTS, CLIP.mean, CLIP.std),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny seeded checkpoint and its bundle; export compares the two with transformers."""
    folder = tmp_path_factory.mktemp("seeded")
    write_seeded_checkpoint(folder / "checkpoint", TINY)
    export_checkpoint(str(folder / "checkpoint"), folder / "bundle", llm_type="f32", vision_type="f32")
    return folder / "checkpoint", folder / "bundle"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (192, 108), "teal").save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.mark.slow
def test_contest_of_three_on_the_same_weights(seeded: tuple[Path, Path], picture: Path, tmp_path: Path) -> None:
    checkpoint, bundle = seeded
    out = tmp_path / "out"
    command = [sys.executable, "-m", "llava_edge.cli.main", "benchmark", "speed", "-m", str(bundle)]
    command += ["--image", str(picture), "--checkpoint", str(checkpoint), "--rounds", "1", "--tokens", "4"]
    command += ["--threads", "1", "--out", str(out), "--json", str(tmp_path / "speed.json"), "--no-roofline"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (out / "speed.md").read_text()
    assert sum(line.startswith("openvino left out: ") for line in done.stderr.splitlines()) == 1
    values = json.loads((tmp_path / "speed.json").read_text())
    assert values == json.loads((out / "speed.json").read_text())
    assert (out / "speed.png").read_bytes().startswith(b"\x89PNG")
    runs = {one["name"]: one["runs"] for one in values["contestants"]}
    assert list(values["left_out"]) == ["openvino"], values["left_out"]
    assert {name: len(of) for name, of in runs.items()} == {"ours": 1, "mtmd": 1, "transformers": 1}
    for name, of in runs.items():
        for run in of:
            assert 0 < run["encode"] < run["first_token"], name
            assert 0 < run["prefill"] < run["first_token"], name
            assert run["decode"] > 0
            assert run["cpu"] > run["first_token"] / 2
            assert run["peak_bytes"] > 30e6
    # transformers counts a prompt's positions with its own processor
    for measure in ("prompt_tokens", "image_tokens"):
        assert runs["ours"][0][measure] == runs["transformers"][0][measure]
    # mtmd: whole tiles one after another, nothing unpadded, no newlines
    assert runs["mtmd"][0]["image_tokens"] % 16 == 0
    assert values["task"]["size"] == [192, 108]


def test_contestants_take_turns_after_a_round_that_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int]] = []

    def child(name: str, task: Task, folder: Path) -> Figures:
        order.append((name, task.tokens))
        return Figures(load=0.0, first_token=float(len(order)), second=1.0, cpu=1.0)

    monkeypatch.setattr(speed, "run_child", child)
    contest = compete(Task("picture", "bundle", 1, tokens=7), ["mtmd", "transformers"], rounds=2)
    there, back = ["ours", "mtmd", "transformers"], ["transformers", "mtmd", "ours"]
    assert order == [*((name, 2) for name in there), *((name, 7) for name in [*back, *there])]
    firsts = {name: [run.first_token for run in runs] for name, runs in contest.runs.items()}
    assert firsts == {"ours": [6.0, 7.0], "mtmd": [5.0, 8.0], "transformers": [4.0, 9.0]}


def test_text_of_noise_becomes_the_same_tokens(seeded: tuple[Path, Path]) -> None:
    """Or the second question would prefill the first answer again, several times as long."""
    ids = [int(one) for one in np.random.default_rng(0).integers(400, 690, 50)]
    text = Tokenizer.from_file(str(seeded[0] / "tokenizer.json")).decode(ids)
    with open_vocabulary(seeded[1] / "llm.gguf") as tokenize:
        assert tokenize(text) == ids


def test_a_peer_that_dies_is_left_out_and_the_rest_goes_on(
    seeded: tuple[Path, Path], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(str(picture), str(seeded[1]), 1, tokens=2)
    real = speed.contestant_command
    die = [sys.executable, "-c", "import os, sys; print('last words', flush=True); os.kill(os.getpid(), 11)"]
    monkeypatch.setattr(speed, "contestant_command", lambda name, task: die if name == "mtmd" else real(name, task))
    contest = compete(task, ["mtmd"], rounds=1)
    assert f"killed by signal {signal.SIGSEGV:d}: last words" in contest.left_out["mtmd"]
    assert contest.runs["mtmd"] == []
    assert len(contest.runs["ours"]) == 1


def test_our_own_failure_is_an_error(picture: Path, tmp_path: Path) -> None:
    with pytest.raises(NativeError, match="contestant ours"):
        run_child("ours", Task(str(picture), str(tmp_path / "nothing"), 1), tmp_path)


def test_memory_and_cpu_time_are_the_childs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import json, sys, time\nblock = bytearray(b'x' * 300_000_000)\nbegan = time.process_time()\n"
        "while time.process_time() - began < 0.3: pass\n"
        "json.dump({'load': 0, 'first_token': 1, 'second': 1}, open(sys.argv[3], 'w'))"
    )
    monkeypatch.setattr(speed, "contestant_command", lambda name, task: [sys.executable, "-c", code])
    figures = run_child("ours", Task("", "", 1), tmp_path)
    # Linux counts what the process had before it became the child, and that is this test run's own memory
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert 300e6 < figures.peak_bytes <= max(900e6, ours)
    assert 0.3 <= figures.cpu < 30


def test_an_interrupted_parent_leaves_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*some: Any, **named: Any) -> Any:
        started.append(real([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[0]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(speed.subprocess, "Popen", start)
    monkeypatch.setattr(speed.os, "wait4", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_child("ours", Task("", "", 1), tmp_path)
    assert started[0].poll() == -signal.SIGKILL


def test_peers_are_chosen_or_refused(tmp_path: Path) -> None:
    bare = Task("picture", "bundle", 1)
    assert choose_peers(bare, ()) == ([], speed.missing_peers(bare))
    assert set(speed.missing_peers(bare)) == set(speed.PEERS)
    with pytest.raises(OptionError, match="vllm"):
        choose_peers(bare, ["vllm"])
    with pytest.raises(MissingExtraError, match="--checkpoint"):
        choose_peers(bare, ["transformers"])
    full = Task("picture", "bundle", 1, checkpoint="here", projector="there")
    peers, missing = choose_peers(full, ())
    assert peers == ["mtmd", "transformers"]
    assert list(missing) == ["openvino"]
    assert choose_peers(full, ["transformers"]) == (["transformers"], {})


STUB_OPENVINO = "class Tensor:\n    def __init__(self, values):\n        assert values.shape == (1, 108, 192, 3)\n"
STUB_GENAI = """
class GenerationConfig: ...
class Mean:
    def __init__(self, value): self.mean = value
class Metrics:
    def __init__(self, tokens): self.tokens = tokens
    def get_ttft(self): return Mean(300.0)
    def get_generate_duration(self): return Mean(300.0 + 50.0 * (self.tokens - 1))
    def get_prepare_embeddings_duration(self): return Mean(200.0)
    def get_num_input_tokens(self): return 77
    def get_num_generated_tokens(self): return self.tokens
class VLMPipeline:
    def __init__(self, folder, device, **options):
        assert device == "CPU" and options == {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1}
        self.asked = []
    def start_chat(self): self.asked.append("start")
    def finish_chat(self): assert self.asked == ["start", 1, 0]
    def generate(self, question, generation_config, images=()):
        self.asked.append(len(images))
        self.perf_metrics = Metrics(generation_config.max_new_tokens)
        return self
"""


def test_openvino_side_reads_the_pipelines_own_clock(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stand-in of the two packages: they live in an environment of their own."""
    for name, text in (("openvino", STUB_OPENVINO), ("openvino_genai", STUB_GENAI)):
        (tmp_path / f"{name}.py").write_text(text)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.2\n")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "made.json").write_text('{"weights": "int4"}')
    paths = [str(tmp_path), *(one for one in sys.path if one.endswith("site-packages"))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    task = Task(str(picture), "", 1, tokens=5, openvino=str(tmp_path))
    figures = run_child("openvino", task, tmp_path)
    assert figures.encode == pytest.approx(0.2)
    assert figures.prefill == pytest.approx(0.1)
    assert figures.decode == pytest.approx(20.0)
    assert figures.first_token == figures.second == pytest.approx(0.3)
    assert (figures.prompt_tokens, figures.tokens) == (77, 5)
    assert figures.settings == "int4, bf16 hint"
    assert figures.versions == {"openvino": "1.2", "openvino-genai": "1.2"}


def figures(first: float, **more: Any) -> Figures:
    named = {"load": 1.0, "second": 0.1, "encode": first / 4, "prefill": first / 2, "decode": 10.0} | more
    return Figures(first_token=first, peak_bytes=2_000_000, prompt_tokens=100, tokens=20, **named)


def contest() -> Contest:
    ours = [figures(2.0), figures(4.0), figures(3.0)]
    theirs = [figures(4.0), figures(16.0), figures(10.0)]
    return Contest({"ours": ours, "mtmd": theirs}, {"ours": [0.01] * 3, "mtmd": [0.02] * 3}, {"openvino": "not here"})


def test_ratios_are_paired_and_spreads_are_of_the_rounds() -> None:
    found = spread(contest().runs["ours"], "first_token")
    assert found is not None
    assert (found.median, found.least, found.most) == (3.0, 2.0, 4.0)
    # of 2/4, 4/16, 3/10 the middle one; the ratio of medians happens to be the same, its mean is not
    assert ratio(contest(), "mtmd", "first_token") == pytest.approx(0.3)
    assert spread([figures(1.0, decode=None)], "decode") is None


def test_shares_of_the_roofline_by_hand() -> None:
    work = Work(encode=10.0, prefill_linear=2.0, prefill_square=0.1, prefill_once=5.0, weights=900, cache=3)
    best = Roofline(threads=2, read=20_000.0, copy=1.0, f32=1.0, int8=1000.0, bf16=1.0)
    reached = shares(contest().runs["ours"], work, best, 3)
    assert reached["encode"] == {"work": 30.0, "rate": pytest.approx(40.0), "share": pytest.approx(0.04)}
    assert reached["prefill"]["work"] == pytest.approx(2 * 100 + 0.1 * 5050 + 5)
    assert reached["prefill"]["rate"] == pytest.approx(710 / 1.5)
    assert reached["decode"]["work"] == 900 + 3 * 110
    assert reached["decode"]["share"] == pytest.approx(1230 * 10 / 20_000)


@pytest.mark.parametrize(("others", "disturbed"), [(0.01, False), (0.3, True)])
def test_the_report_says_what_was_disturbed_and_left_out(others: float, disturbed: bool, tmp_path: Path) -> None:
    found = contest()
    found.others["mtmd"][1] = others
    task = Task("picture.png", "bundle", 2)
    values = as_values(found, task, describe_machine(), size=(30, 20), reached={}, roofline=None)
    text = markdown(values)
    assert ("**Disturbed**" in text) is disturbed
    assert "Left out: openvino: not here." in text
    assert "| mtmd ()" in text
    assert "10.00 (4.00 to 16.00)" in text
    assert "3.3%" in text  # 0.1 of 3.0
    plot(values, tmp_path / "plot.png")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_share_of_others_is_what_we_did_not_use() -> None:
    before, after = CpuClock(100.0, 1000.0), CpuClock(130.0, 1040.0)
    assert share_of_others(before, after, own=10.0) == pytest.approx(0.5)
    assert share_of_others(before, after, own=31.0) == 0.0
    assert share_of_others(None, after, own=1.0) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")
def test_the_cpu_clock_sees_us_work() -> None:
    before = CpuClock.now()
    began = time.process_time()
    while time.process_time() - began < 0.3:
        pass
    after = CpuClock.now()
    assert before is not None
    assert after is not None
    assert after.busy - before.busy >= 0.25


@pytest.mark.parametrize("integer", [True, False])
def test_the_roofline_products_are_products(integer: bool) -> None:
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    model = _product(3, 8, integer=integer)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    left = np.arange(24, dtype=np.uint8 if integer else np.float32).reshape(3, 8)
    right = numpy_helper.to_array(onnx.load_model_from_string(model).graph.initializer[0])
    kind: Callable[[Any], Any] = np.int64 if integer else np.float64
    np.testing.assert_allclose(session.run(None, {"left": left})[0], kind(left) @ kind(right), rtol=1e-5)


def test_the_roofline_is_of_this_machine() -> None:
    found = measure_roofline(1, size=1 << 22, rows=16, inner=256)
    assert found.threads == 1
    # slower than a 1990s computer or faster than any processor would be a wrong unit
    assert 1e7 < found.read < 1e13
    assert 1e7 < found.copy < 1e13
    assert all(1e7 < rate < 1e14 for rate in (found.f32, found.int8, found.bf16))


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peaks_are_in_bytes_whatever_the_system_counts_in(
    platform: str, unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = SimpleNamespace(ru_utime=1.0, ru_stime=0.5, ru_maxrss=2000)
    monkeypatch.setattr(os, "wait4", lambda pid, _: (pid, 0, used))
    monkeypatch.setattr(sys, "platform", platform)
    assert speed._wait(SimpleNamespace(pid=1)) == (0, 1.5, 2000 * unit)
