"""``llava-edge plan``: what fits where, before anything is downloaded or loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from ...runtime.pictures.vision_recipes import VISION_RECIPES
from ..terminal import options as arguments

DOES_NOT_FIT = 3
"""Exit status of a plan that does not fit."""
GpuOption = Annotated[
    list[str] | None,
    typer.Option("--gpu", metavar="NAME=24G[@GB/s[,TFLOP/s]]", help="A GPU to plan for; those found here without it."),
]
WorkerOption = Annotated[
    list[str] | None,
    typer.Option("--worker", metavar="HOST:PORT=24G[@…]", help="A 'llava-edge worker' and its memory; may repeat."),
]


def plan(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Bundle or its name, checkpoint folder, hub id, or a name such as llama3-8b."
        ),
    ] = None,
    gpu: GpuOption = None,
    worker: WorkerOption = None,
    host: Annotated[
        str, typer.Option("--host", metavar="64G[@GB/s[,TFLOP/s]]", help="The host's memory; what is free without it.")
    ] = "",
    context: Annotated[
        int, typer.Option("--ctx", "--context", help="Positions; 0 is pictures, a question and an answer.")
    ] = 0,
    images: Annotated[int, typer.Option("--images", help="Pictures in a conversation.")] = 1,
    detail: arguments.DetailOption = "high",
    picture_tokens: arguments.PictureTokensOption = None,
    llm: Annotated[str, typer.Option("--llm", help="The LLM's type; the bundle's, else q4_k_m.")] = "",
    vision: Annotated[
        str, typer.Option("--vision", help=f"The vision tower's: {', '.join(VISION_RECIPES)}; else int8.")
    ] = "",
    vision_tower: Annotated[
        str,
        typer.Option(
            "--vision-tower", metavar="DIR", help="The tower's folder or hub id, if not where config.json says."
        ),
    ] = "",
    kv_type: arguments.KvTypeOption = "",
    gpu_layers: arguments.GpuLayersOption = -1,
    split_mode: arguments.SplitModeOption = None,
    prompt_engine: arguments.PromptEngineOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what fits on which device: weights, KV cache, buffers, vision, and what is left over."""
    from ...runtime.planning.devices import detect_devices
    from ...runtime.planning.planner import Request, make_plan
    from ...runtime.planning.suggestions import suggestions
    from ..terminal.plan_sources import parse_device, shape_of
    from ..terminal.plan_table import plan_dictionary, plan_table
    from ..terminal.streams import say, say_json

    shape = shape_of(model, vision_tower)
    found = detect_devices() if not (gpu and host) else []
    devices = [parse_device(one, "gpu") for one in gpu] if gpu else found[:-1]
    devices += [parse_device(one, "rpc") for one in worker or ()]
    devices.append(parse_device(f"host={host}", "cpu") if host else found[-1])
    request = Request(
        recipe=llm,
        vision_recipe=vision,
        context=_at_least("ctx", context, 0),
        images=_at_least("images", images, 0),
        detail=detail,  # type: ignore[arg-type]  # so do these
        picture_tokens=picture_tokens,
        gpu_layers=_at_least("gpu-layers", gpu_layers, -1),
        split_mode=split_mode,  # type: ignore[arg-type]  # the request refuses other words
        kv_type_k=kv_type,
        kv_type_v=kv_type,
        prompt_engine=_engine(prompt_engine, described=bool(host)),  # type: ignore[arg-type]
    )
    made = make_plan(shape, devices, request)
    _check_engine(prompt_engine, made.placement.prompt_engine)
    nearest = suggestions(made, devices, request)
    if as_json:
        say_json(plan_dictionary(made, nearest))
    else:
        say(plan_table(made, nearest, short=prompt_engine == "auto"))
    if not made.fits:
        raise typer.Exit(DOES_NOT_FIT)


def _engine(word: str, *, described: bool) -> str:
    """What ``auto`` is: of a host that is described nobody knows how fast it computes, so the memory is counted."""
    from ...runtime.options import LoadOptions
    from ...runtime.prompt_engine.choice import usual_here

    LoadOptions(prompt_engine=word)  # type: ignore[arg-type]  # refuses other words
    return "llama.cpp" if word == "auto" and not described and not usual_here() else word


def _check_engine(asked: str, planned: str) -> None:
    """As a load does. Raises OptionError."""
    from ...runtime.errors import OptionError

    if asked == "onnxruntime" != planned:
        raise OptionError(
            expected="prompt engine onnxruntime, with all layers on the host",
            got="layers on a GPU or on workers",
            fix="choose auto or llama.cpp, or --gpu-layers 0",
        )


def _at_least(name: str, value: int, low: int) -> int:
    from ...runtime.errors import OptionError

    if not low <= value < 2**24:
        raise OptionError(
            expected=f"{name} from {low} to {2**24 - 1}", got=str(value), fix=f"give {name} a value in that range"
        )
    return value
