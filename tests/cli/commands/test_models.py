"""Models by name in the commands, in Python and in the server: pulled once, then found everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llava_edge.runtime import load
from llava_edge.runtime.bundle.bundle import demo_bundle
from llava_edge.runtime.errors import BundleError
from llava_edge.serve.models.registry import Facts, Models, read_facts
from llava_edge.store.pull import pull
from support.command_line import run_here
from support.made_bundles import make_bundle

SIGN = str(Path(__file__).parents[3] / "examples" / "sign.png")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The demo model, pulled as ``tiny``; the working folder has nothing of that name."""
    monkeypatch.setenv("LLAVA_EDGE_MODELS", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return pull(str(demo_bundle()), name="tiny").name


def test_pull_list_show_rm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_EDGE_MODELS", str(tmp_path / "store"))
    status, out, err = run_here("list")
    assert (status, out) == (0, "")
    assert "llava-edge pull" in err
    assert run_here("list", "--json") == (0, "[]\n", "")
    folder = make_bundle(tmp_path / "small")
    status, out, err = run_here("pull", str(folder), "--as", "one", "--json")
    assert status == 0
    (listed,) = json.loads(run_here("list", "--json")[1])
    assert json.loads(out) == listed
    assert set(listed) == {"name", "source", "bytes", "llm", "vision", "modified"}
    assert "needs" in err.splitlines()[0]
    assert "chat -m one" in err.splitlines()[-1]
    head, row = run_here("list")[1].splitlines()
    assert row.split()[0] == "one"
    assert row.index(str(folder)) == head.index("source")
    assert "there already" in run_here("pull", str(folder), "--as", "one")[2]
    assert str(tmp_path / "store") in run_here("show", "one")[1]
    assert json.loads(run_here("show", "one", "--json")[1])["name"] == "llava-edge-demo"
    status, out, err = run_here("rm", "one")
    assert (status, out) == (0, "")
    assert "MB free again" in err
    assert run_here("rm", "one")[0] == 1
    assert run_here("list", "--json")[1] == "[]\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["pull"], 2),
        (["pull", "x", "--as", "../x"], 2),
        (["pull", "nothing"], 2),
        (["pull", "http://example.invalid/manifest.json"], 1),
        (["rm", "../x"], 1),
        (["rm"], 2),
        (["show", "nothing"], 1),
    ],
)
def test_exit_status(words: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_EDGE_MODELS", str(tmp_path / "store"))
    done = run_here(*words)
    assert (done[0], done[1]) == (status, "")
    assert len(done[2].splitlines()) == 1


def test_a_pull_that_is_interrupted_says_that_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava_edge.store import blobs

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("LLAVA_EDGE_MODELS", str(tmp_path / "store"))
    folder = make_bundle(tmp_path / "small")
    with monkeypatch.context() as patch:
        patch.setattr(blobs, "replace_file", interrupt)
        status, _, err = run_here("pull", str(folder))
    assert status == 130
    assert "the same command goes on" in err
    assert run_here("list", "--json")[1] == "[]\n"
    assert run_here("pull", str(folder))[0] == 0


NAMED = {
    "ask": ["ask", SIGN, "What does the sign say?", "-q", "-m", "tiny"],
    "tiles": ["tiles", SIGN, "-m", "tiny"],
    "plan": ["plan", "tiny", "--host", "16G"],
    "show": ["show", "tiny"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", NAMED)
def test_a_name_is_as_good_as_the_folder(command: str, tiny: str) -> None:
    by_name = run_here(*NAMED[command])
    by_path = run_here(*(str(demo_bundle()) if word == tiny else word for word in NAMED[command]))
    assert by_name[0] == by_path[0] == 0
    assert by_name[1].removeprefix(by_name[1].splitlines(True)[0] if command == "show" else "") == by_path[1]


@pytest.mark.slow
def test_other_commands_take_a_name(tiny: str, tmp_path: Path) -> None:
    assert run_here("verify", tiny)[1].endswith("parity holds\n")
    output = str(tmp_path / "kept")
    status, _, err = run_here("quantize", tiny, "-o", output, "--llm", "keep", "--vision", "keep")
    assert status == 0, err
    assert "| language model | q4_k_m" in (tmp_path / "kept" / "README.md").read_text(encoding="utf-8")
    status, out, err = run_here(
        "benchmark", "accuracy", "--reference", tiny, "--candidate", output, "--limit", "1", "--no-attribution",
        "--cache", str(tmp_path / "answers"), "--json",
    )  # fmt: skip
    assert status == 0, err
    assert json.loads(out)["reference"]["name"] == "tiny"


@pytest.mark.slow
@pytest.mark.parametrize("isolate", [False, "llm", "engine"])
def test_load_by_name(isolate: bool | str, tiny: str) -> None:
    with load(tiny, isolate=isolate) as named, load() as demo:  # type: ignore[arg-type]
        assert named.ask("What does the sign say?", SIGN).text == demo.ask("What does the sign say?", SIGN).text


def test_a_name_that_nothing_has(tiny: str) -> None:
    with pytest.raises(BundleError, match="'llava-edge list': tiny"):
        load("tinny")


def test_the_server_knows_a_model_by_its_names_in_the_store(tiny: str, tmp_path: Path) -> None:
    def opener(facts: Facts, cancelled: object) -> None:
        """Nothing is loaded here."""

    pull(str(demo_bundle()), name="again")
    facts = read_facts([Path("tiny"), make_bundle(tmp_path / "small")])
    assert [(one.id, one.aliases) for one in facts] == [("llava-edge-demo", ("again", "tiny")), ("small", ())]
    models = Models(facts, opener)  # type: ignore[arg-type]
    for name in ("tiny", "again", "llava-edge-demo", "tiny:latest"):
        assert models.find(name).facts is facts[0]
    assert models.find("small").facts is facts[1]
