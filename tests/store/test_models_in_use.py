"""A model that a running program has open keeps its files, whatever becomes of its name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.bundle.named import find_bundle, model_names, use, users
from llava_edge.runtime.model import load
from llava_edge.serve.models.registry import read_facts
from llava_edge.store.pull import pull, remove
from support.made_bundles import make_bundle

CHAT = """
import sys
from llava_edge.runtime.model import load
model = load("tiny")
for line in sys.stdin:
    model.unload()
    print(model.ask("What is this?", max_tokens=2).finish_reason, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAVA_EDGE_MODELS", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


def left(store: Path) -> list[str]:
    return [path.name for name in ("models", "bundles", "blobs", "uses") for path in (store / name).iterdir()]


def test_removed_under_a_program_it_goes_when_that_has_ended(store: Path, tmp_path: Path) -> None:
    """Unloaded between two questions, the program loads it again from the files that it always had."""
    pull(str(demo_bundle()), name="tiny")
    heard: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", CHAT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            print("ask", file=process.stdin, flush=True)
            assert process.stdout.readline() == "length\n"
            if not heard:
                assert remove("tiny", on_note=heard.append) == 0
                assert model_names() == ()
        process.kill()
    assert heard == [f"tiny: process {process.pid} has it open; its files go with the first 'pull' or 'rm' after that"]
    pull(str(make_bundle(tmp_path / "published" / "small")))
    assert remove("small", on_note=heard.append) > 500_000
    assert left(store) == []
    assert len(heard) == 1


def test_a_newer_one_leaves_the_older_to_who_has_it(store: Path, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "published" / "small")
    pull(str(folder))
    old = find_bundle("small")
    release = use(old)
    shutil.rmtree(folder)
    make_bundle(folder, llm=7)
    heard: list[str] = []
    pull(str(folder), on_note=heard.append)
    assert heard == [f"small: process {os.getpid()} has it open as it was before; started again it gets the newer one"]
    assert Bundle.open(old, hash_all=True)
    release()
    assert remove("small") > 500_000
    assert left(store) == []


def test_another_name_for_the_same_bundle_needs_no_word(store: Path, tmp_path: Path) -> None:
    folder = str(make_bundle(tmp_path / "published" / "small"))
    pull(folder, name="one")
    pull(folder, name="two")
    release = use(find_bundle("one"))
    heard: list[str] = []
    remove("one", on_note=heard.append)
    assert heard == []
    remove("two", on_note=heard.append)
    assert heard[0].startswith("two: process")
    release()


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_model_has_it_open_until_it_is_closed(interrupted: bool, store: Path) -> None:
    pull(str(demo_bundle()), name="tiny")
    folder = find_bundle("tiny")

    def chat() -> None:
        with load("tiny") as model:
            assert users(folder) == (os.getpid(),)
            model.unload()
            assert users(folder) == (os.getpid(),)
            if interrupted:
                raise KeyboardInterrupt

    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            chat()
    else:
        chat()
    assert users(folder) == ()


def test_a_server_has_its_models_open_before_they_are_loaded(store: Path, tmp_path: Path) -> None:
    pull(str(make_bundle(tmp_path / "published" / "small")))
    facts = read_facts([Path("small")])
    assert users(facts[0].path) == (os.getpid(),)


def test_what_is_in_no_store_is_nobodys_business(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundles" / "small")
    use(folder)()
    assert users(folder) == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundles"]


def test_a_store_to_read_only_is_read(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(str(demo_bundle()), name="tiny")
    plain = Path.mkdir

    def refusing(path: Path, *given: object, **more: object) -> None:
        if store in path.parents:
            raise PermissionError(13, "Permission denied")
        plain(path, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refusing)
    with load("tiny") as model:
        assert model.ask("What is this?", max_tokens=1).tokens
    assert not (store / "uses").exists()
