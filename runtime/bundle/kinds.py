"""What a path is that was taken for something else: said by name, with what to do with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import listed, shown
from ..system.plain_files import open_plain, read_plain


class Kind(NamedTuple):
    """What it is, in words, and how to get from it to a bundle."""

    what: str
    fix: str


_WHOLE = "export the whole trained checkpoint"
LORA = (
    "merge it into its base first (peft: PeftModel.from_pretrained(base, adapter).merge_and_unload()), then export that"
)
QUANTIZED = "export the full-precision checkpoint, then 'llava-edge quantize' the bundle"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MAGIC = {
    b"GGUF": Kind("a GGUF file", "a language model and its projector become a bundle: llava-edge import LLM MMPROJ"),
    b"PK\x03\x04": Kind("a zip archive, as torch.save writes pickles", "give the checkpoint's folder"),
    b"\x80\x02": Kind("a pickle", "give the checkpoint's folder, with weights as safetensors"),
    b"\x80\x04": Kind("a pickle", "give the checkpoint's folder, with weights as safetensors"),
    b"\x1f\x8b": Kind("a gzip archive", "unpack it and give the folder"),
    b"{": Kind("a text file", "give the folder that it lies in"),
}
_METHODS = {"bitsandbytes": "bitsandbytes", "awq": "AWQ", "gptq": "GPTQ"}


def file_kind(path: Path) -> Kind | None:
    """What a file is; None where that isn't known."""
    try:
        with open_plain(path) as file:
            head = file.read(64)
    except OSError:
        return None
    if head.startswith(LFS_POINTER):
        return Kind("a git LFS pointer, not the file itself", "run 'git lfs pull' in its folder, or download it")
    if path.suffix == ".safetensors":
        return Kind("a safetensors file", "give the folder that it lies in")
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def partial_kind(folder: Path) -> Kind | None:
    """What a folder is that holds a part of a checkpoint, or one in another form; None for a whole one."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    weights = [name for name in names if name.endswith((".safetensors", ".bin"))]
    adapters = {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "non_lora_trainables.bin"}
    if found := sorted(adapters & names):
        base = _entry(folder / "adapter_config.json", "base_model_name_or_path")
        return Kind(f"a LoRA adapter alone ({listed(found)})" + (f" of {shown(base)}" if base else ""), LORA)
    if "mm_projector.bin" in names and not set(weights) - {"mm_projector.bin"}:
        return Kind("a projector alone (mm_projector.bin), without the language model", _WHOLE)
    if "manifest.json" in names and _entry(folder / "manifest.json", "schema") is not None:
        return Kind("a bundle, exported already", "use it as it is, or 'llava-edge quantize' it")
    if (quantized := quantized_kind(_entry(folder / "config.json", "quantization_config"))) is not None:
        return quantized
    if any(name.endswith(".onnx") for name in names) and any(name.endswith(".gguf") for name in names):
        return Kind("a bundle without its manifest", "copy the bundle again or export it again")
    if not weights and (ggufs := sorted(name for name in names if name.endswith(".gguf"))):
        return Kind(f"a folder of GGUF files ({listed(ggufs)})", _MAGIC[b"GGUF"].fix)
    return None


def quantized_kind(quantization: object) -> Kind | None:
    """What a checkpoint is whose config has this ``quantization_config``; None where that says nothing."""
    if not isinstance(quantization, dict):
        return None
    method = str(quantization.get("quant_method") or "bitsandbytes")
    bits = quantization.get("bits") or (4 if quantization.get("load_in_4bit") else None)
    how = _METHODS.get(method, shown(method)) + (f", {shown(bits)} bits" if bits else "")
    return Kind(f"a quantized checkpoint ({how})", QUANTIZED)


def path_kind(path: Path) -> Kind | None:
    """What ``path`` is that was taken for a bundle; None where that isn't known."""
    if path.is_file():
        return file_kind(path)
    if not path.is_dir():
        return None
    if (found := partial_kind(path)) is not None:
        return found
    if (path / "config.json").is_file():
        return Kind("a checkpoint, not exported yet", f"run: llava-edge export {shown(path)} -o BUNDLE")
    inside = sorted(one.parent.name for one in path.glob("*/manifest.json"))
    if inside:
        return Kind(f"a folder with bundles in it ({listed(inside)})", "give one of those")
    return None


def names_kind(names: set[str]) -> Kind | None:
    """What tensors are by their names, where those are no plain checkpoint's."""
    if any(name.startswith("base_model.model.") or ".lora_A." in name for name in names):
        return Kind("the tensors of an unmerged LoRA model (base_model.model.…, lora_A)", LORA)
    if any(
        name.endswith((".absmax", ".SCB", ".quant_state.bitsandbytes__nf4", ".qweight", ".qzeros")) for name in names
    ):
        return Kind("quantized tensors (bitsandbytes, AWQ or GPTQ)", QUANTIZED)
    if names and all("mm_projector" in name or "multi_modal_projector" in name for name in names):
        return Kind("a projector alone, without the language model", _WHOLE)
    return None


def _entry(path: Path, key: str) -> Any:
    try:
        raw = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError):
        return None
    return raw.get(key) if isinstance(raw, dict) else None
