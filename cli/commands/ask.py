"""``llava-edge ask``: one answer on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ...runtime.errors import OptionError
from ..terminal import options as arguments


def ask(
    words: Annotated[list[str], typer.Argument(metavar="IMAGE... QUESTION", help="Pictures, then the question.")],
    model: arguments.ModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
    max_tokens: arguments.MaxTokensOption = 512,
    temperature: arguments.TemperatureOption = 0.0,
    seed: arguments.SeedOption = None,
    top_k: arguments.TopKOption = 40,
    top_p: arguments.TopPOption = 0.95,
    min_p: arguments.MinPOption = 0.05,
    repeat_penalty: arguments.PenaltyOption = 1.0,
    stop: arguments.StopOption = None,
    system: arguments.SystemOption = None,
    threads: arguments.ThreadsOption = 0,
    context: arguments.ContextOption = 0,
    provider: arguments.ProviderOption = None,
    device: arguments.DeviceOption = "",
    gpu_layers: arguments.GpuLayersOption = -1,
    split_mode: arguments.SplitModeOption = None,
    main_gpu: arguments.MainGpuOption = None,
    kv_type: arguments.KvTypeOption = "",
    flash_attention: arguments.FlashOption = None,
    stats: arguments.StatsOption = False,
    worker: arguments.WorkerOption = None,
    tensor_split: arguments.TensorSplitOption = None,
    isolate: arguments.IsolateOption = False,
) -> None:
    """Answer one question about pictures; the text goes to stdout, statistics to stderr."""
    from ...runtime.model import load
    from ..terminal.progress import Bar, note, statistics

    *images, question = words
    _check(images, question)
    placed = arguments.placement(
        device, gpu_layers, split_mode, main_gpu, kv_type, flash_attention, worker, tensor_split, isolate
    )
    with load(model, threads=threads, context=context, providers=tuple(provider or ()), **placed) as loaded:
        if stats:
            note(loaded.placement)
            note(loaded.provider)
        chat = loaded.chat(system=system)
        for piece in chat.stream(
            question,
            images=images,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            stop=tuple(stop or ()),
            on_encode=Bar("encoding tiles"),
            on_prefill=Bar("reading the prompt"),
        ):
            if not as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
    answer = chat.answer
    assert answer is not None
    print(json.dumps(answer.as_dict(), ensure_ascii=False) if as_json else "", flush=True)
    note(statistics(answer))


def _check(images: list[str], question: str) -> None:
    if not question.strip():
        raise OptionError(expected="a question", got="an empty one", fix="write the question last, in quotes")
    if not images and Path(question).is_file():
        raise OptionError(
            expected="a question after the picture",
            got=f"only {question}",
            fix='ask like this: llava-edge ask photo.jpg "What is this?"',
        )
