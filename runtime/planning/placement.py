"""Where a model's parts go: devices, the split of layers over them, and what each device then holds.

Layers go to devices by llama.cpp's own rule (``load_tensors`` in ``src/llama-model.cpp``): the first
layers stay on the host, the last ``gpu_layers``, the output head among them as one more, are cut into
runs by the cumulated ``tensor_split``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..options import PromptEngineName
from .llm_memory import PIPELINE_COPIES, Buffers, device_compute, host_compute, kv_bytes, output_bytes
from .shapes import LlmBytes, LlmShape

DeviceKind = Literal["cpu", "gpu", "rpc"]
SplitMode = Literal["none", "layer", "row"]

RESERVE = 2**30
"""Bytes left free on a device: drivers, libraries' own buffers, the system. llama.cpp's fitting leaves as much."""
RESERVE_SHARE = 16
"""A small device keeps this part of itself free instead, where that is less."""


@dataclass(frozen=True)
class Device:
    """Something with memory. ``memory`` in bytes is what may be used; the host is the one of kind "cpu".

    ``bandwidth`` in bytes a second and ``flops`` a second are 0 where unknown. ``endpoint`` is a
    worker's HOST:PORT.
    """

    name: str
    kind: DeviceKind
    memory: int
    bandwidth: float = 0.0
    flops: float = 0.0
    endpoint: str = ""

    @property
    def reserve(self) -> int:
        """Bytes a plan leaves free."""
        return min(RESERVE, self.memory // RESERVE_SHARE)


@dataclass(frozen=True)
class Placement:
    """What to tell llama.cpp and onnxruntime.

    ``devices`` are the names of those that get layers: workers, then GPUs here, which is llama.cpp's
    order, and ``tensor_split`` has one share for each, in layers; empty for one device.
    ``gpu_layers`` counts the output head as one. ``main_gpu`` is an index into all devices there
    are. ``vision_device`` is a device's name.
    """

    devices: tuple[str, ...]
    gpu_layers: int
    tensor_split: tuple[float, ...]
    split_mode: SplitMode
    main_gpu: int
    kv_type_k: str
    kv_type_v: str
    flash_attention: bool
    vision_device: str
    workers: tuple[str, ...] = ()
    prompt_engine: PromptEngineName = "llama.cpp"

    def describe(self) -> str:
        """One line for people."""
        layers = (
            f"{self.gpu_layers} layers on {', '.join(self.devices)}" if self.gpu_layers else "all layers on the host"
        )
        if len(self.devices) > 1:
            layers += f" ({self.split_mode} split {':'.join(f'{one:g}' for one in self.tensor_split)})"
        flash = "on" if self.flash_attention else "off"
        kinds = self.kv_type_k if self.kv_type_k == self.kv_type_v else f"{self.kv_type_k}/{self.kv_type_v}"
        prompts = f" | prompts {self.prompt_engine}" if self.prompt_engine != "llama.cpp" else ""
        return f"{layers} | KV {kinds} | flash attention {flash} | vision on {self.vision_device}{prompts}"


@dataclass(frozen=True)
class DeviceUse:
    """What a device holds, in bytes; ``embedding`` is the part of ``weights`` that is looked up, not multiplied.

    ``prompts`` are the prompt engine's weights in int8.
    """

    device: Device
    layers: int = 0
    weights: int = 0
    kv: int = 0
    compute: int = 0
    vision: int = 0
    embedding: int = 0
    prompts: int = 0

    @property
    def free(self) -> int:
        """What is left over; below zero where it does not fit."""
        return self.device.memory - self.weights - self.kv - self.compute - self.vision - self.prompts

    @property
    def fits(self) -> bool:
        """Whether the reserve stays free."""
        return self.free >= self.device.reserve or not self.touched

    @property
    def touched(self) -> bool:
        """Whether anything is there at all."""
        return self.weights + self.kv + self.compute + self.vision > 0

    def add_vision(self, size: int) -> DeviceUse:
        """The same with ``size`` more bytes of the vision part."""
        return dataclasses.replace(self, vision=self.vision + size)

    def add_prompts(self, size: int) -> DeviceUse:
        """The same with ``size`` more bytes of the prompt engine's weights."""
        return dataclasses.replace(self, prompts=self.prompts + size)


def split_layers(count: int, tensor_split: Sequence[float]) -> list[int]:
    """How many of ``count`` layers each device gets: llama.cpp's rule for ``tensor_split``."""
    total = float(sum(tensor_split))
    ends = [sum(tensor_split[: index + 1]) / total for index in range(len(tensor_split))]
    found = [0] * len(tensor_split)
    for layer in range(count):
        found[next((index for index, end in enumerate(ends) if end > layer / count), len(ends) - 1)] += 1
    return found


@dataclass(frozen=True)
class Load:
    """One model, type, context and cache to be placed."""

    shape: LlmShape
    weights: LlmBytes
    buffers: Buffers
    kv_types: tuple[str, str]

    @property
    def all_layers(self) -> int:
        """Layers with the output head."""
        return self.shape.layers + 1

    def kv(self, layers: int) -> int:
        """Cache of ``layers`` layers."""
        return layers * kv_bytes(self.shape, self.buffers.context, self.kv_types)

    def parts(self, layer: int) -> tuple[int, int]:
        """(weights, cache) of a layer; the last one is the output head."""
        if layer == self.shape.layers:
            return self.weights.output + self.weights.copy, 0
        return self.weights.layers[layer], self.kv(1)


def balanced_split(load: Load, devices: Sequence[Device], gpu_layers: int) -> list[int]:
    """Layers a device, so that all are filled to the same share of what they have room for."""
    first = load.all_layers - gpu_layers
    sizes = [sum(load.parts(layer)) for layer in range(first, load.all_layers)]
    rooms = [device.memory - device.reserve for device in devices]
    fixed = _compute(load, len(devices), gpu_layers)
    low, high = 0.0, 64.0  # far above 1, so that what does not fit is still spread evenly
    for _ in range(40):
        middle = (low + high) / 2
        if sum(_filled(sizes, rooms, fixed, middle)) == len(sizes):
            high = middle
        else:
            low = middle
    return _filled(sizes, rooms, fixed, high)


def _filled(sizes: list[int], rooms: list[int], fixed: list[int], share: float) -> list[int]:
    """Layers that go to each device in turn where ``share`` of each room may be taken."""
    found, layer = [], 0
    for room, taken in zip(rooms, fixed, strict=True):
        left, begun = room * share - taken, layer
        while layer < len(sizes) and sizes[layer] <= left:
            left -= sizes[layer]
            layer += 1
        found.append(layer - begun)
    return found


def _copies(load: Load, devices: int, gpu_layers: int) -> int:
    pipelined = devices > 1 and gpu_layers == load.all_layers
    return PIPELINE_COPIES if pipelined else 1


def _compute(load: Load, devices: int, gpu_layers: int) -> list[int]:
    """Each device's compute buffer, as if every one had layers and the last one the head."""
    copies = _copies(load, devices, gpu_layers)
    # weights that stay on the host are brought over for long batches, one tensor at a time (op_offload)
    fetched = load.weights.largest if gpu_layers < load.all_layers else 0
    return [
        fetched + device_compute(load.shape, load.buffers, copies=copies, first=index == 0, head=index == devices - 1)
        for index in range(devices)
    ]


def place(
    load: Load, devices: Sequence[Device], host: Device, counts: Sequence[int], *, split_mode: SplitMode
) -> list[DeviceUse]:
    """What each of ``devices``, and last the host, holds with ``counts`` layers on the devices."""
    gpu_layers = sum(counts)
    shape, weights = load.shape, load.weights
    layer = load.all_layers - gpu_layers
    compute = _compute(load, len(devices), gpu_layers)
    found = []
    for device, count, buffer in zip(devices, counts, compute, strict=True):
        parts = [load.parts(one) for one in range(layer, layer + count)]
        layer += count
        found.append(
            DeviceUse(
                device,
                layers=count,
                weights=sum(one for one, _ in parts),
                kv=sum(one for _, one in parts),
                compute=buffer if count else 0,
            )
        )
    if split_mode == "row" and gpu_layers:
        found = _by_rows(found)
    return [*found, _host_use(load, host, gpu_layers, len(devices), shape, weights)]


def _by_rows(uses: list[DeviceUse]) -> list[DeviceUse]:
    """Every matrix is cut by rows: weights follow the split exactly, caches and buffers the layers."""
    total, layers = sum(one.weights for one in uses), sum(one.layers for one in uses)
    return [dataclasses.replace(one, weights=round(total * one.layers / layers)) for one in uses]


def _host_use(load: Load, host: Device, gpu_layers: int, devices: int, shape: LlmShape, weights: LlmBytes) -> DeviceUse:
    own = load.all_layers - gpu_layers
    layers = min(own, shape.layers)
    if own == 0:
        buffer = host_compute(shape, load.buffers, copies=_copies(load, devices, gpu_layers))
    else:
        buffer = device_compute(shape, load.buffers, copies=1, first=True, head=gpu_layers == 0)
    return DeviceUse(
        host,
        layers=own,
        weights=weights.embedding + sum(weights.layers[:layers]) + (weights.output if gpu_layers == 0 else 0),
        kv=load.kv(layers),
        compute=buffer + output_bytes(shape),
        embedding=0 if weights.copy and gpu_layers == 0 else weights.embedding,
    )
