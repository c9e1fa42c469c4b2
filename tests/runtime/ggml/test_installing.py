"""What ``make`` shows while llama.cpp is compiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from llava_edge.runtime.ggml import installing
from llava_edge.runtime.ggml.installing import Watched, install, minutes

ROOT = Path(__file__).parents[3]
PIP = """\
Using pip 24.0 from /venv/lib/python3.11/site-packages/pip (python 3.11)
Collecting llama-cpp-python<0.4,>=0.3.36
  Downloading llama_cpp_python-0.3.36.tar.gz (76.6 MB)
  Created temporary directory: /tmp/pip-build-tracker-1
Building wheels for collected packages: llama-cpp-python
  Building wheel for llama-cpp-python (pyproject.toml): started
  Running command Building wheel for llama-cpp-python (pyproject.toml)
  *** CMake build...
  [1/4] /usr/bin/c++ -DNDEBUG -o a.o -c a.cpp
  [2/4] /usr/bin/c++ -DNDEBUG -o b.o -c b.cpp
"""
END = """\
  [4/4] : && /usr/bin/c++ -shared -o libllama.so
  Building wheel for llama-cpp-python (pyproject.toml): finished with status 'done'
  Created wheel for llama-cpp-python: filename=llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl
Successfully installed llama-cpp-python-0.3.36
"""


def shown(watched: Watched, said: str) -> list[str]:
    return [line for one in said.splitlines() if (line := watched.line(one))]


def test_what_pip_says_becomes_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "cores", lambda: 2)
    now = [100.0]
    watched = Watched(lambda: now[0])
    assert watched.progress() == ""
    *fetched, compiling = shown(watched, PIP)
    assert fetched == [PIP.splitlines()[1], PIP.splitlines()[2]]
    about = max(1, round(installing.CORE_MINUTES / 2))
    assert f"about {about} minute" in compiling
    assert compiling.endswith("on 2 cores")
    now[0] += 90
    assert watched.progress() == "llama.cpp: 50% in 1:30 minutes, about 1:30 to go"
    now[0] += 35
    assert shown(watched, END) == ["llama.cpp: compiled in 2:05 minutes", END.splitlines()[-1]]
    assert watched.progress() == ""


def test_before_the_first_steps_nothing_is_promised() -> None:
    now = [0.5]
    watched = Watched(lambda: now[0])
    shown(watched, PIP.split("  [1/4]")[0])
    now[0] += 30
    assert watched.progress() == "llama.cpp: 0:30 minutes gone"
    watched.line("[ 20%] Building CXX object a.o")  # of make, where there is no Ninja
    assert watched.progress() == "llama.cpp: 20% in 0:30 minutes, about 2:00 to go"
    watched.line("[0/2] Re-checking")  # no way back
    assert watched.progress().startswith("llama.cpp: 20%")


def test_minutes() -> None:
    assert [minutes(seconds) for seconds in (-1, 0, 59.6, 125)] == ["0:00", "0:00", "1:00", "2:05"]


def test_a_process_and_how_it_ends() -> None:
    code = f"import sys, time; print({PIP!r}, flush=True); time.sleep(0.5); print('no compiler'); sys.exit(3)"
    said: list[str] = []
    assert install([sys.executable, "-c", code], said.append, every=0.1) == 3
    assert any("50%" in line for line in said)
    assert said[-1].startswith("pip failed")
    assert said[-1].endswith("no compiler")


def test_as_make_runs_it() -> None:
    """By its path and with nothing installed: no import of ours, and no module of this folder instead of Python's."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-P runtime/ggml/installing.py" in makefile
    done = subprocess.run(
        [sys.executable, "-I", str(ROOT / "runtime" / "ggml" / "installing.py"), "--no-such-option"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no such option: --no-such-option" in done.stdout
