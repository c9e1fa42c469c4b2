"""A frozen application is started as its own child process, and only where it has said that it can be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from llava_edge.runtime import freeze_support
from llava_edge.runtime.processes.starting import CHILD_WORD

APPLICATION = """#!{python}
import sys
sys.path[:] = {path!r}
sys.frozen, sys.executable = True, {me!r}
open({runs!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
{support}
from llava_edge.runtime import load
with load({bundle!r}, isolate={isolate!r}, repack=False) as model:
    print(model.ask("What is this?", max_tokens=4).tokens)
"""
SUPPORT = "from llava_edge.runtime import freeze_support; freeze_support()"


def run(folder: Path, bundle: Path, support: str, isolate: str, *arguments: str) -> tuple[str, str, list[str]]:
    """What a frozen application prints, and with which arguments it was started each time."""
    me, runs = folder / "application", folder / "runs"
    if len(sys.executable) > 100:
        pytest.skip("the path of this Python is too long for a first line")
    me.write_text(
        APPLICATION.format(
            python=sys.executable, path=sys.path, me=str(me), runs=str(runs), support=support, bundle=str(bundle),
            isolate=isolate,
        )
    )  # fmt: skip
    me.chmod(0o755)
    done = subprocess.run([str(me), *arguments], capture_output=True, text=True, timeout=120)
    return done.stdout, done.stderr, runs.read_text().splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
@pytest.mark.parametrize(("isolate", "module"), [("engine", "engine.engine_child"), ("llm", "processes.llm_child")])
def test_it_serves_as_its_own_child(tmp_path: Path, tiny_bundle: Path, isolate: str, module: str) -> None:
    from llava_edge.runtime import load

    out, err, runs = run(tmp_path, tiny_bundle, SUPPORT, isolate)
    with load(tiny_bundle, repack=False) as model:
        assert out == f"{model.ask('What is this?', max_tokens=4).tokens}\n", err
    assert runs == ["", f"{CHILD_WORD} llava_edge.runtime.{module}:main"]


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_one_that_does_not_look_is_never_started_twice(tmp_path: Path, tiny_bundle: Path) -> None:
    out, err, runs = run(tmp_path, tiny_bundle, "", "engine")
    assert out == ""
    assert "NativeError: expected freeze_support() of llava_edge.runtime called first by a frozen application" in err
    assert runs == [""]


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_no_other_process_can_be_asked_for(tmp_path: Path, tiny_bundle: Path) -> None:
    out, err, _ = run(tmp_path, tiny_bundle, SUPPORT, "engine", CHILD_WORD, "os:abort")
    assert out == ""
    assert err.startswith("expected llava_edge.runtime.engine.engine_child:main or ")


def test_unfrozen_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["application", CHILD_WORD, "os:abort"])
    freeze_support()
