"""``--schema FILE|JSON``: text where it begins with {, else a file, read as far as a schema may be long."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from llava_edge.cli.terminal.text_or_file import text_or_file
from llava_edge.runtime.answer_forms import MAX_SCHEMA_BYTES
from llava_edge.runtime.errors import OptionError

SCHEMA = '{"type": "object", "properties": {"größe": {"type": "integer"}}}'


def test_text_is_taken_as_it_is() -> None:
    assert text_or_file(SCHEMA, "--schema") == SCHEMA
    assert text_or_file(f" \n{SCHEMA}", "--schema").strip() == SCHEMA


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_is_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a {b}.json"
    path.write_text(SCHEMA, encoding=encoding)
    assert text_or_file(str(path), "--schema") == SCHEMA


def test_a_file_in_the_home_folder_and_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "schema.json").write_text(SCHEMA, encoding="utf-8")
    assert text_or_file("~/schema.json", "--schema") == SCHEMA
    os.mkfifo(tmp_path / "pipe")
    writing = threading.Thread(target=(tmp_path / "pipe").write_text, args=(SCHEMA,), kwargs={"encoding": "utf-8"})
    writing.start()
    assert text_or_file(str(tmp_path / "pipe"), "--schema") == SCHEMA
    writing.join()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.json", "No such file or directory"),
        ("", "Is a directory"),
        ("long.json", f"at most {MAX_SCHEMA_BYTES} bytes for --schema"),
        ("latin.json", "in UTF-8"),
        ("a\0b", "null"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_what_cannot_be_read_is_one_short_line(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "long.json").write_text("{" + " " * MAX_SCHEMA_BYTES, encoding="utf-8")
    (tmp_path / "latin.json").write_bytes(SCHEMA.encode("latin-1"))
    with pytest.raises(OptionError, match=said) as caught:
        text_or_file(str(tmp_path / name), "--schema")
    assert len(str(caught.value)) < 450


def test_an_endless_file_is_given_up() -> None:
    with pytest.raises(OptionError, match="at most"):
        text_or_file("/dev/zero", "--schema")


def test_ask_prints_what_was_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from llava_edge.cli.main import app

    schema = {"type": "object", "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 9}}}
    (tmp_path / "schema.json").write_text(json.dumps({**schema, "required": ["count"], "additionalProperties": False}))
    for given in (["--schema", str(tmp_path / "schema.json")], ["--schema", (tmp_path / "schema.json").read_text()]):
        app(["ask", "How many shapes are there?", *given], standalone_mode=False)
        assert list(json.loads(capfd.readouterr().out)) == ["count"]
    app(["ask", "How many shapes are there?", "--regex", "(one|two) shapes?"], standalone_mode=False)
    assert capfd.readouterr().out.strip() in ("one shape", "one shapes", "two shape", "two shapes")
    app(["ask", "Is it?", "--grammar", 'start: "yes" | "no"'], standalone_mode=False)
    assert capfd.readouterr().out.strip() in ("yes", "no")
