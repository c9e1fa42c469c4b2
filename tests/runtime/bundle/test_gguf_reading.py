"""The reader of GGUF heads against the gguf package's writer and reader, and against files made to harm it."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from llava_edge.runtime.bundle.bundle import demo_bundle
from llava_edge.runtime.bundle.gguf_layout import TensorSpec, lay_out_files
from llava_edge.runtime.bundle.gguf_reading import GgufArray, read_head, read_model
from llava_edge.runtime.bundle.work_folder import Journal, Work, write_tensors
from llava_edge.runtime.errors import BundleError
from llava_edge.runtime.ggml.types import BY_NAME
from support.gguf_reading import read_fields

STRING, ARRAY, UINT32 = 8, 9, 4
HUGE = 2**60
SMALLEST = {kind: size for kind, size in gguf.GGML_QUANT_SIZES.items() if kind.name != "Q8_1"}
"""All types but one that is in no file, whose size the gguf package has wrong."""


def write(path: Path, *, endian: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE, alignment: int = 0) -> Path:
    """A small file with every kind of value, and a tensor of every type."""
    writer = gguf.GGUFWriter(path, "llama", endianess=endian)
    if alignment:
        writer.add_custom_alignment(alignment)
    for name, value in (("uint8", 200), ("int8", -3), ("uint16", 60000), ("int16", -300), ("uint32", 2**32 - 1)):
        getattr(writer, f"add_{name}")(f"t.{name}", value)
    writer.add_int32("t.int32", -5)
    writer.add_uint64("t.uint64", 2**63)
    writer.add_int64("t.int64", -(2**40))
    writer.add_float32("t.float32", 0.25)
    writer.add_float64("t.float64", 1e300)
    writer.add_bool("t.bool", True)
    writer.add_string("t.string", "ß and <|eot_id|>")
    writer.add_token_list(["a", "ß", "", "<s>"])
    writer.add_token_scores([0.0, -1.5, 2.0, 0.5])
    writer.add_array("clip.vision.image_grid_pinpoints", [336, 672, 672, 336])
    writer.add_array("t.bools", [True, False])
    for kind, (_, size) in SMALLEST.items():
        raw = np.arange(3 * size, dtype=np.uint8).reshape(3, size)
        writer.add_tensor(f"{kind.name}.weight", raw, raw_shape=(3, size), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "whole.gguf")


def as_values(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value.read() if isinstance(value, GgufArray) else value for key, value in settings.items()}


@pytest.mark.parametrize("alignment", [0, 8, 64, 4096])
def test_values_tensors_and_places_are_those_of_the_gguf_package(alignment: int, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", alignment=alignment)
    model, fields = read_model(path), {k: v for k, v in read_fields(path).items() if not k.startswith("GGUF.")}
    assert as_values(model.settings) == fields
    assert model.array("tokenizer.ggml.tokens") == ["a", "ß", "", "<s>"]
    assert model.array("clip.vision.image_grid_pinpoints") == [336, 672, 672, 336]
    theirs = gguf.GGUFReader(path).tensors
    assert [(one.name, one.type, one.offset, one.size) for one in model.tensors] == [
        (one.name, one.tensor_type, one.data_offset, one.n_bytes) for one in theirs
    ]
    assert [one.shape for one in model.tensors] == [tuple(map(int, one.shape)) for one in theirs]
    assert model.pairs.alignment == (alignment or 32)


def test_the_demo_models_vocabulary() -> None:
    path = demo_bundle() / "llm.gguf"
    model, fields = read_model(path), read_fields(path)
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type"):
        assert model.array(key) == fields[key]
    with pytest.raises(KeyError):
        model.array("general.architecture")


@pytest.mark.parametrize("split_size", [10**9, 400])
@pytest.mark.parametrize("alignment", [8, 256])
def test_an_alignment_is_kept_where_a_file_is_written_again(alignment: int, split_size: int, tmp_path: Path) -> None:
    """The gguf package reads the same data from the same places, in one file and in several."""
    source = read_model(write(tmp_path / "m.gguf", alignment=alignment))
    specs = [TensorSpec(one.name, one.shape, one.type, one.size) for one in source.tensors]
    data = {one.name: one.path.read_bytes()[one.offset :][: one.size] for one in source.tensors}
    (tmp_path / "again").mkdir()
    files = lay_out_files(source.pairs, specs, name="again.gguf", split_size=split_size)
    work = Work(tmp_path / "again", Journal(tmp_path / "journal", "key"))
    write_tensors(work, files, chunks=lambda name: [memoryview(data[name])])
    again = read_model(tmp_path / "again" / files[0].name)
    assert again.pairs == source.pairs
    assert all(one.offset % alignment == 0 for one in again.tensors)
    found = {}
    for file in files:
        reader = gguf.GGUFReader(tmp_path / "again" / file.name)
        assert reader.alignment == alignment
        found.update({one.name: one.data.tobytes() for one in reader.tensors})
    assert found == data


def test_version_2_is_read_as_3(whole: Path, tmp_path: Path) -> None:
    raw = whole.read_bytes()
    (tmp_path / "two.gguf").write_bytes(raw[:4] + struct.pack("<I", 2) + raw[8:])
    assert read_model(tmp_path / "two.gguf").pairs == read_model(whole).pairs


def test_a_big_endian_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "big.gguf", endian=gguf.GGUFEndian.BIG)
    with pytest.raises(BundleError, match=r"a big-endian GGUF file.*gguf_convert_endian\.py"):
        read_head(path)


# --- files made to harm ---


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: bytes, shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + values


def nested(depth: int) -> bytes:
    return array(ARRAY, 1) * depth + array(UINT32, 1, bytes(4))


def file(pairs: list[bytes], tensors: list[bytes], *, version: int = 3, counts: tuple[int, int] | None = None) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(pairs))))
    return head + b"".join(pairs) + b"".join(tensors) + bytes(256)


NUMBER = pair(b"a", UINT32, bytes(4))
HARMFUL = {
    "version 1": (file([], [], version=1), "version 2 or 3"),
    "a key twice": (file([NUMBER, NUMBER], []), "'a' twice"),
    "a tensor twice": (file([], [tensor(b"t"), tensor(b"t")]), "'t' twice"),
    "an endless string": (file([pair(b"a", STRING, text(b"x", HUGE))], []), "a string"),
    "an endless key": (file([text(b"k", HUGE)], []), "a string"),
    "an endless array": (file([pair(b"a", ARRAY, array(UINT32, HUGE))], []), "values"),
    "an endless array of strings": (file([pair(b"a", ARRAY, array(STRING, HUGE))], []), "values"),
    "an endless array of arrays": (file([pair(b"a", ARRAY, array(ARRAY, HUGE))], []), "values"),
    "an endless string in an array": (file([pair(b"a", ARRAY, array(STRING, 2, text(b"x", HUGE)))], []), "2 strings"),
    "deep arrays": (file([pair(b"a", ARRAY, nested(5000))], []), "arrays inside each other"),
    "endless pairs": (file([], [], counts=(0, HUGE)), "key-value pairs"),
    "endless tensors": (file([], [], counts=(HUGE, 0)), "tensors"),
    "a value of no type": (file([pair(b"a", 13, bytes(8))], []), "a type of values"),
    "a tensor of no type": (file([], [tensor(b"t", kind=43)]), "type 43"),
    "a tensor of a type given up": (file([], [tensor(b"t", kind=31)]), "type 31"),
    "five axes": (file([], [tensor(b"t", (1, 1, 1, 1, 1))]), "4 axes"),
    "an endless axis": (file([], [tensor(b"t", (HUGE, HUGE))]), "a file of"),
    "rows that are no blocks": (file([], [tensor(b"t", (100,), BY_NAME["q4_k"].number)]), "blocks of 256"),
    "data behind the end": (file([], [tensor(b"t", (8,), offset=4096)]), "a file of"),
    "data between places": (file([], [tensor(b"t", (8,), offset=8)]), "multiples of 32"),
    "no alignment": (file([pair(b"general.alignment", UINT32, bytes(4))], []), "power of two"),
    "an odd alignment": (file([pair(b"general.alignment", UINT32, struct.pack("<I", 48))], []), "power of two"),
    "a wide alignment": (file([pair(b"general.alignment", 10, struct.pack("<Q", 64))], []), "power of two"),
    "a name that is no text": (file([pair(b"\xff", UINT32, bytes(4))], []), "UTF-8"),
    "nothing": (b"", "GGUF"),
    "a head cut off": (file([], [])[:10], "a number"),
    "another file": (b"ONNX" + bytes(64), "begins with b'ONNX'"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_what_is_refused_in_one_line_without_memory(name: str, tmp_path: Path) -> None:
    raw, said = HARMFUL[name]
    (tmp_path / "m.gguf").write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match=said) as caught:
            read_model(tmp_path / "m.gguf")
        assert tracemalloc.get_traced_memory()[1] < 2**20 + 4 * len(raw)
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("expected ") == 1


def test_what_looks_harmful_and_is_none(tmp_path: Path) -> None:
    raw = file([pair(b"a", ARRAY, nested(2)), pair(b"s", ARRAY, array(STRING, 1, text(b"\xff")))], [tensor(b"t")])
    (tmp_path / "m.gguf").write_bytes(raw)
    model = read_model(tmp_path / "m.gguf")
    assert model.array("a") == [[[0]]]
    assert model.array("s")[0].encode("utf-8", "surrogateescape") == b"\xff"


def attempt(path: Path) -> bool:
    """Whether a file is read, arrays and all; anything but a BundleError in one line is a failure."""
    said = ""
    try:
        as_values(read_model(path).settings)
    except BundleError as error:
        said = str(error)
    assert "\n" not in said
    return not said


def test_every_truncation_is_refused(whole: Path, tmp_path: Path) -> None:
    raw, path, draw = whole.read_bytes(), tmp_path / "m.gguf", random.Random(0)
    last = max(one.offset + one.size for one in read_model(whole).tensors)
    for size in {*draw.sample(range(last), 200), *range(80), last - 1}:
        path.write_bytes(raw[:size])
        assert not attempt(path), size
    path.write_bytes(raw[:last])
    assert attempt(path)


def test_changed_bytes_are_read_or_refused(whole: Path, tmp_path: Path) -> None:
    """Bits, bytes and lengths of the head changed at random: never another error, never much memory."""
    raw, path, draw = whole.read_bytes(), tmp_path / "m.gguf", random.Random(1)
    head = min(one.offset for one in read_model(whole).tensors)
    read = 0
    tracemalloc.start()
    try:
        for _ in range(1000):
            changed = bytearray(raw)
            for _ in range(draw.choice((1, 1, 2, 8))):
                at = draw.randrange(head)
                patch = draw.choice((bytes([changed[at] ^ 1 << draw.randrange(8)]), draw.randbytes(1), b"\xff" * 8))
                changed[at : at + len(patch)] = patch
            path.write_bytes(changed)
            read += attempt(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20 + 16 * len(raw)
    finally:
        tracemalloc.stop()
    assert 0 < read < 1000  # some changes hit text alone
