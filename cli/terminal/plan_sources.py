"""What ``llava-edge plan`` is asked about: a model by path, hub id or name, and devices as people write them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from ...runtime.bundle.bundle import demo_bundle
from ...runtime.bundle.kinds import file_kind
from ...runtime.bundle.named import named_model
from ...runtime.errors import CheckpointError, OptionError, first_line, shown
from ...runtime.planning.checkpoint_config import config_shape
from ...runtime.planning.placement import Device, DeviceKind
from ...runtime.planning.shape_sources import PRESETS, folder_shape, preset_shape
from ...runtime.planning.shapes import ModelShape
from ...store.hub import HUB_ID, fetch_config

_UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_DEVICE = re.compile(
    rf"(?P<name>[^=]+)=\s*(?P<size>\d+(?:\.\d+)?)\s*(?P<unit>[MGT])(?:iB|B)?\s*"
    rf"(?:@(?P<band>{_NUMBER})(?:,(?P<flops>{_NUMBER}))?)?",
    re.IGNORECASE,
)


def parse_device(text: str, kind: DeviceKind) -> Device:
    """``NAME=24G@1008,165``: memory (G is 2^30), and optionally GB/s and TFLOP/s. Raises :class:`OptionError`."""
    match = _DEVICE.fullmatch(text)
    if match is None:
        example = {"gpu": "a=24G@1008", "rpc": "10.0.0.2:50052=24G", "cpu": "64G@60"}[kind]
        raise OptionError(
            expected=f"a device such as {example}", got=repr(text.removeprefix("host=")), fix="write it like that"
        )
    size = float(match["size"]) * _UNITS[match["unit"].upper()]
    if not 0 < size < 2**60:
        raise OptionError(
            expected=f"memory above 0 for {shown(match['name'])}", got=shown(text), fix="write it as in a=24G"
        )
    memory = int(size)
    bandwidth, flops = float(match["band"] or 0) * 1e9, float(match["flops"] or 0) * 1e12
    name = match["name"].strip()
    return Device(name, kind, memory, bandwidth, flops, endpoint=name if kind == "rpc" else "")


def shape_of(model: str | None) -> ModelShape:
    """The shape of a model; of the demo bundle without a name. Raises BundleError, CheckpointError."""
    if model is None:
        return folder_shape(demo_bundle())
    if not os.path.lexists(model) and (named := named_model(model)) is not None:
        return folder_shape(named.folder)
    if model in PRESETS:
        return preset_shape(model)
    if os.path.isdir(model):
        return folder_shape(Path(model))
    if os.path.isfile(model) or model.startswith((".", "/", "~")):
        what, fix = (os.path.isfile(model) and file_kind(Path(model))) or ("no folder", "check the path")
        raise CheckpointError(expected=f"the folder of a bundle or a checkpoint at {shown(model)}", got=what, fix=fix)
    if not HUB_ID.fullmatch(model):
        raise CheckpointError(
            expected=f"a folder, a hub id like owner/name, a name of 'list', or one of {', '.join(PRESETS)}",
            got=repr(shown(model)),
            fix="check the name",
        )
    path = fetch_config(model)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            expected=f"JSON in config.json of {model}", got=first_line(error), fix="choose another checkpoint"
        ) from error
    return config_shape(raw, name=model.rsplit("/", 1)[-1], where=model)
