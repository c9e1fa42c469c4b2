"""Tables as people's programs write them: read as they are meant, or refused with the place that is wrong."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from llava_edge.benchmark.regression import scores as module
from llava_edge.benchmark.regression.scores import (
    LARGEST_FILE,
    MOST_BENCHMARKS,
    MOST_MODELS,
    Scores,
    logarithmic,
    read_scores,
)
from llava_edge.runtime.errors import DataError, OptionError

PLAIN = "model,parameters,text,MMMU\nA,7,60.1,33.4\nB,,52.1,35.9\n"
MEANT = Scores(("A", "B"), (7.0, None), "text", (60.1, 52.1), {"MMMU": (33.4, 35.9)})


def read(folder: Path, content: str | bytes, x: str = "text") -> Scores:
    path = folder / "scores.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_scores(path, x=x)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", ";").replace(".", ","),
        "sep=;\n" + PLAIN.replace(",", ";").replace(".", ","),
        '# where they are from, "quoted\n\n' + PLAIN + "\n# the end\n",
        PLAIN.replace("model", "Model").replace("text", " TEXT "),
        PLAIN.replace("\n", ",,\n"),
        PLAIN.replace("A,7,60.1,33.4", '"A","7","60.1","33.4"'),
        PLAIN.replace("33.4", "33.4 %").replace("35.9", "35.9%"),
        PLAIN.replace("B,,", "B,–,"),
        PLAIN.replace("60.1", "6.01e1").replace("52.1", "+52.1"),
        PLAIN + ",,,\n",
    ],
)
def test_what_is_meant(content: str, tmp_path: Path) -> None:
    assert read(tmp_path, content) == MEANT


def test_cells_without_a_score(tmp_path: Path) -> None:
    found = read(tmp_path, PLAIN.replace("33.4", "-").replace("52.1", ""))
    assert (found.text, found.benchmarks["MMMU"]) == ((60.1, None), (None, 35.9))


def test_a_minus_as_it_is_typeset(tmp_path: Path) -> None:
    assert read(tmp_path, PLAIN.replace("33.4", "−33.4")).benchmarks["MMMU"][0] == -33.4


def test_a_name_with_everything_in_it(tmp_path: Path) -> None:
    found = read(tmp_path, PLAIN.replace("A,7", '"A, ""b""; $c$ 模型",7'))
    assert found.models[0] == 'A, "b"; $c$ 模型'


def test_another_column_for_x(tmp_path: Path) -> None:
    found = read(tmp_path, PLAIN, x="mmmu")
    assert (found.x, found.text, list(found.benchmarks)) == ("MMMU", (33.4, 35.9), ["text"])
    assert read(tmp_path, PLAIN.replace("text", "MMLU"), x="MMLU").x == "MMLU"
    assert read(tmp_path, PLAIN, x="parameters").text == (7.0, None)
    for wrong in ("MMLU", "model", ""):
        with pytest.raises(OptionError, match="choose among parameters, text, MMMU"):
            read(tmp_path, PLAIN, x=wrong)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a line of column names"),
        ("\n# nothing else\n\n", "a line of column names"),
        ("model,parameters,text,MMMU\n", "a line a model below the columns' names"),
        ("parameters,text,MMMU\n7,60,33\n", "a column 'model'"),
        ("model,text,MMMU\nA,60,33\n", "a column 'parameters'"),
        ("model,parameters,MMMU\nA,7,33\n", "a column 'text'"),
        ("model,parameters,text\nA,7,33\n", "from 1 to 24 columns"),
        ("model parameters text MMMU\nA 7 60 33\n", "a column 'model'"),
        ("model,parameters,text,MMMU,MMMU\nA,7,60,33,34\n", "every column once"),
        ("model,parameters,text,,MMMU\nA,7,60,33,34\n", "a name for every column"),
        ("model,parameters,text,MM\x1bMU\nA,7,60,33\n", "names of columns that can be shown"),
        (PLAIN.replace("33.4", "good"), "a number in line 2, column 'MMMU',.*got 'good'"),
        (PLAIN.replace("33.4", "33,4"), "4 cells in line 2.*got 5"),
        (PLAIN.replace("33.4", '"33,4"'), "a number in line 2, column 'MMMU',.*got '33,4'; write numbers as 49.9"),
        (PLAIN.replace("33.4", '"1,234.5"'), "a number in line 2"),
        (PLAIN.replace(",", ";").replace("33.4", "1.234,5"), "a number in line 2"),
        (PLAIN.replace("33.4", "nan"), "a number in line 2.*got 'nan'"),
        (PLAIN.replace("33.4", "NaN"), "a number in line 2"),
        (PLAIN.replace("33.4", "inf"), "a number in line 2"),
        (PLAIN.replace("33.4", "1e999"), "a number in line 2"),
        (PLAIN.replace("33.4", "1_0"), "a number in line 2"),
        (PLAIN.replace("33.4", "٣٣"), "a number in line 2"),
        (PLAIN.replace("33.4", "**33.4**"), "a number in line 2"),
        (PLAIN.replace("33.4", "%"), "a number in line 2"),
        (PLAIN.replace("33.4", "33.4%"), "'MMMU' with or without % throughout.*lines 2 and 3"),
        (PLAIN.replace(",7,", ",7B,"), "a number in line 2, column 'parameters'"),
        (PLAIN.replace(",7,", ",0,"), "parameters above 0 in line 2"),
        (PLAIN.replace(",7,", ",-7,"), "parameters above 0 in line 2"),
        (PLAIN.replace("B,,52.1,35.9", "B,,52.1"), "4 cells in line 3.*got 3"),
        (PLAIN.replace("B,", " a ,"), "every model once.*'a' in lines 2 and 3"),
        (PLAIN.replace("B,", ","), "a model's name in line 3"),
        (PLAIN.replace("B,", "B\x07,"), "a model's name in line 3"),
        (PLAIN.replace("B,", '"B,'), "CSV in line"),
        (PLAIN.replace("B,", '"B"x,'), "CSV in line 3"),
        (PLAIN.replace("B,", "B" * 200_000 + ","), "CSV in line 3"),
        (PLAIN.encode("utf-16"), "UTF-8 text"),
        (PLAIN.replace("A", "Ä").encode("latin-1"), "UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "UTF-8 text"),
        (PLAIN + "".join(f"m{at},1,1,1\n" for at in range(MOST_MODELS)), "at most 500 models"),
        (PLAIN + " " * LARGEST_FILE, "at most 4 MB"),
    ],
)
def test_what_is_refused(content: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert "scores.csv" in str(caught.value)


def test_logarithms(tmp_path: Path) -> None:
    found = logarithmic(read(tmp_path, PLAIN.replace("60.1", "0.001").replace("33.4", "").replace("35.9", "100")))
    assert (found.x, found.text[0], found.benchmarks) == ("log₁₀ text", -3.0, {"log₁₀ MMMU": (None, 2.0)})
    for wrong in ("0", "-1"):
        with pytest.raises(DataError, match=f"scores above 0 in 'MMMU' for --log; got {wrong} of A"):
            logarithmic(read(tmp_path, PLAIN.replace("33.4", wrong)))


def test_many_benchmarks_are_refused(tmp_path: Path) -> None:
    names = [f"b{at}" for at in range(MOST_BENCHMARKS + 1)]
    content = f"model,parameters,text,{','.join(names)}\nA,7,60{',1' * len(names)}\n"
    with pytest.raises(DataError, match="split the table"):
        read(tmp_path, content)
    fewer = content.replace(",b0", "").replace(",60,1", ",60")
    assert len(read(tmp_path, fewer).benchmarks) == MOST_BENCHMARKS


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in [
        (tmp_path / "none.csv", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "pipe", "a pipe that nobody writes to"),
        (Path("/dev/zero"), "a device"),
        (Path("a\0b"), "null"),
    ]:
        with pytest.raises(DataError, match=f"(?i)a table of scores at .*{said}"):
            read_scores(path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(PLAIN)
    path.chmod(stat.S_IWUSR)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    if os.geteuid() == 0:  # who may read everything
        monkeypatch.setattr(module, "open_plain", refuse)
    with pytest.raises(DataError, match="Permission denied; check the path"):
        read_scores(path)
