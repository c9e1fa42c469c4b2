"""``llava-edge plan`` as a person or another program meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).parent / "llava-edge")
SIGN = str(Path(__file__).parents[3] / "examples" / "sign.png")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=240)


def test_plan_json_is_the_contract() -> None:
    done = run("plan", "llava-72b", "--gpu", "a=48G@768", "--gpu", "b=48G@768", "--host", "32G", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] is True
    assert "suggestion" not in found
    assert [one["name"] for one in found["devices"]] == ["a", "b", "host"]
    for one in found["devices"]:
        assert one["total"] == sum(one[key] for key in ("weights", "kv", "compute", "vision", "free"))
    assert found["placement"]["gpu_layers"] == sum(found["placement"]["tensor_split"]) == 81
    assert found["rates"]["prefill"] is None
    read = sum(one["weights"] + one["kv"] for one in found["devices"] if one["name"] != "host")
    assert found["rates"]["decode"] == pytest.approx(768e9 / read)


def test_what_would_fit_is_taken() -> None:
    """With a prompt engine by name: another GPU would be refused, because it wants all layers on the host."""
    asked = ("plan", "llama3-8b", "--prompt-engine", "onnxruntime")
    done = run(*asked, "--host", "8G", "--json")
    assert done.returncode == 3
    alternatives = json.loads(done.stdout)["alternatives"]
    assert not any("gpus" in one for one in alternatives)
    for one in alternatives:
        options = {"host": "8G", "prompt-engine": "onnxruntime"}
        options |= {key.replace("_", "-"): str(value) for key, value in one.items() if key not in ("text", "host")}
        if "host" in one:
            options["host"] = f"{one['host'] / 2**30:g}G"
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        assert run("plan", "llama3-8b", *words).returncode == 0, one
    assert run(*asked, "--host", "8G", "--gpu", "a=24G").returncode == 2


def test_what_ask_reads_without_weights_is_said_of_auto_alone() -> None:
    said = "ask reads a prompt of less than some 500 positions"
    assert said in run("plan", "llama3-8b", "--host", "64G").stdout
    for engine in ("onnxruntime", "llama.cpp"):
        assert said not in run("plan", "llama3-8b", "--host", "64G", "--prompt-engine", engine).stdout


def test_a_plan_that_does_not_fit_says_what_would() -> None:
    devices = ("--gpu", "a=24G", "--gpu", "b=24G", "--host", "8G", "--ctx", "8192")
    done = run("plan", "llava-72b", *devices, "--json")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] is False
    change = found["suggestion"]
    smaller = json.loads(run("plan", "llava-72b", *devices, "--llm", change["llm"], "--json").stdout)
    assert smaller["fits"] is True
    table = run("plan", "llava-72b", *devices).stdout
    assert change["text"] in table
    assert "fits       no" in table


def test_the_demo_on_this_machine() -> None:
    done = run("plan")
    assert done.returncode == 0, done.stderr
    assert "fits       yes" in done.stdout
    assert "host" in done.stdout


def test_stats_say_where_the_model_is() -> None:
    done = run("ask", SIGN, "What does the sign say?", "--device", "auto", "--kv-type", "q8_0", "--stats")
    assert done.returncode == 0, done.stderr
    placement, provider, statistics, *stages = done.stderr.splitlines()
    assert "placement auto" in placement
    assert "GPU layers none, split none" in placement
    assert "KV q8_0/q8_0 | flash attention on" in placement
    assert "cpu" in provider.lower()
    assert "first token after" in statistics
    named = {line.split()[0]: line for line in stages}
    assert list(named) == ["threads", "memory", "cache", "load", "encode", "prefill", "decode", "seed"]
    assert "int8" not in named["memory"]  # the demo is small: llama.cpp reads its prompts


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "no-such-model"], "owner/name"),
        (["plan", "llava-72b", "--gpu", "a"], "a=24G@1008"),
        (["plan", "llava-72b", "--gpu", "a=24"], "a=24G@1008"),
        (["plan", "llava-72b", "--host", "x"], "64G@60"),
        (["plan", "llava-72b", "--worker", "w=G"], "10.0.0.2:50052=24G"),
        (["plan", "llava-72b", "--gpu", "a=24G", "--gpu", "a=24G"], "different names"),
        (["plan", "llava-72b", "--llm", "q9"], "an LLM type among"),
        (["plan", "llava-72b", "--ctx", "-1"], "ctx from 0 to 16777215"),
        (["plan", "llava-72b", "--ctx", "99999999"], "ctx from 0 to 16777215"),
        (["plan", "llava-72b", "--gpu", "a=0G"], "memory above 0 for a"),
        (["plan", "llava-72b", "--gpu", f"a={'9' * 400}G"], "memory above 0 for a"),
        (["plan", "llava-72b", "--prompt-engine", "onnxruntime", "--gpu", "a=99G"], "got layers on a GPU"),
        (["plan", "../nothing"], "got no folder; check the path"),
        (["plan", "pics/a.png"], "a folder, a hub id"),
        (["plan", SIGN], "the folder of a bundle or a checkpoint at"),
        (["ask", SIGN, "What?", "--device", "moon"], "device among auto, cpu"),
        (["ask", SIGN, "What?", "--kv-type", "q9"], "a KV type among"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    missing = arguments[1] in ("no-such-model", "../nothing", "pics/a.png", SIGN) and len(arguments) == 2
    assert done.returncode == (1 if missing else 2)  # the others are wrong command lines
    (line,) = done.stderr.splitlines()
    assert said in line
    assert done.stdout == ""
