"""``benchmark accuracy`` as a person or another program meets it, killed in the middle included."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from llava_edge.quantize.pipeline import quantize_bundle
from PIL import Image
from support.judge_server import Answer, judge_server

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).parent / "llava-edge")
PICTURES = 12


@pytest.fixture(scope="module")
def work(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two bundles, ``f32`` and ``q4``, and questions about twelve pictures."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(tiny_bundle, folder / "f32")
    quantize_bundle(tiny_bundle, folder / "q4", llm="q4_0", vision="int8")
    records = []
    for index in range(PICTURES):
        low = np.random.default_rng(index).integers(0, 256, (5, 7, 3), np.uint8)
        (folder / "data").mkdir(exist_ok=True)
        Image.fromarray(low).resize((150, 90), Image.Resampling.BICUBIC).save(folder / "data" / f"{index}.png")
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}]
        records.append({"id": str(index), "image": f"{index}.png", "conversations": turns, "type": f"type {index % 2}"})
    (folder / "data" / "questions.json").write_text(json.dumps(records))
    return folder


def command(cache: Path, *more: str) -> list[str]:
    sides = ["--reference", "f32", "--candidate", "q4", "--data", "data", "--cache", str(cache)]
    return [COMMAND, "benchmark", "accuracy", *sides, *more]


def run(work: Path, cache: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(cache, *more), cwd=work, capture_output=True, text=True, timeout=300)


def test_json_on_stdout_and_in_files(work: Path, tmp_path: Path) -> None:
    done = run(work, tmp_path / "cache", "--json", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress where stderr is no terminal
    found = json.loads(done.stdout)
    assert found["questions"] == PICTURES
    (candidate,) = found["candidates"]
    contract = {"name", "bytes", "kl_mean", "kl_p99", "top1", "accuracy", "difference", "interval"}
    assert contract <= set(candidate)
    assert candidate["name"] == "q4"
    assert candidate["bytes"] == sum(
        one.stat().st_size for one in (work / "q4").iterdir() if one.suffix not in (".json", ".md")
    )
    assert [one["questions"] for one in candidate["types"]] == [PICTURES // 2] * 2
    out = tmp_path / "out"
    assert sorted(one.name for one in out.iterdir()) == ["accuracy.json", "accuracy.md", "accuracy.png"]
    assert json.loads((out / "accuracy.json").read_text()) == found
    assert "llava-edge benchmark accuracy --reference f32" in (out / "accuracy.md").read_text()
    table = run(work, tmp_path / "cache")
    assert "vision alone" in table.stdout
    assert "q4: KL to f32" in table.stdout.splitlines()[-1]
    named = run(work, tmp_path / "cache", "--json", str(tmp_path / "found.json"))
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert named.stdout == table.stdout
    few = json.loads(run(work, tmp_path / "cache", "--json", "--limit", "2", "--no-attribution").stdout)
    assert (few["questions"], few["candidates"][0]["attribution"]) == (4, [])


def test_a_judge_marks_free_form_answers_once(work: Path, tmp_path: Path) -> None:
    """8 for the reference and 6 for the answer are three quarters; what was marked is not asked again."""
    data = tmp_path / "judged"
    data.mkdir()
    records = json.loads((work / "data" / "questions.json").read_text())[:2]
    for record in records:
        shutil.copy(work / "data" / record["image"], data)
    (data / "questions.json").write_text(json.dumps([{**one, "metric": "judged", "max_tokens": 4} for one in records]))
    cache = tmp_path / "cache"
    with judge_server(Answer("8 6\nFair.")) as (url, asked):
        more = ("--data", str(data), "--judge", url, "--judge-model", "any", "--judge-prices", "2", "10", "--json")
        done = run(work, cache, *more)
        assert done.returncode == 0, done.stderr
        count = len(asked)
        assert 2 <= count <= 4  # two bundles that answer alike share a verdict
        assert done.stderr.strip() == (
            f"judge: {count} requests, {1000 * count} + {20 * count} tokens, "
            f"cost {count * (1000 * 2 + 20 * 10) / 1e6:.4g}, earlier runs included"
        )
        assert json.loads(done.stdout)["candidates"][0]["accuracy"] == 0.75
        assert run(work, cache, *more).stdout == done.stdout
        assert len(asked) == count


def test_killed_in_the_middle_it_goes_on(work: Path, tmp_path: Path) -> None:
    """Without a chance to tidy up; what was there is not computed again, and the result is the same."""
    more = ("--json", "--no-attribution")  # the reference and one candidate are enough to be killed between
    whole = run(work, tmp_path / "whole", *more)
    cache = tmp_path / "killed"
    killed = subprocess.Popen(command(cache, *more), cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 240
    while len(list(cache.rglob("*.npz"))) < 3:
        assert time.monotonic() < end
        assert killed.poll() is None
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("[!.]*.npz")}
    assert 3 <= len(before) < PICTURES
    again = run(work, cache, *more)
    assert again.stdout == whole.stdout
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())


def test_interrupted_it_says_where_the_answers_are(work: Path, tmp_path: Path) -> None:
    cache = tmp_path / "interrupted"
    running = subprocess.Popen(
        command(cache),
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 240
    while not list(cache.rglob("*.npz")):
        assert time.monotonic() < end
        assert running.poll() is None
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGINT)
    out, said = running.communicate(timeout=240)
    assert running.returncode == 130
    assert out == ""
    (line,) = said.splitlines()
    assert str(cache) in line


@pytest.mark.parametrize("place", ["/dev/null/llava-edge", "file/below"])
def test_without_a_place_for_a_cache_it_goes_on(place: str, work: Path, tmp_path: Path) -> None:
    """No home, or one that can't be written: answers lie among temporary files, and it says where."""
    (tmp_path / "file").write_bytes(b"")
    environment = {**os.environ, "LLAVA_EDGE_CACHE": str(tmp_path / place), "TMPDIR": str(tmp_path)}
    words = [COMMAND, "benchmark", "accuracy", "--reference", "f32", "--candidate", "q4", "--data", "data", "--json"]
    done = subprocess.run(words, cwd=work, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    (kept,) = tmp_path.glob("llava-edge-answers-*")
    (line,) = done.stderr.splitlines()
    assert f"answers are kept in {kept}; --cache FOLDER" in line
    assert list(kept.rglob("*.npz"))
    again = run(work, kept, "--json")
    assert (again.stdout, again.returncode) == (done.stdout, 0)
    wrong = subprocess.run([*words, "--candidate", "none"], cwd=work, capture_output=True, text=True, env=environment)
    assert wrong.returncode == 1
    assert list(tmp_path.glob("llava-edge-answers-*")) == [kept]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--candidate", "none"], "a bundle folder at none"),
        (["--data", "none"], "none"),
        (["found.json"], "add --json"),
        (["--judge", "http://localhost:1/v1"], "--judge-model"),
        (["--limit", "-1"], "limit"),
    ],
)
def test_wrong_input_is_one_line(more: list[str], said: str, work: Path, tmp_path: Path) -> None:
    done = run(work, tmp_path / "cache", *more)
    assert done.returncode == (1 if "none" in more else 2)  # the others are wrong command lines
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert said in line
    assert not list(tmp_path.iterdir())
