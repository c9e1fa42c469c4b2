"""What ``llava-edge plan`` is asked about: a model by path, hub id or name, and devices as people write them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ...runtime.bundle.bundle import demo_bundle
from ...runtime.errors import CheckpointError, MissingExtraError, OptionError
from ...runtime.planning.checkpoint_config import config_shape
from ...runtime.planning.placement import Device, DeviceKind
from ...runtime.planning.shape_sources import PRESETS, folder_shape, preset_shape
from ...runtime.planning.shapes import ModelShape

_UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([MGT])(?:iB|B)?", re.IGNORECASE)
_DEVICE = re.compile(r"(?P<name>[^=]+)=(?P<size>[^@]+)(?:@(?P<band>[\d.]+)(?:,(?P<flops>[\d.]+))?)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def parse_device(text: str, kind: DeviceKind) -> Device:
    """``NAME=24G@1008,165``: memory (G is 2^30), and optionally GB/s and TFLOP/s. Raises :class:`OptionError`."""
    match = _DEVICE.fullmatch(text)
    size = _SIZE.fullmatch(match["size"].strip()) if match else None
    try:
        assert match is not None
        assert size is not None
        memory = int(float(size[1]) * _UNITS[size[2].upper()])
        bandwidth, flops = float(match["band"] or 0) * 1e9, float(match["flops"] or 0) * 1e12
    except (AssertionError, ValueError):
        example = {"gpu": "a=24G@1008", "rpc": "10.0.0.2:50052=24G", "cpu": "64G@60"}[kind]
        raise OptionError(
            expected=f"a device such as {example}", got=repr(text.removeprefix("host=")), fix="write it like that"
        ) from None
    name = match["name"].strip()
    return Device(name, kind, memory, bandwidth, flops, endpoint=name if kind == "rpc" else "")


def shape_of(model: str | None) -> ModelShape:
    """The shape of a model; of the demo bundle without a name. Raises BundleError, CheckpointError."""
    if model is None:
        return folder_shape(demo_bundle())
    if model in PRESETS:
        return preset_shape(model)
    if Path(model).is_dir():
        return folder_shape(Path(model))
    if not _HUB_ID.fullmatch(model):
        raise CheckpointError(
            expected=f"a folder, a hub id like owner/name, or one of {', '.join(PRESETS)}",
            got=repr(model),
            fix="check the name",
        )
    path = _hub_config(model)
    return config_shape(json.loads(path.read_text(encoding="utf-8")), name=model.rsplit("/", 1)[-1], where=model)


def _hub_config(model: str) -> Path:
    """Fetch config.json and nothing else."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingExtraError(
            expected="huggingface_hub", got="no such package", fix='run: pip install "llava-edge[export]"'
        ) from error
    try:
        return Path(hf_hub_download(model, "config.json"))
    except Exception as error:  # huggingface_hub lets the errors of its HTTP library through, and changes it
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            expected=f"the hub to serve {model}", got=lines[0], fix="check the name, the network and HF_TOKEN"
        ) from error
