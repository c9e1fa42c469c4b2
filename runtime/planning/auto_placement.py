"""``device="auto"`` and workers: the options that the planner would choose for what is there."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

from ..bundle.bundle import Bundle
from ..ggml.devices import has_gpu
from ..options import LoadOptions
from ..system.machine import thread_warnings
from .devices import detect_devices
from .placement import Device
from .planner import Request, make_plan
from .shape_sources import bundle_shape

CPU_PROVIDER = "CPUExecutionProvider"


def auto_options(
    bundle: Bundle,
    options: LoadOptions,
    devices: Sequence[Device] | None = None,
    *,
    worker_memory: Sequence[tuple[str, int]] = (),
) -> LoadOptions:
    """``options`` with every open choice made for ``devices``, by default this machine's and its workers'.

    ``worker_memory`` are the devices of ``options.workers`` in order: HOST:PORT and the bytes free there.
    What the caller chose stays. Raises :class:`OptionError` for choices that contradict each other.
    """
    found = list(devices if devices is not None else _reachable(options, worker_memory))
    placement = make_plan(bundle_shape(bundle), found, _request(options)).placement
    gpus = any(one.kind == "gpu" for one in found)
    on_host = any(one.kind == "cpu" and one.name == placement.vision_device for one in found)
    return dataclasses.replace(
        options,
        gpu_layers=placement.gpu_layers,
        tensor_split=placement.tensor_split,
        split_mode=placement.split_mode,
        main_gpu=placement.main_gpu,
        kv_type_k=placement.kv_type_k,
        kv_type_v=placement.kv_type_v,
        flash_attention=placement.flash_attention,
        providers=options.providers or ((CPU_PROVIDER,) if gpus and on_host else ()),
    )


def prompt_engine_fits(bundle: Bundle, options: LoadOptions) -> bool:
    """Whether the prompt engine's weights fit here beside all else of a bundle whose layers are all on the host."""
    options = dataclasses.replace(options, gpu_layers=0, tensor_split=(), split_mode=None, prompt_engine="onnxruntime")
    return make_plan(bundle_shape(bundle), detect_devices()[-1:], _request(options)).placed


def _request(options: LoadOptions) -> Request:
    return Request(
        context=options.context,
        micro_batch=options.computed_at_once,
        gpu_layers=options.gpu_layers,
        tensor_split=options.tensor_split,
        split_mode=options.split_mode,
        main_gpu=options.main_gpu,
        kv_type_k=options.kv_type_k,
        kv_type_v=options.kv_type_v,
        flash_attention=options.flash_attention,
        prompt_engine=options.prompt_engine,
    )


def _reachable(options: LoadOptions, worker_memory: Sequence[tuple[str, int]]) -> list[Device]:
    """The workers' devices, this machine's GPUs, last the host."""
    here = detect_devices()
    return [*_worker_devices(worker_memory), *(here[-1:] if options.device == "cpu" else here)]


def _worker_devices(memory: Sequence[tuple[str, int]]) -> Iterator[Device]:
    several, seen = Counter(endpoint for endpoint, _ in memory), Counter[str]()
    for endpoint, free in memory:
        name = endpoint if several[endpoint] == 1 else f"{endpoint}/{seen[endpoint]}"
        seen[endpoint] += 1
        yield Device(name, "rpc", free, endpoint=endpoint)


def describe_placement(options: LoadOptions, *, on_cpu: bool, why_engine: str = "") -> str:
    """One line about where a loaded language model is; ``on_cpu`` where this machine's cores compute any of it.

    ``why_engine`` says why prompts are read by what reads them.
    """
    prompts = options.prompt_engine + (f" ({why_engine})" if why_engine else "")
    split = f", split {options.split_mode}" if options.split_mode else ""
    shares = f" {':'.join(f'{one:g}' for one in options.tensor_split)}" if options.tensor_split else ""
    main = f", main GPU {options.main_gpu}" if options.main_gpu is not None else ""
    flash = {None: "off" if on_cpu else "llama.cpp's choice", True: "on", False: "off"}[options.wants_flash_attention]
    kinds = f"{options.kv_type_k or 'f16'}/{options.kv_type_v or 'f16'}"
    away_from_host = bool(options.workers) or (has_gpu() and options.device != "cpu")
    layers = str(options.gpu_layers) if away_from_host and options.gpu_layers else "none"
    if away_from_host and options.gpu_layers < 0:
        layers = "none" if on_cpu else "all"
    away = f" | workers {', '.join(options.workers)}" if options.workers else ""
    return (
        f"placement {options.device or 'default'}{away} | GPU layers {layers}{split}{shares}{main} | KV {kinds}"
        f" | flash attention {flash} | prompts {prompts}"
        f"{''.join(f' | {one}' for one in thread_warnings(options.threads))}"
    )
