"""What can't be written is found before the work: against the writers themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from llava_edge.runtime.errors import LlavaEdgeError, OptionError
from llava_edge.runtime.system.outputs import check_output_file, check_output_folder
from llava_edge.runtime.system.storage import write_text


def test_what_can_be_written_passes_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("mine")
    (tmp_path / "link.json").symlink_to(tmp_path / "there.json")
    for path in ("there.json", "link.json", "new.json", "deep/er/new.json"):
        check_output_file(tmp_path / path, "--json")
    check_output_folder(tmp_path, ["a.json"], "--out")
    check_output_folder(tmp_path / "new", ["a.json"], "--out")
    check_output_file(Path(os.devnull), "--json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "there.json"]
    assert (tmp_path / "there.json").read_text() == "mine"


@pytest.mark.parametrize("path", ["folder", "file/new.json", "n" * 300, "a\0b", "folder-link"])
def test_what_the_writer_refuses_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "folder-link").symlink_to(tmp_path / "folder")
    with pytest.raises((LlavaEdgeError, OSError, ValueError)):
        write_text(tmp_path / path, "x")
    with pytest.raises(LlavaEdgeError) as caught:
        check_output_file(tmp_path / path, "--json")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_a_file_or_holds_a_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "out" / "a.json").mkdir(parents=True)
    for folder in ("file", "out", "file/below"):
        with pytest.raises(OptionError, match="--out"):
            check_output_folder(tmp_path / folder, ["a.json"], "--out")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LlavaEdgeError, match="Permission denied"):
        check_output_file(tmp_path / "new.json", "--json")
