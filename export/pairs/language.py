"""The language model's GGUF file as a bundle has it: its facts, its tokenizer's traits, its chat template."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundle.gguf_reading import GgufArray, GgufModel
from ...runtime.errors import CheckpointError, shown
from ...runtime.ggml.llm_recipes import LLM_RECIPES
from ...runtime.ggml.types import BY_NUMBER
from ...runtime.prompts.describe import describe_template
from ...runtime.prompts.family_templates import IMAGE_TOKEN, TEMPLATES, Family, family_of
from ...runtime.prompts.template_spec import TemplateSpec
from ...runtime.prompts.tokenizer_traits import TURN_MARKUP, TokenizerTraits
from ..tokenizer.vocabulary import TokenType
from .kinds import Pair, number, refuse

_PLACED = (TokenType.CONTROL, TokenType.UNKNOWN)
_BEGINS = ("llama-bpe", "llama3", "llama-v3")
"""Pre-tokenizers of byte-level BPE whose prompts llama.cpp begins with BOS where the file does not say."""
_AGAIN = "convert the model again with a newer llama.cpp"


@dataclass(frozen=True)
class Language:
    """What the manifest says of the language model; ``notes`` are to be said aloud."""

    architecture: str
    recipe: str
    dim: int
    context_length: int
    template: TemplateSpec
    notes: tuple[str, ...]


def read_language(pair: Pair) -> Language:
    """Read the language model's facts and template. Raises :class:`CheckpointError`."""
    path, model = pair.llm_paths[0], pair.llm
    architecture = str(model.settings["general.architecture"])
    traits, ends = _traits(model, path)
    template, note = _template(model, traits, ends, path)
    notes = [note]
    if not traits.sentencepiece and "tokenizer.ggml.pre" not in model.settings:
        notes.append(
            f"{shown(path.name)} names no pre-tokenizer (tokenizer.ggml.pre): words may be cut as none was in training"
        )
    return Language(
        architecture=architecture,
        recipe=_recipe(model),
        dim=number(model.settings, f"{architecture}.embedding_length", path),
        context_length=number(model.settings, f"{architecture}.context_length", path),
        template=template,
        notes=tuple(notes),
    )


def _recipe(model: GgufModel) -> str:
    """The recipe by the file's own number, else the type that most bytes have."""
    import gguf

    file_type = model.settings.get("general.file_type")
    known = {recipe.file_type: name for name, recipe in LLM_RECIPES.items()}
    if file_type in known:
        return known[file_type]
    try:
        name = gguf.LlamaFileType(file_type).name
        return str(name.removeprefix("MOSTLY_").removeprefix("ALL_").lower())
    except ValueError:
        sizes: Counter[str] = Counter()
        for tensor in model.tensors:
            sizes[BY_NUMBER[tensor.type].name] += tensor.size
        return sizes.most_common(1)[0][0]


def _traits(model: GgufModel, path: Path) -> tuple[TokenizerTraits, tuple[int, ...]]:
    """The tokenizer as the template sees it, and all ids that end an answer."""
    settings = model.settings
    kind = settings.get("tokenizer.ggml.model")
    if kind not in ("llama", "gpt2"):
        refuse(f"a SentencePiece or byte-level BPE tokenizer (llama, gpt2) in {shown(path)}", shown(kind), _AGAIN)
    sentencepiece = kind == "llama"
    tokens, types = _tokens(model, path)
    ids = _special_ids(settings, len(tokens), sentencepiece)
    if "eos" not in ids:
        got = shown(settings.get("tokenizer.ggml.eos_token_id"))
        refuse(f"tokenizer.ggml.eos_token_id in {shown(path)}", got, _AGAIN)
    pre, begins = settings.get("tokenizer.ggml.pre"), settings.get("tokenizer.ggml.add_bos_token")
    begins = begins if isinstance(begins, bool) else sentencepiece or pre in _BEGINS
    spaced = sentencepiece and settings.get("tokenizer.ggml.add_space_prefix") is not False
    control = {token: index for index, token in enumerate(tokens) if token and _is_control(token, types[index])}
    control |= {tokens[ids[name]]: ids[name] for name in ("bos", "eos", "unknown") if name in ids}
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    traits = TokenizerTraits(
        sentencepiece=sentencepiece,
        control=dict(sorted(control.items(), key=lambda item: item[1])),
        bos_token=tokens[ids["bos"]] if "bos" in ids and (begins or sentencepiece) else "",
        eos_token=tokens[ids["eos"]],
        add_bos=begins and "bos" in ids,
        space_prefix="always" if spaced else "none",
        normalization="NFC" if pre == "qwen2" else "none",
        named={names[name]: tokens[index] for name, index in ids.items() if name in names},
    )
    return traits, tuple(ids[name] for name in ("eos", "eot", "eom") if name in ids)


def _tokens(model: GgufModel, path: Path) -> tuple[list[str], list[int]]:
    """Tokens and their types by id."""
    tokens = _array(model, "tokenizer.ggml.tokens", path)
    types = _array(model, "tokenizer.ggml.token_type", path) or [int(TokenType.NORMAL)] * len(tokens)
    wrong = [one for one in tokens if not isinstance(one, str)] + [one for one in types if not isinstance(one, int)]
    if wrong or not tokens or len(types) != len(tokens):
        refuse(f"a token and a type for each id in {shown(path)}", f"{len(tokens)} and {len(types)}", _AGAIN)
    return tokens, types


def _array(model: GgufModel, key: str, path: Path) -> list[Any]:
    value = model.settings.get(key)
    if value is None:
        return []
    if not isinstance(value, GgufArray):
        refuse(f"{key} as an array in {shown(path)}", shown(value), _AGAIN)
    return value.read()


def _special_ids(settings: dict[str, Any], count: int, sentencepiece: bool) -> dict[str, int]:
    """The ids that the file names, those that are none of ``count`` left out; BOS of SentencePiece is 1 by itself."""
    found = {}
    for name in ("bos", "eos", "unknown", "padding", "eot", "eom"):
        index = settings.get(f"tokenizer.ggml.{name}_token_id", 1 if name == "bos" and sentencepiece else None)
        if type(index) is int and 0 <= index < count:
            found[name] = index
    return found


def _is_control(token: str, kind: int) -> bool:
    """Control tokens, and those that open and close turns though the file calls them something else."""
    if kind in _PLACED or (kind == TokenType.USER_DEFINED and TURN_MARKUP.fullmatch(token)):
        return True
    return token in ("<|im_start|>", "<|im_end|>", IMAGE_TOKEN) and kind != TokenType.UNUSED


def _template(model: GgufModel, traits: TokenizerTraits, ends: tuple[int, ...], path: Path) -> tuple[TemplateSpec, str]:
    """The file's own template where it places a picture, else the family's; and which it is."""
    own = model.settings.get("tokenizer.chat_template")
    why = f"{shown(path.name)} has no chat template"
    if isinstance(own, str) and own.strip():
        try:
            found = describe_template(traits, chat_template=own, image_token=IMAGE_TOKEN, where=str(path), end_ids=ends)
            return found, f"chat template: that of {shown(path.name)}"
        except CheckpointError as error:
            why = f"the chat template of {shown(path.name)} can't be used ({error.got})"
    family = _family(model, traits, path)
    found = describe_template(
        traits, chat_template=TEMPLATES[family], image_token=IMAGE_TOKEN, where=str(path), end_ids=ends
    )
    return found, f"{why}; the family's is taken: {family}"


def _family(model: GgufModel, traits: TokenizerTraits, path: Path) -> Family:
    """Mistral and Vicuna are one architecture in GGUF files: the name tells them apart, else grouped heads do."""
    settings = model.settings
    architecture = str(settings["general.architecture"])
    name = f"{settings.get('general.name')} {settings.get('general.basename')} {path.name}".lower()
    heads = [settings.get(f"{architecture}.attention.{key}") for key in ("head_count", "head_count_kv")]
    grouped = heads[1] is not None and heads[0] != heads[1]
    mistral = architecture == "llama" and "vicuna" not in name and ("mistral" in name or grouped)
    return family_of("mistral" if mistral else architecture, traits.control)
