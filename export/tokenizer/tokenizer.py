"""The checkpoint's tokenizer as the reference reads it, whichever files carry it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.errors import CheckpointError, first_line
from ..checkpoint.weights import read_json, refuse


def load_tokenizer(folder: Path) -> Any:
    """Return transformers' fast tokenizer for the checkpoint in ``folder``.

    From ``tokenizer.json``; else from a SentencePiece ``tokenizer.model``, read as the slow Llama
    tokenizer of the original code does; else from Qwen2's ``vocab.json`` and ``merges.txt``.
    Raises :class:`CheckpointError`.
    """
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast.from_pretrained(str(folder))
        if (folder / "tokenizer.model").is_file():
            return _from_sentencepiece(folder)
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return Qwen2Tokenizer.from_pretrained(str(folder))
    except CheckpointError:
        raise
    except Exception as error:  # the tokenizers library raises plain Exception
        refuse(f"a tokenizer in {folder} that transformers reads", first_line(error), "download it again", error)
    return refuse(f"tokenizer.json or tokenizer.model in {folder}", "neither", "add the tokenizer's files")


def _from_sentencepiece(folder: Path) -> Any:
    """Build the fast tokenizer that equals SentencePiece's BPE, special tokens split off first."""
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    config_path = folder / "tokenizer_config.json"
    config = read_json(config_path) if config_path.is_file() else {}
    vocabulary, controls, unknown, dummy_prefix = _read_model(folder / "tokenizer.model")
    merges = _merges(vocabulary, {*controls, unknown})
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    _set_spaces(backend, dummy_prefix, legacy=config.get("legacy") is not False)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in controls])
    _add_tokens(backend, config.get("added_tokens_decoder", {}), folder)
    names = {key: _token_text(config.get(key)) for key in ("bos_token", "eos_token", "pad_token")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=unknown,
        bos_token=names["bos_token"] or "<s>",
        eos_token=names["eos_token"] or "</s>",
        pad_token=names["pad_token"] or unknown,
    )
    if config.get("add_bos_token", True):
        _add_bos(tokenizer)
    return tokenizer


def _read_model(path: Path) -> tuple[dict[str, int], list[str], str, bool]:
    """Pieces with ids, the control and user-defined pieces, the unknown piece, the dummy prefix."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load(str(path))
    except (OSError, RuntimeError) as error:
        refuse(f"a SentencePiece model in {path}", first_line(error), "download it again", error)
    size = processor.get_piece_size()
    vocabulary = {processor.id_to_piece(index): index for index in range(size)}
    if not processor.is_byte(vocabulary.get("<0x00>", 0)):
        refuse(f"SentencePiece BPE with byte fallback in {path}", "no byte pieces", "use another checkpoint")
    controls = [processor.id_to_piece(index) for index in range(size) if processor.is_control(index)]
    unknown = processor.id_to_piece(processor.unk_id())
    dummy_prefix = processor.encode("a", out_type=str)[0].startswith("▁")
    return vocabulary, [unknown, *controls], unknown, dummy_prefix


def _merges(vocabulary: dict[str, int], apart: set[str]) -> list[tuple[str, str]]:
    """All splits of each piece into two pieces. SentencePiece numbers pieces by falling score."""
    merges: list[tuple[str, str]] = []
    for piece in sorted(vocabulary, key=vocabulary.__getitem__):
        if piece in apart or (piece.startswith("<0x") and piece.endswith(">")):
            continue
        splits = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        pairs = [(left, right) for left, right in splits if left in vocabulary and right in vocabulary]
        merges += sorted(pairs, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return merges


def _set_spaces(backend: Any, dummy_prefix: bool, *, legacy: bool) -> None:
    from tokenizers import normalizers, pre_tokenizers

    if dummy_prefix and not legacy:
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
        return
    prepend = [normalizers.Prepend("▁")] if dummy_prefix else []
    backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])


def _add_tokens(backend: Any, decoder: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken

    extra = folder / "added_tokens.json"
    listed = {str(identifier): token for token, identifier in read_json(extra).items()} if extra.is_file() else {}
    for identifier, entry in sorted({**listed, **decoder}.items(), key=lambda item: int(item[0])):
        content = _token_text(entry) or ""
        special = entry.get("special", True) if isinstance(entry, dict) else True
        token = AddedToken(content, normalized=False, special=special)
        backend.add_special_tokens([token]) if special else backend.add_tokens([token])
        if backend.token_to_id(content) != int(identifier):
            found = backend.token_to_id(content)
            refuse(f"added token {content!r} at id {identifier}", str(found), "check tokenizer_config.json")


def _add_bos(tokenizer: Any) -> None:
    from tokenizers import processors

    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    template = processors.TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    tokenizer.backend_tokenizer.post_processor = template


def _token_text(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value
