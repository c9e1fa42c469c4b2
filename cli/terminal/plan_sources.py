"""What ``llava-edge plan`` is asked about: a model by path, hub id or name, and devices as people write them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from ...runtime.bundle.bundle import demo_bundle
from ...runtime.bundle.kinds import file_kind
from ...runtime.bundle.named import hidden_model, named_model
from ...runtime.errors import CheckpointError, OptionError, first_line, shown
from ...runtime.option_checks import parse_endpoint
from ...runtime.planning.checkpoint_config import PUBLISHED_TOWER, config_shape
from ...runtime.planning.placement import Device, DeviceKind
from ...runtime.planning.shape_sources import PRESETS, folder_shape, preset_shape
from ...runtime.planning.shapes import ModelShape
from ...runtime.system.plain_files import odd_kind, read_plain_text
from ...store.hub import HUB_ID, fetch_config

_UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
_MOST = 2**50
"""Bytes below which a device's memory is: a thousand times what the largest has."""
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
    name = match["name"].strip()
    memory = float(match["size"]) * _UNITS[match["unit"].upper()]
    if not 1 <= memory < _MOST:
        raise OptionError(
            expected=f"memory above 0 for {shown(name)}, and below {_MOST >> 40}T",
            got=shown(text.removeprefix("host=")),
            fix="write it as in a=24G",
        )
    bandwidth, flops = float(match["band"] or 0) * 1e9, float(match["flops"] or 0) * 1e12
    if not max(bandwidth, flops) < _MOST * 1e6:
        raise OptionError(
            expected=f"rates that a machine can have for {shown(name)}",
            got=shown(text.removeprefix("host=")),
            fix="write GB/s and TFLOP/s, as in a=24G@1008,165",
        )
    endpoint = re.sub(r"/\d+$", "", name) if kind == "rpc" else ""  # HOST:PORT/1 is its second device
    if endpoint:
        parse_endpoint(endpoint)
    return Device(name, kind, int(memory), bandwidth, flops, endpoint=endpoint)


def shape_of(model: str | None, vision_tower: str = "") -> ModelShape:
    """The shape of a model; of the demo bundle without a name. Raises BundleError, CheckpointError.

    ``vision_tower`` is the folder or hub id of the tower that an original-layout checkpoint names.
    """
    if model is None:
        return folder_shape(demo_bundle())
    if not os.path.lexists(model) and (named := named_model(model)) is not None:
        return folder_shape(named.folder)
    try:
        return _shape_at(model, vision_tower)
    except CheckpointError as error:
        if not (hidden := hidden_model(model)):
            raise
        raise CheckpointError(expected=error.expected, got=error.got, fix=f"{error.fix}; {hidden}") from error


def _shape_at(model: str, vision_tower: str) -> ModelShape:
    """The shape of what ``model`` says where it is no name of the store."""
    if model in PRESETS:
        return preset_shape(model)
    if os.path.isdir(model):
        return folder_shape(Path(model), vision_tower=_tower(vision_tower))
    if os.path.isfile(model) or model.startswith((".", "/", "~")):
        kind = file_kind(Path(model)) if os.path.isfile(model) else None
        what, fix = kind or (odd_kind(model) or "no folder", "check the path")
        raise CheckpointError(expected=f"the folder of a bundle or a checkpoint at {shown(model)}", got=what, fix=fix)
    if not HUB_ID.fullmatch(model):
        raise CheckpointError(
            expected=f"a folder, a hub id like owner/name, a name of 'list', or one of {', '.join(PRESETS)}",
            got=repr(shown(model)),
            fix="check the name",
        )
    path = fetch_config(model)
    try:
        raw = json.loads(read_plain_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            expected=f"JSON in config.json of {model}", got=first_line(error), fix="choose another checkpoint"
        ) from error
    return config_shape(raw, name=model.rsplit("/", 1)[-1], where=model, vision_tower=_tower(vision_tower))


def _tower(named: str) -> str:
    """A tower as the planner takes it; of a hub id the folder of its config.json, which alone is fetched."""
    if os.path.lexists(named) or PUBLISHED_TOWER in named or not HUB_ID.fullmatch(named):
        return named
    return str(fetch_config(named).parent)
