"""What a GGUF file is, and that two of them are a language model and a LLaVA-NeXT projector, in that order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from ...runtime.bundle.gguf_layout import MAGIC, split_names
from ...runtime.bundle.gguf_reading import GgufModel, read_head, read_model
from ...runtime.bundle.kinds import file_kind
from ...runtime.errors import CheckpointError, shown

Role = Literal["a language model", "a projector", "neither"]
ARCHITECTURES = ("llama", "qwen2")
"""llama.cpp's names of the family's language models; Mistral and Yi are "llama" too."""
NEXT = "mlp"
"""llama.cpp's name of LLaVA's two-layer connector."""
MODELS = {
    "adapter": "GLM-Edge", "gemma3": "Gemma 3", "idefics3": "Idefics 3 or SmolVLM", "internvl": "InternVL",
    "kimivl": "Kimi-VL", "ldp": "MobileVLM", "ldpv2": "MobileVLM V2", "lfm2": "LFM2-VL", "llama4": "Llama 4",
    "minicpmv": "MiniCPM-V", "mlp_norm": "Yi-VL", "phi4": "Phi-4", "pixtral": "Pixtral", "qwen2.5o": "Qwen2.5-Omni",
    "qwen2.5vl_merger": "Qwen2.5-VL", "qwen2vl_merger": "Qwen2-VL", "qwen3vl_merger": "Qwen3-VL",
    "resampler": "MiniCPM-V", "ultravox": "Ultravox", "voxtral": "Voxtral",
}  # fmt: skip
"""Models by the type of their projector."""
_FLAGS = {"has_minicpmv_projector": "minicpmv", "has_qwen2vl_merger": "qwen2vl_merger", "has_glm_projector": "adapter"}
"""How files said it before there was a type."""
OTHER = "run it with llama.cpp; 'import' takes LLaVA-NeXT (1.6) projectors"


@dataclass(frozen=True)
class Pair:
    """The heads of the two models, and all files of the language model."""

    llm: GgufModel
    llm_paths: tuple[Path, ...]
    projector: GgufModel
    projector_path: Path


def open_pair(llm: Path, projector: Path) -> Pair:
    """Read both heads.

    Raises :class:`CheckpointError` that says what a wrong file is, BundleError for a broken one.
    """
    first, second = _read(llm), _read(projector)
    roles = (_role(first), _role(second))
    if roles == ("a projector", "a language model"):
        refuse(
            "the language model first, then the projector",
            f"them the other way round ({shown(llm.name)} is the projector)",
            f"give {shown(projector)} {shown(llm)}",
        )
    if roles[0] != "a language model":
        fix = "give the language model's GGUF file first, then the mmproj file"
        refuse(f"a language model in {shown(llm)}", described(first), fix)
    if roles[1] != "a projector":
        fix = "give the model's mmproj file second; a GGUF of text alone sees no pictures"
        refuse(f"a projector (mmproj) in {shown(projector)}", described(second), fix)
    architecture = first.settings.get("general.architecture")
    if architecture not in ARCHITECTURES:
        expected = f"a language model among {', '.join(ARCHITECTURES)} in {shown(llm)}"
        refuse(expected, shown(architecture), "LLaVA-NeXT has no such one: give the file that belongs to it")
    _check_projector(second, projector)
    return Pair(first, tuple(llm.with_name(name) for name in split_names(llm.name)), second, projector)


def refuse(expected: str, got: str, fix: str) -> NoReturn:
    """Raise :class:`CheckpointError`."""
    raise CheckpointError(expected=expected, got=got, fix=fix)


def _read(path: Path) -> GgufModel:
    if not path.is_file():
        found = sorted(path.glob("*.gguf")) if path.is_dir() else []
        got = f"a folder of {len(found)} GGUF files" if path.is_dir() else "nothing"
        refuse(f"a GGUF file at {shown(path)}", got, "give the file itself" if path.is_dir() else "check the path")
    with path.open("rb") as file:
        begins = file.read(len(MAGIC))
    if begins != MAGIC:
        kind = file_kind(path)
        fix = "'import' takes two GGUF files; 'export' takes the folder of a trained checkpoint"
        refuse(f"a GGUF file at {shown(path)}", kind.what if kind else "another kind of file", fix)
    number, count = (read_head(path).settings.get(f"split.{key}", 0) for key in ("no", "count"))
    if number:
        refuse(f"the first file of a split model at {shown(path)}", f"part {shown(number)}, from 0, of {shown(count)}",
               "give the file whose name has 00001")  # fmt: skip
    for other in split_names(path.name):
        if not path.with_name(other).is_file():
            refuse(f"all {len(split_names(path.name))} files of the model beside {shown(path)}", f"no {other}",
                   "download the missing one")  # fmt: skip
    return read_model(path)


def _role(model: GgufModel) -> Role:
    settings = model.settings
    if settings.get("general.architecture") == "clip" or settings.get("general.type") == "mmproj":
        return "a projector"
    if settings.get("general.type") in (None, "model") and any(one.name.startswith("blk.") for one in model.tensors):
        return "a language model"
    return "neither"


def described(model: GgufModel) -> str:
    """What a GGUF file is, in words."""
    settings = model.settings
    architecture, kind = settings.get("general.architecture"), settings.get("general.type")
    if (role := _role(model)) == "a projector":
        return f"a projector ({_named(projector_type(model))})"
    if role == "a language model":
        return f"a language model ({shown(architecture)})"
    if kind == "adapter":
        return f"a LoRA adapter ({shown(architecture)})"
    if kind == "imatrix" or any(one.name.endswith(".in_sum2") for one in model.tensors):
        return "an importance matrix"
    if not model.tensors:
        return f"a vocabulary without weights ({shown(architecture)})"
    return f"a GGUF file of {shown(kind or architecture)}"


def projector_type(model: GgufModel) -> str:
    """llama.cpp's name of the projector, by any of the keys that files have had for it; LLaVA's where none says."""
    settings = model.settings
    for key, kind in _FLAGS.items():
        if settings.get(f"clip.{key}") is True:
            return kind
    for key in ("projector_type", "vision.projector_type", "vision.mm_projector_type", "audio.projector_type"):
        if isinstance(found := settings.get(f"clip.{key}"), str):
            return NEXT if found == "mlp2x_gelu" else found
    return NEXT


def _named(kind: str) -> str:
    return f"{shown(kind)}, of {MODELS[kind]}" if kind in MODELS else shown(kind)


def _check_projector(model: GgufModel, path: Path) -> None:
    """Refuse what is no projector of LLaVA-NeXT, by the name of what it is."""
    settings, names = model.settings, {one.name for one in model.tensors}
    where = f"a LLaVA-NeXT projector in {shown(path)}"
    if (kind := projector_type(model)) != NEXT:
        refuse(where, f"a projector of type {_named(kind)}", OTHER)
    if settings.get("clip.has_vision_encoder") is False or not any(name.startswith("v.blk.") for name in names):
        refuse(where, "a file without a vision tower", "give the mmproj file of the model")
    if "mm.3.weight" in names:
        refuse(where, f"a projector of type {_named('mlp_norm')}", OTHER)
    if "mm.2.weight" not in names:
        refuse(where, "a connector without a second layer (mm.2)", OTHER)
    if "v.class_embd" not in names:
        refuse(where, "a tower without a class token, as SigLIP is", OTHER)
    if not names & set(NEWLINES):
        refuse(where, "one of LLaVA-1.5: it has no image_newline", "give the mmproj file of a LLaVA-1.6 model")
    for key, wanted in (("mm_patch_merge_type", "spatial_unpad"), ("image_aspect_ratio", "anyres")):
        if (found := settings.get(f"clip.vision.{key}", wanted)) != wanted:
            refuse(f"{key} {wanted} in {shown(path)}", shown(found), OTHER)


NEWLINES = ("model.image_newline", "v.image_newline")
"""The newline's names, the older first."""


def number(settings: dict[str, Any], key: str, path: Path) -> int:
    """A whole number above 0 that the file must have. Raises :class:`CheckpointError`."""
    value = settings.get(key)
    if type(value) is not int or value <= 0:
        refuse(f"{key} as a whole number above 0 in {shown(path)}", shown(value), "convert the model again")
    return value
