"""Options that several commands share, declared once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ...runtime.errors import OptionError

_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}


def parse_size(text: str) -> int:
    """Bytes of "48G", "500M", "8K" or a plain number; units are powers of a thousand, as gguf-split has them."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)B?", text.strip().upper())
    size = int(float(match[1]) * _UNITS.get(match[2], 1)) if match else 0
    if size <= 0:
        raise OptionError(expected="a size like 48G or 500M", got=repr(text), fix="give a number and K, M or G")
    return size


SplitSizeOption = Annotated[
    str, typer.Option("--split-size", metavar="SIZE", help="Split the LLM into GGUF files of at most this size.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Continue what a killed run of the same command left.")
]
ModelOption = Annotated[
    Path | None,
    typer.Option("--model", "-m", metavar="BUNDLE", help="Bundle folder; the demo model without it."),
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", help="CPU threads; 0 means one per physical core.", show_default=False)
]
ContextOption = Annotated[
    int,
    typer.Option("--context", help="Positions of the context; 0 sizes it by the prompt.", show_default=False),
]
MaxTokensOption = Annotated[int, typer.Option("--max-tokens", help="Tokens an answer may have.")]
TemperatureOption = Annotated[float, typer.Option("--temperature", help="0 is greedy and deterministic.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the draw; a new one without it.")]
TopKOption = Annotated[int, typer.Option("--top-k", help="Draw from the K likeliest; 0 switches it off.")]
TopPOption = Annotated[float, typer.Option("--top-p", help="Draw from this share of probability.")]
MinPOption = Annotated[float, typer.Option("--min-p", help="Drop what is this much less likely than the best.")]
PenaltyOption = Annotated[float, typer.Option("--repeat-penalty", help="Above 1 discourages repeats.")]
StopOption = Annotated[list[str] | None, typer.Option("--stop", help="End the answer here; may repeat.")]
SystemOption = Annotated[str | None, typer.Option("--system", help="System message of the conversation.")]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        metavar="NAME[:DEVICE]",
        help="What runs the vision tower: tensorrt cuda coreml directml openvino cpu; may repeat. The best without it.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="auto|cpu", help="auto plans layers, KV cache and vision; cpu uses no GPU."),
]
GpuLayersOption = Annotated[
    int, typer.Option("--gpu-layers", help="Layers on GPUs and workers; -1 is as many as fit.", show_default=False)
]
SplitModeOption = Annotated[
    str | None, typer.Option("--split-mode", metavar="none|layer|row", help="One GPU, or how several share the model.")
]
MainGpuOption = Annotated[int | None, typer.Option("--main-gpu", help="The GPU of split mode none.")]
KvTypeOption = Annotated[
    str, typer.Option("--kv-type", metavar="TYPE", help="Type of the KV cache: f16, q8_0, …; q8_0 halves it.")
]
FlashOption = Annotated[
    bool | None,
    typer.Option("--flash-attention/--no-flash-attention", help="On where layers are on a GPU, else off."),
]
StatsOption = Annotated[bool, typer.Option("--stats", help="Say on stderr where the model was placed.")]


WorkerOption = Annotated[
    list[str] | None,
    typer.Option("--worker", metavar="HOST:PORT", help="Put layers on this 'llava-edge worker'; may repeat."),
]
TensorSplitOption = Annotated[
    str | None,
    typer.Option(
        "--tensor-split",
        metavar="SHARES",
        help="Shares of the layers, like 2,1,1: workers first, then GPUs here; by the plan without it.",
    ),
]
IsolateOption = Annotated[
    bool, typer.Option("--isolate", help="Keep llama.cpp in a process of its own; workers imply it.")
]


def placement(
    device: str,
    gpu_layers: int,
    split_mode: str | None,
    main_gpu: int | None,
    kv_type: str,
    flash: bool | None,
    worker: list[str] | None,
    tensor_split: str | None,
    isolate: bool,
) -> dict[str, Any]:
    """Keywords of ``load`` for the options above. Raises :class:`OptionError`."""
    return {
        "device": device,
        "gpu_layers": gpu_layers,
        "split_mode": split_mode,
        "main_gpu": main_gpu,
        "kv_type_k": kv_type,
        "kv_type_v": kv_type,
        "flash_attention": flash,
        "workers": tuple(worker or ()),
        "tensor_split": shares(tensor_split),
        "isolate": isolate,
    }


def shares(text: str | None) -> tuple[float, ...]:
    """``--tensor-split`` as numbers. Raises :class:`OptionError`."""
    try:
        return tuple(float(one) for one in text.split(",")) if text else ()
    except ValueError:
        raise OptionError(expected="shares such as 2,1,1", got=repr(text), fix="write numbers and commas") from None
