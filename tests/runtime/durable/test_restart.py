"""What one process read and encoded, another goes on with: the same numbers, and never different or failing answers."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.engine import remembering
from llava_edge.runtime.model import Model, load
from llava_edge.runtime.options import KV_TYPES, QUANTIZED_KV_TYPES, LoadChoices
from llava_edge.runtime.pictures.encoder import PictureEncoder

LOW: LoadChoices = {"cache_min_positions": 16, "cache_min_free_disk": 0}
PICTURES = [np.random.default_rng(seed).integers(0, 255, (90, 60 + 40 * seed, 3), dtype=np.uint8) for seed in range(3)]
LONG = "A text of some length, so that there is something to read: " + "one two three four " * 8


def remember(folder: Path, **more: Any) -> LoadChoices:
    return {**LOW, "cache": folder, **more}  # type: ignore[typeddict-item]


def ask_text(model: Model) -> list[Any]:
    return [model.ask(LONG, max_tokens=1, temperature=0), model.engine.llm.logits()]


def ask_one(model: Model) -> list[Any]:
    return [model.ask("What is this?", [PICTURES[0]], max_tokens=1), model.engine.llm.logits()]


def ask_two(model: Model) -> list[Any]:
    return [model.ask("What are these?", PICTURES[:2], max_tokens=1), model.engine.llm.logits()]


def ask_first(model: Model) -> list[Any]:
    return [model.ask("What is this?", [PICTURES[1]], max_tokens=3), model.engine.llm.logits()]


def ask_on(model: Model) -> list[Any]:
    chat = model.chat()
    first = chat.generate("What is this?", images=[PICTURES[1]], max_tokens=3)
    second = chat.generate("And why?", max_tokens=1)
    return [first, second, model.engine.llm.logits()]


def ask_another(model: Model) -> list[Any]:
    return [model.ask("Which colour has it?", [PICTURES[1]], max_tokens=3), model.engine.llm.logits()]


Question = Callable[[Model], list[Any]]
QUESTIONS: list[tuple[Question, Question]] = [
    *((one, one) for one in (ask_text, ask_one, ask_two)),
    (ask_first, ask_on),
    (ask_first, ask_another),
]


def kinds_of_context() -> list[dict[str, Any]]:
    plain = [{"kv_type_k": one, "kv_type_v": one} for one in KV_TYPES[:3]]
    flash = [{"kv_type_k": one, "kv_type_v": one, "flash_attention": True} for one in KV_TYPES]
    blocks = [{"kv_type_k": one} for one in QUANTIZED_KV_TYPES]  # for values they need flash attention
    return [*plain, *blocks, *flash]


@pytest.mark.parametrize(("before", "question"), QUESTIONS)
def test_after_a_restart_numbers_are_those_of_the_process_that_read(
    before: Question, question: Question, tmp_path: Path
) -> None:
    """``question`` behind ``before``, in one process and in the next: the same split of the prompt."""
    with load() as model:
        cold = question(model)
    with load() as model:
        before(model)
        warm = question(model)
    with load(**remember(tmp_path)) as model:
        before(model)
    with load(**remember(tmp_path)) as model:
        again = question(model)
    assert [one.tokens for one in again[:-1]] == [one.tokens for one in warm[:-1]] == [one.tokens for one in cold[:-1]]
    assert [one.cached_tokens for one in again[:-1]] == [one.cached_tokens for one in warm[:-1]]
    assert again[0].cached_tokens > 16
    np.testing.assert_array_equal(again[-1], warm[-1])


@pytest.mark.parametrize("kind", kinds_of_context(), ids=lambda kind: "-".join(map(str, kind.values())))
def test_every_type_of_cache_comes_back_as_it_was(kind: dict[str, Any], tmp_path: Path) -> None:
    with load(**remember(tmp_path, **kind)) as model:
        cold, warm = ask_one(model), ask_one(model)
    with load(**remember(tmp_path, **kind)) as model:
        again = ask_one(model)
    assert again[0].cached_tokens == warm[0].cached_tokens == warm[0].prompt_tokens - 1
    assert again[0].tokens == cold[0].tokens
    np.testing.assert_array_equal(again[-1], warm[-1])


@pytest.mark.slow
@pytest.mark.parametrize("isolate", ["llm", "engine"])
def test_so_it_is_in_a_process_of_its_own(isolate: Any, tmp_path: Path) -> None:
    for expected in (False, True):
        with load(**remember(tmp_path, isolate=isolate)) as model:
            answer = model.ask("What is this?", [PICTURES[0]], max_tokens=2)
            assert (answer.cached_tokens == answer.prompt_tokens - 1) is expected
            model.unload()
            again = model.ask("What is this?", [PICTURES[0]], max_tokens=2)
            assert (again.tokens, again.cached_tokens) == (answer.tokens, answer.prompt_tokens - 1)


def test_a_known_picture_is_not_encoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(**remember(tmp_path)) as model:
        rows = model.encode_image(PICTURES[0]).embeddings
    monkeypatch.setattr(PictureEncoder, "_encode_tiles", None)  # whoever calls it fails
    with load(**remember(tmp_path)) as model:
        np.testing.assert_array_equal(model.encode_image(PICTURES[0]).embeddings, rows)
        with pytest.raises(TypeError):
            model.encode_image(PICTURES[0], detail="low")
        with pytest.raises(TypeError):
            model.encode_image(PICTURES[1])


@pytest.mark.parametrize(
    "other",
    [
        {"kv_type_k": "f32"},
        {"kv_type_v": "bf16"},
        {"flash_attention": True},
        {"micro_batch": 64},
        {"batch": 256, "micro_batch": 256},
        {"threads": 1 if os.cpu_count() != 1 else 2},
        {"repack": False},
    ],
    ids=str,
)
def test_what_computes_in_another_way_reads_for_itself(other: dict[str, Any], tmp_path: Path) -> None:
    options = {"threads": os.cpu_count() or 2, "repack": True}
    with load(**remember(tmp_path, **options)) as model:
        ask_one(model)
    with load(**remember(tmp_path, **{**options, **other})) as model:
        assert ask_one(model)[0].cached_tokens == 0
    with load(**remember(tmp_path, **options)) as model:
        assert ask_one(model)[0].cached_tokens > 16


def test_another_model_reads_for_itself(tiny_bundle: Path, tmp_path: Path) -> None:
    with load(**remember(tmp_path)) as model:
        ask_text(model)
    with load(tiny_bundle, **remember(tmp_path)) as model:
        assert ask_text(model)[0].cached_tokens == 0


def test_the_library_keeps_nothing_unless_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path / "user"))
    with load() as model:
        ask_one(model)
    assert not (tmp_path / "user" / "v1").exists()
    with load(**remember(tmp_path, cache=True)) as model:
        ask_one(model)
    assert list((tmp_path / "user" / "v1").rglob("*.kv"))


def test_all_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with load(**remember(tmp_path / "new")) as model:
            ask_one(model)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "new" / "v1").rglob("*") if path.is_file()}
    assert modes == {0o600}
    folders = [tmp_path / "new" / one for one in ("", "v1", "v1/pictures", "v1/states")]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def states(folder: Path) -> list[Path]:
    return sorted((folder / "v1" / "states").glob("[!.]*"))


def test_an_idle_moment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "IDLE_SECONDS", 0.05)
    with load(**remember(tmp_path)) as model:
        ask_one(model)
        end = time.monotonic() + 30
        while not states(tmp_path) and time.monotonic() < end:
            time.sleep(0.02)
        assert len(states(tmp_path)) == 1
        assert len(list((tmp_path / "v1" / "pictures").glob("[!.]*"))) == 1


def test_what_another_conversation_displaces_is_kept(tmp_path: Path) -> None:
    with load(**remember(tmp_path)) as model:
        ask_one(model)
        ask_text(model)
        assert not states(tmp_path)  # nothing is finished on a request's way
    assert len(states(tmp_path)) == 2
    with load(**remember(tmp_path)) as model:
        for question in (ask_text, ask_one, ask_text, ask_one):
            assert question(model)[0].cached_tokens > 16


def test_a_longer_state_takes_the_place_of_its_beginning(tmp_path: Path) -> None:
    with load(**remember(tmp_path)) as model:
        model.ask(LONG, max_tokens=1)
    (short,) = states(tmp_path)
    with load(**remember(tmp_path)) as model:
        chat = model.chat()
        chat.generate(LONG, max_tokens=8)
        chat.generate(LONG, max_tokens=8)
    (longer,) = states(tmp_path)
    assert longer != short


@pytest.mark.parametrize("least", [16, 10_000])
def test_short_prompts_are_not_kept(least: int, tmp_path: Path) -> None:
    with load(**remember(tmp_path, cache_min_positions=least)) as model:
        ask_one(model)
    assert len(states(tmp_path)) == (least == 16)


@pytest.mark.parametrize("limits", [{"cache_states": 1000}, {"cache_min_free_disk": 2**60}], ids=str)
def test_where_there_is_no_room_nothing_is_kept(limits: dict[str, int], tmp_path: Path) -> None:
    with load(**remember(tmp_path, **limits)) as model:
        ask_one(model)
    assert states(tmp_path) == []


def test_a_state_that_fits_no_context_here_stays_for_others(tmp_path: Path) -> None:
    with load(**remember(tmp_path)) as model:
        model.ask(LONG * 6, max_tokens=1)
    before = states(tmp_path)
    with load(**remember(tmp_path, context=256)) as model:
        model.ask(LONG, max_tokens=1)
    assert set(before) <= set(states(tmp_path))


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    at = {"start": 0, "schema": 9, "header": 200, "payload": len(data) // 2, "end": len(data) - 1}
    if how in at:
        path.write_bytes(data[: at[how]] + bytes([data[at[how]] ^ 4]) + data[at[how] + 1 :])
    elif how == "truncated":
        path.write_bytes(data[:-7])
    elif how == "longer":
        path.write_bytes(data + b"\0")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        path.write_bytes(b"something else altogether" * 100)
    elif how == "link":
        path.rename(path.with_name("elsewhere"))
        path.symlink_to(path.with_name("elsewhere"))
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "unreadable":
        path.chmod(0)


SPOILED = [
    *("start", "schema", "header", "payload", "end", "truncated", "longer", "empty"),
    *("foreign", "link", "pipe", "folder", "unreadable"),
]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A cache of two pictures and two states, and the answer to a question about the first."""
    folder = tmp_path_factory.mktemp("kept")
    with load(**remember(folder)) as model:
        answer = model.ask("What is this?", [PICTURES[0]], max_tokens=4)
        model.ask("What is this?", [255 - PICTURES[0]], max_tokens=4)
    return folder, answer


def copied(folder: Path, place: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, place))


@pytest.mark.parametrize("how", SPOILED)
def test_a_bad_entry_is_a_miss(how: str, kept: tuple[Path, Any], tmp_path: Path) -> None:
    folder, expected = copied(kept[0], tmp_path / "cache"), kept[1]
    for path in [*(folder / "v1").rglob("*.kv"), *(folder / "v1").rglob("*.emb")]:
        spoil(path, how)
    with load(**remember(folder)) as model:
        answer = model.ask("What is this?", [PICTURES[0]], max_tokens=4)
        assert answer.tokens == expected.tokens
        assert answer.cached_tokens == (0 if how != "unreadable" or os.geteuid() else answer.prompt_tokens - 1)
        assert not answer.warnings
    if how != "folder":
        with load(**remember(folder)) as model:
            assert model.ask("What is this?", [PICTURES[0]], max_tokens=4).cached_tokens > 16


def test_renamed_entries_are_misses(kept: tuple[Path, Any], tmp_path: Path) -> None:
    """Each under the other's name: the header says what it is, and the name what is looked for."""
    folder, expected = copied(kept[0], tmp_path / "cache"), kept[1]
    for kind in ("states", "pictures"):
        one, other = sorted((folder / "v1" / kind).glob("[!.]*"))
        one.rename(aside := one.with_name("aside"))
        other.rename(one)
        aside.rename(other)
    with load(**remember(folder)) as model:
        answer = model.ask("What is this?", [PICTURES[0]], max_tokens=4)
        assert (answer.tokens, answer.cached_tokens) == (expected.tokens, 0)


def test_a_state_that_llama_cpp_refuses_is_a_miss(
    kept: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good file whose bytes are no state: the context is made anew, and reads for itself."""
    from llava_edge.runtime.durable.entry import Draft

    folder, expected = copied(kept[0], tmp_path / "cache"), kept[1]
    fill = Draft.finish

    def garble(self: Draft, **how: Any) -> None:
        data = bytearray(self.path.read_bytes())
        data[self.offset + 8 : self.offset + 40] = bytes(32)
        self.path.write_bytes(data)
        fill(self, **how)

    for path in states(folder):
        path.unlink()
    monkeypatch.setattr(Draft, "finish", garble)
    with load(**remember(folder)) as model:
        model.ask("What is this?", [PICTURES[0]], max_tokens=4)
    monkeypatch.undo()
    assert states(folder)
    with load(**remember(folder)) as model:
        answer = model.ask("What is this?", [PICTURES[0]], max_tokens=4)
        assert (answer.tokens, answer.cached_tokens) == (expected.tokens, 0)
        assert model.ask("What is this?", [PICTURES[0]], max_tokens=4).cached_tokens == answer.prompt_tokens - 1


def test_rows_that_were_made_elsewhere_are_not_kept_as_ours(tmp_path: Path) -> None:
    """An application hands in a picture of this key with other rows: they answer, and poison nothing."""
    import dataclasses

    with load() as model:
        right = model.ask("What is this?", [PICTURES[0]], max_tokens=4)
        image = model.encode_image(PICTURES[0])
    strange = dataclasses.replace(image, embeddings=np.ascontiguousarray(image.embeddings[::-1]))
    with load(**remember(tmp_path)) as model:
        model.ask("What is this?", [strange], max_tokens=4)
        model.ask(LONG, max_tokens=1)
    with load(**remember(tmp_path)) as model:
        answer = model.ask("What is this?", [PICTURES[0]], max_tokens=4)
        assert (answer.tokens, answer.cached_tokens) == (right.tokens, 0)
    with load(**remember(tmp_path)) as model:  # the very rows, though they came from elsewhere
        assert model.ask("What is this?", [image], max_tokens=4).cached_tokens > 16


@pytest.mark.parametrize("where", ["a file", "below a file", "another's", "a link", "read-only"])
def test_a_folder_that_cannot_be_used_is_no_error(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    if where == "a file":
        folder.write_text("")
    elif where == "below a file":
        (tmp_path / "file").write_text("")
        folder = tmp_path / "file" / "cache"
    else:
        with load(**remember(folder)) as model:
            ask_one(model)
    if where == "another's":
        monkeypatch.setattr(os, "getuid", lambda: 12_345)
    elif where == "a link":
        (folder / "v1").rename(folder / "elsewhere")
        (folder / "v1").symlink_to(folder / "elsewhere")
    elif where == "read-only":
        refuse_to_write(monkeypatch, folder)
    with load(**remember(folder)) as model:
        assert (ask_one(model)[0].cached_tokens > 0) is (where == "read-only")
        ask_text(model)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("call", ["posix_fallocate", "fsync", "replace", "mkdir"])
def test_a_disk_that_fails_costs_no_answer(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Displaced, at the end and beside answers; afterwards the folder is as good as a new one."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with load(**LOW) as model:
        expected = [ask_one(model)[0].tokens, ask_text(model)[0].tokens]
    with load(**remember(tmp_path)) as model, monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        found = [ask_one(model)[0].tokens, ask_text(model)[0].tokens]
        model.engine.save()
        assert [path for path in tmp_path.rglob("*") if path.suffix in (".kv", ".emb")] == []
    assert found == expected
    assert not list(tmp_path.rglob(".*"))
    with load(**remember(tmp_path)) as model:
        assert ask_one(model)[0].tokens == expected[0]
    with load(**remember(tmp_path)) as model:
        assert ask_one(model)[0].cached_tokens > 16


def refuse_to_write(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As a mount that is read-only: the superuser may write where modes forbid it."""
    plain = os.open

    def refusing(path: Any, flags: int, *more: Any, **others: Any) -> int:
        if str(path).startswith(str(folder)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return plain(path, flags, *more, **others)

    monkeypatch.setattr(os, "open", refusing)


def test_an_interrupted_program_does_not_wait_for_it(tmp_path: Path) -> None:
    def interrupted() -> None:
        with load(**remember(tmp_path)) as model:
            ask_one(model)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "v1").exists()


def test_closing_beside_an_answer_writes_nothing_and_does_not_wait(tmp_path: Path) -> None:
    model = load(**remember(tmp_path))
    pieces = model.chat().stream(LONG, max_tokens=50)
    next(pieces)
    closing = threading.Thread(target=model.close)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    pieces.close()
    assert states(tmp_path) == []


def test_two_models_share_a_folder(tmp_path: Path) -> None:
    with load(**remember(tmp_path)) as one, load(**remember(tmp_path)) as other:
        ask_one(one)
        one.engine.save()
        assert ask_one(other)[0].cached_tokens > 16  # written after the other one was loaded
        ask_text(other)
        other.engine.save()
        assert ask_text(one)[0].cached_tokens > 16
