"""``llava-edge doctor``: what it finds, what it says of it, and what it never says."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import pytest
from llava_edge.cli.doctor import facts as facts_module
from llava_edge.cli.doctor.advice import advise
from llava_edge.cli.doctor.facts import without_home
from llava_edge.cli.doctor.page import page
from llava_edge.runtime.errors import without_credentials
from support.command_line import run_here

WELL: dict[str, Any] = {
    "packages": {"onnxruntime-gpu": "1"},
    "processor": {
        "architecture": "x86_64",
        "instruction_sets": ["avx2", "avx512f", "avx512_vnni"],
        "usable": 8,
        "quota": None,
        "threads": 8,
        "load": 0.5,
    },
    "memory": {"total": 64 << 30, "available": 32 << 30},
    "llama_cpp": {
        "kernels": {"AVX2": True, "AVX512": True, "AVX512_VNNI": True},
        "devices": [{"name": "CPU", "kind": "cpu"}, {"name": "CUDA0", "kind": "gpu"}],
    },
    "onnxruntime": {"version": "1", "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]},
    "gpus": ["NVIDIA L4"],
    "caches": {"llava-edge": {"folder": "/c", "free": 99 << 30, "writable": True}},
    "configuration": {"file": None, "sets": {}},
    "environment": {},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    found = copy.deepcopy(WELL)
    *folders, name = path.split(".")
    inner = found
    for one in folders:
        inner = inner[one]
    inner[name] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("llama_cpp", {"error": "ImportError: no llama"}, "no answers: ImportError: no llama"),
        ("onnxruntime", {"error": "expected the package"}, "no pictures: expected the package"),
        ("packages", {"onnxruntime": "1", "onnxruntime-gpu": "1"}, "onnxruntime and onnxruntime-gpu overwrite"),
        ("gpus", [], "no GPU was found"),
        ("llama_cpp.devices", [{"name": "CPU", "kind": "cpu"}], "-DGGML_CUDA=on"),
        ("onnxruntime.providers", ["CPUExecutionProvider"], "no CUDA"),
        ("llama_cpp.kernels", {"AVX2": True, "AVX512": True}, "compiled without AVX512_VNNI"),
        ("processor.instruction_sets", ["sse4_2"], "no AVX2"),
        ("processor.instruction_sets", ["avx2"], "no VNNI"),
        ("processor.quota", 1.5, "1.5 of 8 processors"),
        ("processor.load", 9.0, "busy (load 9 with 8 cores)"),
        ("memory.available", 2 << 30, "2.0 GiB of memory"),
        ("caches.llava-edge.free", 1 << 30, "1.0 GiB of disk are free at /c"),
        ("caches.llava-edge.writable", False, "the cache llava-edge can't be written"),
        ("configuration", {"error": "expected a whole number"}, "expected a whole number"),
        ("environment", {"OMP_NUM_THREADS": "1"}, "OMP_NUM_THREADS=1"),
        ("wrong_settings", ["expected a whole number"], "expected a whole number"),
        ("caches.hub", {"folder": "/h", "writable": False, "reason": "/h is a file"}, "for /h is a file: nothing can"),
    ],
)
def test_what_is_slow_and_why(path: str, value: Any, said: str) -> None:
    (line,) = advise(changed(path, value))
    assert said in line


def test_a_machine_that_is_well() -> None:
    assert advise(WELL) == []
    assert page(WELL, []).endswith("all is well")


def test_facts_that_could_not_be_had_are_no_error() -> None:
    broken = {name: {"error": "broken"} for name in WELL}
    assert any("no answers: broken" in line for line in advise(broken))
    assert "error  broken" in page(broken, advise(broken))


def test_the_facts_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    monkeypatch.setenv("LLAVA_EDGE_TOKEN", "secretsecret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secretsecret@host")
    monkeypatch.setenv("LLAVA_EDGE_THREADS", "3")
    monkeypatch.setenv("UNRELATED", "not shown")
    status, out, err = run_here("doctor", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["versions"]["python"] == platform.python_version()
    assert found["packages"]["numpy"] == importlib.metadata.version("numpy")
    assert found["processor"]["usable"] == len(os.sched_getaffinity(0))
    assert "CPU" in [one["name"] for one in found["llama_cpp"]["devices"]]
    assert "CPUExecutionProvider" in found["onnxruntime"]["providers"]
    assert found["extras"]["cpu"] == {"installed": True, "missing": []}
    assert found["environment"]["LLAVA_EDGE_THREADS"] == "3"
    assert found["environment"]["HF_TOKEN"] == "set"
    text = run_here("doctor")[1]
    for said in (out, text):
        assert "secretsecret" not in said
        assert "not shown" not in said
        assert os.path.expanduser("~") + "/" not in said
    assert len(text.splitlines()) < 120
    for name in found:
        assert name in text or name == "advice"


def test_the_configuration_is_shown_or_why_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "llava-edge.toml"
    monkeypatch.setenv("LLAVA_EDGE_CONFIG", str(path))
    path.write_text("[ask]\nthreads = 2\n")
    shown = json.loads(run_here("doctor", "--json")[1])["configuration"]
    assert shown == {"file": str(path), "sets": {"ask": {"threads": 2}}}
    path.write_text("thread = 2\n")
    status, out, _ = run_here("doctor", "--json")
    assert status == 0
    assert "got 'thread'" in json.loads(out)["configuration"]["error"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("HF_ENDPOINT", "https://ann:secretsecret@mirror/x", "https://…@mirror/x"),
        ("HF_ENDPOINT", "https://ann:secret/secretsecret@mirror", "https://…@mirror"),
        ("HF_ENDPOINT", "https://ann:secret@secretsecret@mirror", "https://…@mirror"),
        ("HF_ENDPOINT", "https://secretsecret@mirror:80", "https://…@mirror:80"),
        ("LLAVA_EDGE_JUDGE", "http://host/v1?api_key=secretsecret", "http://host/v1?…"),
        ("LLAVA_EDGE_JUDGE", "http://host/v1#secretsecret", "http://host/v1?…"),
        ("LLAVA_EDGE_JUDGE", "ann:secretsecret@host/v1", "…@host/v1"),
        ("HF_HUB_X", "hf_secretsecretsecretsecret", "hf_…"),
        ("LLAVA_EDGE_GPU", "a=24G@1008 b:1=24G@9", "a=24G@1008 b:1=24G@9"),
        ("LLAVA_EDGE_MAX_TOKENS", "300", "300"),
        ("LLAVA_EDGE_MAX_TOKENS", "secretsecret", "set"),
        ("LLAVA_EDGE_API_TOKEN", "300", "set"),
        ("PYTHONPATH", "/a:/b/c:d", "/a:/b/c:d"),
    ],
)
def test_no_password_is_shown(name: str, value: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert without_credentials(value) == shown or shown == "set"
    status, out, _ = run_here("doctor", "--json")
    found = json.loads(out)
    assert (status, found["environment"][name]) == (0, shown)
    del found["wrong_settings"], found["advice"]  # which repeat a value that is no number
    assert "secretsecret" not in json.dumps(found)
    if shown != "set":
        assert "secretsecret" not in out + run_here("doctor")[1]


def test_no_password_of_the_configuration_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "llava-edge.toml"
    monkeypatch.setenv("LLAVA_EDGE_CONFIG", str(path))
    path.write_text('judge = "https://ann:secretsecret@host/v1"\n')
    out = run_here("doctor", "--json")[1]
    assert "secretsecret" not in out
    assert json.loads(out)["configuration"]["sets"] == {"judge": "https://…@host/v1"}
    path.write_text('threads = "https://ann:secretsecret@host/v1"\n')
    assert "secretsecret" not in run_here("doctor")[1]
    assert "secretsecret" not in "".join(map(str, run_here("show", "--json")))


def test_wrong_settings_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "llava-edge.toml"
    monkeypatch.setenv("LLAVA_EDGE_CONFIG", str(path))
    path.write_text(f'model = "{tmp_path}"\n[ask]\nmodel = "/no/model"\n')
    for name, value in {"THREADS": "abc", "MAXTOKENS": "5", "MODEL": "/none", "DETAIL": "much", "SEED": "-1"}.items():
        monkeypatch.setenv(f"LLAVA_EDGE_{name}", value)
    status, out, _ = run_here("doctor", "--json")
    found = json.loads(out)
    assert status == 0
    wrong = found["wrong_settings"]
    assert sorted(re.findall(r"LLAVA_EDGE_(THREADS|MAXTOKENS|MODEL|DETAIL|SEED)\b", " ".join(wrong))) == [
        *("DETAIL", "MAXTOKENS", "MODEL", "SEED", "THREADS")
    ]
    assert (
        "ask.model in the configuration file is '/no/model', which is no folder and no model of 'llava-edge list'"
        in wrong
    )
    assert set(wrong) <= set(found["advice"])


@pytest.mark.parametrize("below", ["", "/cache", "/a/b"])
@pytest.mark.parametrize(("variable", "name"), [("LLAVA_EDGE_CACHE", "llava-edge"), ("HF_HUB_CACHE", "hub")])
def test_a_cache_that_is_a_file(
    variable: str, name: str, below: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, f"{tmp_path}/file{below}")
    found = json.loads(run_here("doctor", "--json")[1])
    assert found["caches"][name]["writable"] is False
    assert any(f"the cache {name} can't be written, for {tmp_path}/file is a file" in line for line in found["advice"])


def test_missing_and_broken_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> Any:
        raise importlib.metadata.PackageNotFoundError("llava-edge")

    def broken() -> Any:
        raise OSError("libcudart.so.12: cannot open\nshared object file")

    monkeypatch.setattr(facts_module.importlib.metadata, "requires", missing)
    monkeypatch.setattr(facts_module, "_onnxruntime", broken)
    monkeypatch.setattr("llava_edge.runtime.ggml.devices.devices_of", missing)
    status, out, _ = run_here("doctor", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["onnxruntime"] == {"error": "OSError: libcudart.so.12: cannot open"}
    assert "PackageNotFoundError" in found["llama_cpp"]["error"]
    assert run_here("doctor")[0] == 0


def test_home_is_left_out_of_paths_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert without_home({"a": ["/home/ann/x:/home/ann", "/home/anna/x"]}) == {"a": ["~/x:~", "/home/anna/x"]}
    monkeypatch.setenv("HOME", "/")
    assert without_home("/x/y") == "/x/y"
