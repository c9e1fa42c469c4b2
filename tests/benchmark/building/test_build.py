"""``benchmark build``: folders that are equal, whole and honest, and that run in what they are made for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from llava_edge.benchmark.building.build import Wanted, build, summary
from llava_edge.benchmark.building.confirming import opened_answers
from llava_edge.benchmark.building.work import Work
from llava_edge.benchmark.data.datasets import load_questions
from llava_edge.benchmark.data.heldout import heldout
from llava_edge.benchmark.judging.endpoint import Endpoint, EndpointOptions
from llava_edge.runtime import demo_bundle
from llava_edge.runtime.errors import DataError, OptionError, StorageError
from PIL import Image
from support.command_line import run_here
from support.judge_server import Answer, judge_server

pytestmark = pytest.mark.slow

PICTURES = 6


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six of the demo's pictures, of which one is there twice and one in half its size; a broken one; notes."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "later").mkdir()
    for index in range(PICTURES):
        name = f"{index}.png" if index < 4 else f"later/{index}.png"
        shutil.copyfile(heldout() / f"{7 * index:03d}.png", folder / name)
    shutil.copyfile(folder / "0.png", folder / "zero again.png")
    with Image.open(folder / "1.png") as image:
        image.convert("RGB").resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).save(
            folder / "one.jpg", quality=80
        )
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "notes.txt").write_text("nothing to see")
    return folder


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("built") / "own"
    return folder, summary(build(Wanted(photos, folder, 4)))


def contents(folder: Path) -> dict[str, str]:
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


def records(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    return found


def test_what_is_in_the_folder(built: tuple[Path, dict[str, Any]], photos: Path) -> None:
    folder, found = built
    assert (found["photographs"], len(found["unreadable"]), found["candidates"]) == (PICTURES + 2, 1, PICTURES)
    assert (found["questions"], found["pictures"], found["confirmed"], found["overlap"]) == (4, 4, 0, None)
    assert {one["picture"]: one["kept"] for one in found["copies"]} == {"zero again.png": "0.png", "one.jpg": "1.png"}
    written = records(folder)
    assert [one["id"] for one in written] == ["0001", "0002", "0003", "0004"]
    sizes = []
    for one in written:
        name = one["image"].removeprefix("pictures/")
        assert (folder / one["image"]).read_bytes() == (photos / name).read_bytes()
        assert (one["confirmed"], one["drafted_by"], one["metric"]) == (False, "demo", "judged")
        assert one["conversations"][1]["value"]
        with Image.open(photos / name) as image:
            sizes.append(image.width * image.height)
    assert sizes == sorted(sizes, reverse=True)
    assert len(list((folder / "pictures").rglob("*.png"))) == 4
    card = (folder / "card.md").read_text(encoding="utf-8")
    for words in (
        "zero again.png",
        "equal pixels",
        "broken.png",
        "0 of 4 reference answers",
        "## Licences",
        "Not measured",
    ):
        assert words in card
    assert str(photos) not in card
    with Image.open(folder / "clusters.png") as sheet:
        assert sheet.height > 128
    assert not [one for one in folder.parent.iterdir() if one.name.startswith(".")]


def test_the_same_seed_gives_the_same_folder_also_after_an_interruption(
    built: tuple[Path, dict[str, Any]], photos: Path, tmp_path: Path
) -> None:
    """Interrupted in every stage, one build after the other."""
    again = tmp_path / "own"

    def stopping_in(wanted: str) -> Any:
        def stage(name: str) -> Any:
            def progress(done: int, total: int) -> None:
                if name.startswith(wanted) and done == min(2, total):
                    raise KeyboardInterrupt

            return progress

        return stage

    for stage in ("looking", "comparing pictures", "reading", "drafting"):
        with pytest.raises(KeyboardInterrupt):
            build(Wanted(photos, again, 4), on_stage=stopping_in(stage))
        assert not again.exists()
        assert Work(again).begun
    build(Wanted(photos, again, 4))
    assert contents(again) == contents(built[0])
    assert not Work(again).begun


def test_questions_of_a_file_and_what_is_known_without_the_picture(photos: Path, tmp_path: Path) -> None:
    """The demo answers a question without a picture in some way: that answer is right here."""
    from llava_edge.runtime import load

    with load() as model:
        blind = model.ask("What colour is the circle?", max_tokens=256).text.strip()
    asked = [
        {"image": "0.png", "question": "What colour is the circle?", "answer": blind, "type": "colours"},
        {"image": "zero again.png", "question": "Where is it?", "answer": "somewhere that nobody says"},
        {"image": "later/5.png", "question": "Where is it?"},
        {"image": "gone.png", "question": "Where is it?"},
    ]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    wanted = Wanted(photos, tmp_path / "own", 100, questions=tmp_path / "asked.jsonl")
    found = summary(build(wanted))
    assert (found["wanted"], found["candidates"], found["questions"], found["pictures"]) == (100, 3, 3, 2)
    assert (found["confirmed"], found["blind"], len(found["left_out"])) == (2, 1, 1)
    by_question = {
        (one["image"], one["conversations"][0]["value"].split("\n")[1]): one for one in records(wanted.output)
    }
    known = by_question["pictures/0.png", "What colour is the circle?"]
    assert (known["blind"], known["type"], known["confirmed"], known["drafted_by"]) == (blind, "colours", True, "")
    assert by_question["pictures/0.png", "Where is it?"]["blind"] == ""
    assert "were fewer questions than wanted" in (wanted.output / "card.md").read_text()
    dropped = Wanted(photos, tmp_path / "dropped", 100, questions=tmp_path / "asked.jsonl", drop_blind=True)
    found = summary(build(dropped))
    assert (found["questions"], found["dropped"], found["blind"]) == (2, 1, 0)
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked[0]))
    alone = Wanted(photos, tmp_path / "alone", 1, questions=tmp_path / "asked.jsonl", drop_blind=True)
    with pytest.raises(DataError, match="needs its picture"):
        build(alone)
    assert not alone.output.exists()


def test_an_endpoint_drafts_and_nothing_goes_there_otherwise(photos: Path, tmp_path: Path) -> None:
    with judge_server(Answer("1. What stands on the left?\n2. Which colours are there?")) as (url, asked):
        build(Wanted(photos, tmp_path / "none", 1))
        assert asked == []
        found = build(Wanted(photos, tmp_path / "own", 2, draft=True), endpoint=Endpoint(EndpointOptions(url, "large")))
    written = records(tmp_path / "own")
    assert len(written) == len(found.chosen) == 6  # two questions more about each of two pictures
    assert {one["drafted_by"] for one in written} == {"large"}
    assert {one["conversations"][0]["value"].split("\n")[1] for one in written} >= {"Which colours are there?"}
    assert len({one["image"] for one in written}) == 2
    assert all(one.body["messages"][0]["content"][0]["type"] == "image_url" for one in asked)
    assert "drafted by large" in (tmp_path / "own" / "card.md").read_text()


def test_pairs_that_a_person_decided(photos: Path, tmp_path: Path) -> None:
    pairs = [
        {"pictures": ["0.png", "zero again.png"], "same": False},
        {"pictures": ["2.png", "3.png"], "same": True},
        {"pictures": ["1.png", "2.png"], "same": None},
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    found = summary(build(Wanted(photos, tmp_path / "own", 100, pairs=tmp_path / "pairs.json")))
    left = {one["picture"]: one["why"] for one in found["copies"]}
    assert "zero again.png" not in left
    assert "said to be the same" in left.values()
    again = json.loads((tmp_path / "own" / "pairs.json").read_text())
    said = {frozenset(one["pictures"]): one["same"] for one in again}
    for one in pairs[:2]:
        assert said[frozenset(one["pictures"])] is one["same"]  # type: ignore[arg-type]
    for wrong in ([{"pictures": ["0.png"], "same": True}], [{"pictures": ["0.png", "x.png"]}], [3]):
        (tmp_path / "pairs.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"pairs\.json"):
            build(Wanted(photos, tmp_path / "wrong", 1, pairs=tmp_path / "pairs.json"))


def test_a_folder_is_built_by_one_process_and_may_have_any_name(photos: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with Work(odd).alone(), pytest.raises(DataError, match="another process"):
        build(Wanted(photos, odd, 1))
    assert not odd.exists()
    build(Wanted(photos, odd, 1))
    assert (odd / "card.md").read_text(encoding="utf-8").startswith("# caf")
    assert len(records(odd)) == 1
    assert [one.name for one in tmp_path.iterdir()] == [odd.name]


def test_overlap_is_reported(photos: Path, tmp_path: Path) -> None:
    training = tmp_path / "training"
    training.mkdir()
    for index in (2, 3):
        with Image.open(photos / f"{index}.png") as image:
            image.convert("RGB").save(training / f"t{index}.jpg", quality=70)
    (training / "train.json").write_text(json.dumps([{"image": "t2.jpg"}, {"image": "t3.jpg"}, {"image": "gone.jpg"}]))
    found = summary(build(Wanted(photos, tmp_path / "own", 6, against=training / "train.json")))
    assert set(found["overlap"]["found"]) == {"2.png", "3.png"}
    assert (found["overlap"]["share"], found["overlap"]["missing"]) == (2 / 6, 1)
    assert "2 of 6 pictures (33.3 %)" in (tmp_path / "own" / "card.md").read_text()


def test_what_is_wrong_is_said_before_anything_is_computed(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "asked.json").write_text('[{"image": "gone.png", "question": "x?"}]')

    def nothing(stage: str) -> Any:
        raise AssertionError(stage)

    for wanted, error in (
        (Wanted(photos, tmp_path / "there", 1), StorageError),
        (Wanted(tmp_path / "gone", tmp_path / "own", 1), DataError),
        (Wanted(photos, tmp_path / "own", 1, questions=tmp_path / "asked.json"), DataError),
        (Wanted(photos, tmp_path / "own", 1, against=tmp_path / "gone.json"), DataError),
        (Wanted(photos, tmp_path / "own", 1, pairs=tmp_path / "gone.json"), DataError),
    ):
        with pytest.raises(error):
            build(wanted, on_stage=nothing)
    for k, seed in ((0, 0), (1, -1)):
        with pytest.raises(OptionError):
            Wanted(photos, tmp_path / "own", k, seed=seed)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["asked.json", "there"]


def test_the_command(photos: Path, tmp_path: Path) -> None:
    own = str(tmp_path / "own")
    status, out, err = run_here("benchmark", "build", str(photos), "-o", own, "-k", "2", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert (found["folder"], found["questions"]) == (own, 2)
    assert "broken.png" in err
    status, out, err = run_here("benchmark", "build", str(photos), "-o", own, "-k", "2")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    for more, words in (
        (["--endpoint", "http://127.0.0.1:9/v1"], "--model together"),
        (["--model", "x"], "--endpoint"),
    ):
        status, _, err = run_here("benchmark", "build", str(photos), "-o", own + "2", "-k", "2", *more)
        assert status == 2
        assert words in err
    assert run_here("benchmark", "build", str(photos), "-o", own + "2", "-k", "0")[0] == 2
    status, _, err = run_here("benchmark", "build", str(photos), "-o", own + "2")
    assert status == 2
    assert "-k" in err
    said = run_here("benchmark", "build", str(photos), "-o", str(tmp_path / "text"), "-k", "200")[1]
    assert "200 were wanted; there are 6, so all were taken" in said
    assert "6 answers are to be confirmed: llava-edge benchmark confirm" in said


def test_it_runs_in_accuracy_and_under_the_judge_once_it_is_confirmed(
    built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    shutil.copytree(built[0], folder)
    questions = load_questions(str(folder))
    assert [one.confirmed for one in questions] == [False] * 4
    assert all(one.confirmed for one in load_questions(str(folder), unconfirmed=True))
    command = [
        *("benchmark", "accuracy", "--reference", str(demo_bundle()), "--candidate", str(demo_bundle()), "--json"),
        *("--data", str(folder), "--answers", str(tmp_path / "answers"), "--no-attribution"),
    ]
    with judge_server(Answer("10 5\nFair.")) as (url, asked):
        judged = ["--judge", url, "--judge-model", "large"]
        status, out, err = run_here(*command, *judged)
        assert status == 0, err
        found = json.loads(out)
        assert (found["questions"], found["scored"], found["unconfirmed"]) == (4, 0, 4)
        assert found["reference"]["accuracy"] is None
        assert asked == []
        found = json.loads(run_here(*command, *judged, "--unconfirmed")[1])
        assert (found["scored"], found["unconfirmed"]) == (4, 0)
        before = len(asked)
        with opened_answers(folder) as answers:
            answers.confirm(answers.unconfirmed[0].number, "A red circle.")
        found = json.loads(run_here(*command, *judged)[1])
        assert (found["scored"], found["unconfirmed"], found["reference"]["accuracy"]) == (1, 3, 0.5)
        assert len(asked) > before
        assert "A red circle." in json.dumps(asked[-1].body)
    status, out, _ = run_here(*[one for one in command if one != "--json"])
    assert "4 answers" not in out
    assert "3 answers were confirmed by nobody" in out


def test_lmms_eval_is_given_a_task(built: tuple[Path, dict[str, Any]]) -> None:
    """The functions that the task names are there, and do with its documents what lmms-eval asks of them."""
    import importlib

    import yaml

    text = (built[0] / "lmms-eval.yaml").read_text()
    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    task = yaml.load(text, loader)
    assert (task["task"], task["dataset_path"], task["test_split"]) == ("own_own", "json", "test")
    assert task["dataset_kwargs"]["data_files"] == {"test": "questions.json"}
    named = {}
    for key in ("process_docs", "doc_to_visual", "doc_to_text", "doc_to_target", "process_results"):
        module, _, name = task[key].rpartition(".")
        named[key] = getattr(importlib.import_module(module), name)
    documents = records(built[0])
    assert len({frozenset(one) for one in documents}) == 1, "a table has the same columns in every row"

    class Documents(list[Any]):
        def filter(self, wanted: Any) -> Documents:
            return Documents(filter(wanted, self))

    with pytest.raises(DataError, match="confirm"):
        named["process_docs"](Documents(documents))
    first = {**documents[0], "confirmed": True, "metric": "exact"}
    first["conversations"] = [documents[0]["conversations"][0], {"from": "gpt", "value": "red"}]
    assert named["process_docs"](Documents([first, documents[1]])) == [first]
    assert named["doc_to_visual"](first) == [first["image"]]
    assert not named["doc_to_text"](first).startswith("<image>")
    assert named["doc_to_target"](first) == "red"
    assert named["process_results"](first, ["Red."]) == {"accuracy": 1.0}
    assert named["process_results"]({**first, "metric": "judged"}, ["Red."]) == {}
