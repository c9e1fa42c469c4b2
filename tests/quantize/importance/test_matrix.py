"""The imatrix file: what gguf's reader finds in it, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from llava_edge.quantize.importance.matrix import Entry, ImportanceMatrix, read_imatrix, write_imatrix
from llava_edge.quantize.importance.source import check_fits
from llava_edge.runtime.errors import OptionError, StorageError

NAME = "blk.0.attn_q.weight"


def matrix(columns: int = 256, name: str = NAME, experts: int = 1) -> ImportanceMatrix:
    sums = np.random.default_rng(0).uniform(1, 2, (experts, columns)).astype(np.float32)
    return ImportanceMatrix({name: Entry(sums, np.full(experts, 7, np.float32))}, ("data", "more"), 3, 512)


def test_the_file_is_llama_cpps_format(tmp_path: Path) -> None:
    """Names, types and shapes as llama.cpp's tools/imatrix writes them, read by gguf's own reader."""
    written = matrix(experts=2)
    write_imatrix(tmp_path / "m.gguf", written)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert fields == {
        "general.type": "imatrix",
        "imatrix.datasets": ["data", "more"],
        "imatrix.chunk_count": 3,
        "imatrix.chunk_size": 512,
    }
    tensors = {one.name: one for one in reader.tensors}
    assert {name: one.shape.tolist() for name, one in tensors.items()} == {
        f"{NAME}.in_sum2": [256, 2],
        f"{NAME}.counts": [1, 2],
    }
    assert {one.tensor_type.name for one in tensors.values()} == {"F32"}
    np.testing.assert_array_equal(tensors[f"{NAME}.in_sum2"].data, written.entries[NAME].sums)
    assert tensors[f"{NAME}.counts"].data.reshape(-1).tolist() == [7, 7]
    again = read_imatrix(tmp_path / "m.gguf")
    assert (again.datasets, again.chunks, again.chunk_size) == (written.datasets, 3, 512)
    np.testing.assert_array_equal(again.entries[NAME].sums, written.entries[NAME].sums)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_importance_is_the_mean_square_and_one_where_nothing_was_seen() -> None:
    entry = Entry(np.array([[2.0, 6.0], [0.0, 0.0]], np.float32), np.array([2, 0], np.float32))
    assert entry.importance().tolist() == [1.0, 3.0, 1.0, 1.0]


def test_a_matrix_of_another_model_is_refused(tiny_bundle: Path) -> None:
    llm = tiny_bundle / "llm.gguf"
    assert set(check_fits(matrix(), llm)) == {NAME}
    with pytest.raises(OptionError, match=r"128 columns at blk\.0\.attn_q\.weight, where it has 256"):
        check_fits(matrix(128), llm)
    with pytest.raises(OptionError, match=r"blk\.9\.attn_q\.weight, which it has not"):
        check_fits(matrix(name="blk.9.attn_q.weight"), llm)


def broken_count(path: Path) -> None:
    entry = Entry(np.ones((1, 4), np.float32), np.array([np.nan], np.float32))
    write_imatrix(path, ImportanceMatrix({NAME: entry}, ("d",), 1, 512))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(b""), "importance matrix"),
        (lambda path: path.write_bytes(b"GGUF" + bytes(60)), "importance matrix"),
        (lambda path: path.write_text("not a matrix, though long enough to be one"), "importance matrix"),
        (broken_count, "that can't be"),
    ],
    ids=["empty", "cut off", "text", "not a number"],
)
def test_what_is_no_imatrix_is_one_line(write: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write(path)  # type: ignore[operator]
    with pytest.raises(OptionError, match=said) as caught:
        read_imatrix(path)
    assert "\n" not in str(caught.value)


def test_a_model_is_no_imatrix(tiny_bundle: Path) -> None:
    with pytest.raises(OptionError, match="a GGUF of type"):
        read_imatrix(tiny_bundle / "llm.gguf")


def test_no_half_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        write_imatrix(tmp_path / "absent" / "m.gguf", matrix())
    assert not list(tmp_path.iterdir())


def legacy(name: bytes = b"blk.0.attn_q.weight") -> bytes:
    """The head of llama.cpp's format before GGUF: entries, then each one's name, calls, values."""
    values = np.ones(4, np.float32).tobytes()
    head = [struct.pack("<ii", 1, len(name)), name, struct.pack("<ii", 3, 4), values, struct.pack("<i", 1)]
    return b"".join(head)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (legacy(), r"the legacy format \(imatrix\.dat\); convert it"),
        (b"Once upon a time\n", "a text file; to calibrate on its text: --imatrix calibrate-text:"),
        ("Größe ".encode() * 2000, "a text file"),
        (b"", "an empty file"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x80\x04\x95", "a pickle"),
        (b"\xff\xfe\x00\x01", "a file that begins with"),
    ],
)
def test_files_that_people_take_for_one_are_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(OptionError, match=said) as caught:
        read_imatrix(tmp_path / "file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sums", "counts", "said"),
    [
        ([[-1.0, 2.0]], [3.0], "a negative sum of squares"),
        ([[1.0, 2.0]], [-3.0], "a negative sum of squares or count"),
        ([[0.0, 0.0]], [3.0], "nothing but zeros"),
        ([[np.nan, 2.0]], [3.0], "that can't be"),
        ([[np.inf, 2.0]], [3.0], "that can't be"),
        ([[1.0, 2.0]], [np.nan], "that can't be"),
    ],
)
def test_sums_that_no_text_gives_are_refused(
    sums: list[list[float]], counts: list[float], said: str, tmp_path: Path
) -> None:
    entry = Entry(np.array(sums, np.float32), np.array(counts, np.float32))
    write_imatrix(tmp_path / "i.gguf", ImportanceMatrix({"blk.0.attn_q.weight": entry}, ("x",), 1, 512))
    with pytest.raises(OptionError, match=said):
        read_imatrix(tmp_path / "i.gguf")
