"""Questions from every source, against rows written here and prompts written out as lmms-eval formats them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llava_edge.benchmark.data.datasets import load_questions
from llava_edge.benchmark.data.heldout import heldout
from llava_edge.runtime.errors import DataError, MissingExtraError
from support.hub_server import hub_server
from support.published_data import FILES, ROWS, png, write_published

LETTER = "Answer with the option's letter from the given choices directly."


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def folder_of(path: Path, records: Any, name: str = "questions.json") -> str:
    (path / "a.png").write_bytes(png(1))
    (path / name).write_text(json.dumps(records))
    return str(path)


def record(**more: Any) -> dict[str, Any]:
    return {"id": "7", "image": "a.png", "conversations": turns("<image>\nWhat?", "A cat")} | more


def test_the_bundled_set() -> None:
    records = json.loads((heldout() / "questions.json").read_text())
    questions = load_questions("demo")
    assert [one.id for one in questions] == [one["id"] for one in records]
    assert [one.answers for one in questions] == [(one["conversations"][1]["value"],) for one in records]
    assert {one.type for one in questions} == {one["type"] for one in records}
    assert all(
        one.prompt in original["conversations"][0]["value"] for one, original in zip(questions, records, strict=True)
    )
    assert not any("<image>" in one.prompt for one in questions)
    assert all(one.images[0].is_file() and one.metric == "exact" for one in questions)


def test_a_folder_in_llava_format(tmp_path: Path) -> None:
    long = [*turns("<image>\nWhat?", "A cat"), *turns("Where?", "There")]
    records = [
        record(conversations=long, accepted=["cat"], type="animals"),
        record(
            id=8,
            image=["a.png", "a.png"],
            conversations=turns("Same? <image><image>", "B"),
            metric="choice",
            choices=["no", "yes"],
        ),
        {"conversations": turns("Hello?", "Hello."), "metric": "judged"},
    ]
    first, second, third = load_questions(folder_of(tmp_path, records))
    assert (first.id, first.type, first.prompt, first.answers) == ("7", "animals", "What?", ("A cat", "cat"))
    assert (first.images, first.metric, first.max_tokens) == ((tmp_path / "a.png",), "exact", 32)
    assert (second.id, second.prompt, second.metric, second.choices) == ("8", "Same?", "choice", ("no", "yes"))
    assert len(second.images) == 2
    assert (third.id, third.type, third.images, third.metric) == ("2", "all", (), "judged")
    assert third.max_tokens > 500


def test_the_first_question_has_its_own_pictures(tmp_path: Path) -> None:
    """Those of later turns are left out with them; without any <image>, all are the first question's."""
    later = [*turns("<image>What?", "A cat"), *turns("<image>And this?", "A dog")]
    (tmp_path / "b.png").write_bytes(png(2))
    both = ["a.png", "b.png"]
    records = [record(image=both, conversations=later), record(image=both, conversations=turns("Same?", "no"))]
    first, second = load_questions(folder_of(tmp_path, records))
    assert first.images == (tmp_path / "a.png",)
    assert second.images == (tmp_path / "a.png", tmp_path / "b.png")
    with pytest.raises(DataError, match="1 <image>, one a picture"):
        load_questions(folder_of(tmp_path, [record(conversations=turns("<image><image>?", "no"))]))


def test_the_documented_folder(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmark-data.md").read_text()
    (tmp_path / "questions.json").write_text(page.split("```json\n")[1].split("```")[0])
    for name in ("receipt.jpg", "before.png", "after.png"):
        (tmp_path / name).write_bytes(png(1))
    number, judged = load_questions(str(tmp_path))
    assert (number.metric, number.type, number.prompt) == ("number", "receipts", "What is the total?")
    assert (judged.metric, judged.prompt, len(judged.images)) == ("judged", "What changed?", 2)


def test_repeated_ids_get_numbers(tmp_path: Path) -> None:
    records = [record(), record(id="7#2"), record(), record()]
    assert [one.id for one in load_questions(folder_of(tmp_path, records))] == ["7", "7#2", "7#3", "7#4"]


def test_limit_counts_by_type(tmp_path: Path) -> None:
    records = [record(id=str(index), type="ab"[index % 2]) for index in range(10)]
    data = folder_of(tmp_path, records)
    assert [one.id for one in load_questions(data, limit=2)] == ["0", "1", "2", "3"]
    assert len(load_questions(data)) == 10


def test_any_single_json_file_will_do(tmp_path: Path) -> None:
    data = folder_of(tmp_path, [record()], name="eval.json")
    assert len(load_questions(data)) == 1
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match=r"eval\.json, other\.json"):
        load_questions(data)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"image": "../b.png"}, "outside"),
        ({"image": "/etc/b.png"}, "outside"),
        ({"image": "b.png"}, r"no picture b\.png"),
        ({"conversations": []}, "record 0"),
        ({"conversations": turns("What?", "")[::-1]}, "end with an answer"),
        ({"conversations": [*turns("<image>What?", "")[::-1], *turns("a", "b")]}, "begin with human, gpt"),
        ({"metric": "bleu"}, "exact, choice, number, anls, judged"),
        ({"accepted": 3}, "record 0"),
        ({"max_tokens": "many"}, "many"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, broken: dict[str, Any], said: str) -> None:
    (tmp_path.parent / "b.png").write_bytes(png(1))
    with pytest.raises(DataError, match=said) as caught:
        load_questions(folder_of(tmp_path, [record(**broken)]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", "[]", "3", "[1]", "not json"])
def test_no_list_of_records(tmp_path: Path, content: str) -> None:
    (tmp_path / "questions.json").write_text(content)
    with pytest.raises(DataError):
        load_questions(str(tmp_path))


@pytest.mark.parametrize(
    ("data", "said"),
    [("mmmu", "mmmu:lmms-lab/MMMU"), ("nothing", "NAME:PATH"), ("x:y", "NAME:PATH"), ("mmmu:", "NAME:PATH")],
)
def test_what_is_no_source(data: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said):
        load_questions(data)


def load_published(tmp_path: Path, name: str) -> list[Any]:
    write_published(tmp_path, name)
    return load_questions(f"{name}:{tmp_path}")


def test_mmmu(tmp_path: Path) -> None:
    choice, number, words = load_published(tmp_path, "mmmu")
    assert choice.prompt == f"Who made <image 1>?\nA. A child\nB. Nobody's <image 2>\n\n{LETTER}"
    assert (choice.id, choice.type) == ("validation_Art_Theory_1", "Art_Theory")
    assert (choice.metric, choice.answers, choice.choices) == ("choice", ("B",), ("A child", "Nobody's <image 2>"))
    assert choice.images == (png(1), png(2))
    assert number.prompt == "In <image 1>, what is x?\n\nAnswer the question using a single word or phrase."
    assert (number.metric, number.answers, number.type) == ("number", ("24", "24.0"), "Math")
    assert number.images == (png(3),)  # the second picture is not asked about
    assert (words.metric, words.answers) == ("exact", ("a cone",))


def test_mathvista(tmp_path: Path) -> None:
    choice, integer, real, several = load_published(tmp_path, "mathvista")
    assert choice.prompt == f"Question 1?\nA. small\nB. large\n{LETTER}"
    assert (choice.metric, choice.answers, choice.choices) == ("choice", ("B",), ("small", "large"))
    assert (choice.type, choice.images) == ("figure question answering", (png(1),))
    assert integer.prompt == "Question 2? (Unit: $)\nAnswer the question using a single integer number."
    assert (integer.metric, integer.answers) == ("number", ("14",))
    assert real.prompt.endswith("\nAnswer the question using a single floating-point number with one decimal place.")
    assert (several.metric, several.answers) == ("exact", ("[2007, 2008]",))


def test_ai2d(tmp_path: Path) -> None:
    first, second = load_published(tmp_path, "ai2d")
    assert first.prompt == f"Which comes first?\nA. egg\nB. larva\nC. pupa\n{LETTER}"
    assert (first.answers, first.choices, first.images) == (("C",), ("egg", "larva", "pupa"), (png(7),))
    assert (second.answers, second.id) == (("A",), "1")


def test_realworldqa(tmp_path: Path) -> None:
    choice, number, word = load_published(tmp_path, "realworldqa")
    assert choice.prompt == ROWS["realworldqa"][0]["question"].strip()
    assert (choice.metric, choice.answers, choice.choices) == ("choice", ("B",), ("Left.", "Right."))
    assert (number.metric, number.answers, number.choices) == ("number", ("3",), ())
    assert (word.metric, word.answers, word.type) == ("exact", ("Yes",), "short answer")


def test_the_judged_sets(tmp_path: Path) -> None:
    (wild,) = load_published(tmp_path / "w", "llava-w")
    assert (wild.id, wild.type, wild.prompt, wild.answers) == ("4", "conv", "What is this?", ("A lake.",))
    (wilder,) = load_published(tmp_path / "wilder", "llava-wilder")
    assert (wilder.type, wilder.prompt, wilder.answers, wilder.images) == (
        "OCR",
        "Read it.",
        ("It says so.",),
        (png(13),),
    )
    assert {wild.metric, wilder.metric} == {"judged"}


def test_only_the_split_with_public_answers_is_read(tmp_path: Path) -> None:
    path = write_published(tmp_path, "mathvista")
    (path.parent / "test-00000-of-00001.parquet").write_bytes(b"withheld answers: never opened")
    assert len(load_questions(f"mathvista:{tmp_path}")) == 4
    assert len(load_questions(f"mathvista:{path}")) == 4
    with pytest.raises(DataError, match=r"validation-\*\.parquet.*none"):
        load_questions(f"mmmu:{tmp_path}")


def test_limit_of_a_published_set(tmp_path: Path) -> None:
    write_published(tmp_path, "mmmu")
    assert [one.type for one in load_questions(f"mmmu:{tmp_path}", limit=1)] == ["Art_Theory", "Math"]


def test_another_data_set_under_the_name(tmp_path: Path) -> None:
    path = write_published(tmp_path, "ai2d")
    with pytest.raises(DataError, match="no question_id, category, gpt_answer"):
        load_questions(f"llava-w:{path}")


NOT_A_PICTURE = {"bytes": b"no picture", "path": None}
CUT = {"bytes": png(1)[:40], "path": None}
ODD_ROWS = [
    *(
        ("ai2d", 1, odd)
        for odd in ({"answer": "3"}, {"answer": "-1"}, {"answer": None}, {"answer": "x"}, {"image": None})
    ),
    *(("ai2d", 0, odd) for odd in ({"image": NOT_A_PICTURE}, {"image": CUT}, {"image": {"bytes": b"", "path": None}})),
    *(("ai2d", 0, odd) for odd in ({"question": None}, {"question": " "}, {"options": []}, {"options": None})),
    ("ai2d", 0, {"options": ["egg", None, "pupa"]}),
    *(
        ("mmmu", 0, odd)
        for odd in ({"id": None}, {"question": None}, {"options": None}, {"options": "["}, {"options": "3"})
    ),
    *(("mmmu", 0, odd) for odd in ({"answer": None}, {"answer": "F"}, {"answer": "["}, {"image_1": None})),
    *(("mmmu", 0, odd) for odd in ({"image_2": NOT_A_PICTURE}, {"question_type": None}, {"question": "<image 9>?"})),
    ("mmmu", 0, {"options": "[" * 100_000}),
    *(("mathvista", 0, odd) for odd in ({"answer": "huge"}, {"answer": None}, {"decoded_image": NOT_A_PICTURE})),
    *(
        ("mathvista", 1, odd)
        for odd in ({"answer": None}, {"answer": "many"}, {"answer_type": None}, {"question": None})
    ),
    *(("mathvista", 2, odd) for odd in ({"precision": None}, {"precision": 7.0}, {"precision": float("nan")})),
    *(("realworldqa", 1, odd) for odd in ({"answer": None}, {"answer": ""}, {"question": None}, {"image": CUT})),
    *(("llava-w", 0, odd) for odd in ({"gpt_answer": None}, {"question": None}, {"image": None}, {"category": None})),
    *(("llava-wilder", 0, odd) for odd in ({"Answer": None}, {"Question": ""}, {"image": NOT_A_PICTURE})),
]


@pytest.mark.parametrize(("name", "at", "odd"), ODD_ROWS)
def test_an_odd_row_is_counted_and_named_and_the_rest_are_read(
    tmp_path: Path, name: str, at: int, odd: dict[str, Any]
) -> None:
    good = ROWS[name]
    rows = [*good[:at], good[at] | odd, *good[at + 1 :], good[at]]
    found = load_questions(f"{name}:{write_published(tmp_path, name, rows)}")
    assert len(found) == len(good)
    (said,) = found.left_out
    assert f"row {at}" in said
    assert "\n" not in said
    assert len(said) < 700


def test_where_all_rows_are_odd_the_first_is_the_error(tmp_path: Path) -> None:
    rows = [one | {"image": None} for one in ROWS["ai2d"]]
    with pytest.raises(DataError, match="row 0 of"):
        load_questions(f"ai2d:{write_published(tmp_path, 'ai2d', rows)}")


def test_a_file_without_a_column_is_odd_rows_beside_one_that_has_it(tmp_path: Path) -> None:
    write_published(tmp_path, "mathvista")
    lacking = [{key: value for key, value in row.items() if key != "unit"} for row in ROWS["mathvista"][:2]]
    other = write_published(tmp_path / "other", "mathvista", lacking)
    with pytest.raises(DataError, match="no unit"):
        load_questions(f"mathvista:{other}")
    found = load_questions(f"mathvista:{tmp_path}")
    assert (len(found), len(found.left_out)) == (4, 2)
    assert "KeyError: 'unit'" in found.left_out[0]


BROKEN_RECORDS: list[dict[str, Any]] = [
    {"image": "none.png"},
    {"image": "broken.png"},
    {"image": "../a.png"},
    {"image": r"..\a.png"},
    {"image": "C:\\a.png"},
    {"image": "https://host/a.png"},
    {"image": "a\0.png"},
    {"image": "n" * 5000},
    {"image": 3},
    {"conversations": []},
    {"conversations": None},
    {"metric": "bleu"},
    {"metric": ["exact"]},
    {"metric": "choice", "choices": ["x", "y"], "conversations": turns("<image>?", "C")},
    {"metric": "number", "conversations": turns("<image>?", "many")},
    {"choices": "xy"},
    {"choices": [None]},
    {"accepted": "cat"},
    {"max_tokens": 0},
    {"max_tokens": -3},
    {"max_tokens": None},
    {"max_tokens": float("inf")},
]


@pytest.mark.parametrize("broken", BROKEN_RECORDS)
def test_an_odd_record_is_counted_and_named_and_the_rest_are_read(tmp_path: Path, broken: dict[str, Any]) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = load_questions(folder_of(tmp_path, [record(), record(id="odd") | broken, record(id="8")]))
    assert [one.id for one in found] == ["7", "8"]
    (said,) = found.left_out
    assert "record 1 ('odd')" in said
    assert "\n" not in said
    assert len(said) < 700


@pytest.mark.parametrize("junk", [3, None, "text", [], [[]], {}])
def test_a_record_that_is_no_object_is_odd_too(tmp_path: Path, junk: Any) -> None:
    found = load_questions(folder_of(tmp_path, [record(), junk]))
    assert (len(found), len(found.left_out)) == (1, 1)


@pytest.mark.parametrize("name", ["questions.json", "eval.json", "eval.jsonl"])
def test_what_systems_leave_in_folders_is_not_read(tmp_path: Path, name: str) -> None:
    data = folder_of(tmp_path, [record()], name=name)
    for other in ("._" + name, ".DS_Store", "Thumbs.db", "._data.json", ".hidden.jsonl"):
        (tmp_path / other).write_bytes(b"\0\5\x16\7")
    assert len(load_questions(data)) == 1


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
def test_a_line_a_record(tmp_path: Path, start: str, ending: str) -> None:
    folder_of(tmp_path, [])
    (tmp_path / "questions.json").unlink()
    lines = [json.dumps(record(id=str(number))) for number in range(3)]
    (tmp_path / "questions.jsonl").write_bytes((start + ending.join(lines) + ending).encode())
    assert [one.id for one in load_questions(str(tmp_path))] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("coco/1.png", r"coco\1.png"),
        ("coco/1.png", "./coco/1.png"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("e\u0301/caf\u00e9.png", "\u00e9\\cafe\u0301.png"),
        ("a\\b.png", "a\\b.png"),
    ],
)
def test_names_as_another_system_spells_them(tmp_path: Path, file: str, named: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(png(3))
    (found,) = load_questions(folder_of(tmp_path, [record(image=named)]))
    assert found.images == (tmp_path / file,)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = write_published(tmp_path, "ai2d")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match="can be read") as caught:
        load_questions(f"ai2d:{path}")
    assert "\n" not in str(caught.value)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_published(tmp_path, "ai2d")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"llava-edge\[benchmark\]"):
        load_questions(f"ai2d:{path}")


LOAD = """
import sys
from llava_edge.benchmark.data.datasets import load_questions
from llava_edge.runtime.errors import LlavaEdgeError
for data in sys.argv[1:]:
    try:
        print(*(one.id for one in load_questions(data)))
    except LlavaEdgeError as error:
        print(type(error).__name__, error)
print("torch" in sys.modules)
"""


def load_from(endpoint: str, home: Path, *data: str) -> list[str]:
    """In a process of its own: huggingface_hub reads its environment once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *data], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("\n")


@pytest.mark.slow
def test_a_hub_id(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    write_published(folder, "mmmu")
    (folder / "Art_Theory" / "test-00000-of-00001.parquet").write_bytes(b"not needed")
    (folder / "README.md").write_text("not needed")
    wanted = ["mmmu:someone/mmmu", "mathvista:someone/mmmu", "mmmu:someone/nothing"]
    with hub_server({"someone/mmmu": folder}) as (endpoint, asked):
        loaded, no_split, nothing, torch = load_from(endpoint, tmp_path / "home", *wanted)
        assert asked == [FILES["mmmu"]]
        assert load_from(endpoint, tmp_path / "home", wanted[0])[0] == loaded
        assert len(asked) == 1  # cached
    assert loaded == "validation_Art_Theory_1 validation_Math_12 validation_Math_13"
    assert no_split.startswith("DataError expected files testmini-*.parquet in someone/mmmu; got none")
    assert nothing.startswith("DataError expected the hub to serve the data set someone/nothing")
    assert torch == "False"


def test_what_is_no_hub_id() -> None:
    with pytest.raises(DataError, match="hub id"):
        load_questions("mmmu:./nothing/here")


TASKS = {
    "mmmu": ("mmmu.utils", "mmmu_doc_to_text"),
    "mathvista": ("mathvista.utils", "mathvista_doc_to_text"),
    "ai2d": ("ai2d.utils", "ai2d_doc_to_text"),
    "realworldqa": ("realworldqa.utils", "realworldqa_doc_to_text"),
    "llava-w": ("llava-in-the-wild.utils", "llava_doc_to_text"),
    "llava-wilder": ("llava_wilder.utils", "llava_doc_to_text"),
}
SETTINGS = {
    "multiple_choice_prompt": LETTER,
    "open_ended_prompt": "Answer the question using a single word or phrase.",
    "prompt_type": "format",
    "prompt_format": "mcq",
    "shot": 0,
    "shot_type": "format-prompt",
    "use_caption": False,
    "use_ocr": False,
    "pre_prompt": "",
}
"""The tasks' own ``lmms_eval_specific_kwargs`` (default), joined."""


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.filterwarnings("ignore")
def test_prompts_are_lmms_evals(name: str, tmp_path: Path) -> None:
    """Against the functions themselves, where that package is installed (it is not in the development set-up)."""
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed")
    module, function = TASKS[name]
    try:
        to_text = getattr(importlib.import_module(f"lmms_eval.tasks.{module}"), function)
    except ImportError as error:
        pytest.skip(f"this task of lmms-eval needs more: {error}")
    settings = SETTINGS | {"post_prompt": f"\n{LETTER}" if name == "ai2d" else ""}
    expected = [to_text(row, settings) for row in ROWS[name]]
    assert [one.prompt for one in load_published(tmp_path, name)] == expected
