"""Plans where a model goes: layers over devices, the kind of its KV cache, the vision tower.

In order: everything on one GPU, on all GPUs, with a smaller cache; then as many layers as fit, the
rest on the host. Workers that are named are used. What was chosen by hand stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from ..errors import OptionError
from ..ggml.llm_recipes import FULL_PRECISION, LEAST_FOR_INT8
from ..ggml.types import BY_NAME
from ..option_checks import picture_share
from ..options import DEFAULT_MAX_TOKENS, KV_TYPES, SPLIT_MODES, Detail, PromptEngineName, padded_context
from ..pictures.vision_recipes import VISION_RECIPES
from .llm_memory import Buffers, prompt_bytes
from .placement import Device, DeviceUse, Load, Placement, SplitMode, balanced_split, place, split_layers
from .recipe_types import check_recipe
from .shapes import LlmBytes, LlmShape, ModelShape, llm_bytes
from .vision_memory import picture_bytes, tower_bytes

QUESTION = 512
"""Positions for text where no context is asked for: questions, and the template's own."""

SHORTEST_TEXT = 256
"""Positions beside its pictures that a context must leave: the template's own, a question, an answer."""

_AUTO_KV = (("f16", "f16"), ("q8_0", "q8_0"))


@dataclass(frozen=True)
class Request:
    """What to plan for. Empty values, None and a ``gpu_layers`` of -1 are the planner's to choose.

    ``context`` in positions, 0 for ``images`` of the largest pictures, a question and an answer.
    ``recipe`` is the LLM's type, ``vision_recipe`` the tower's; a bundle has its own. ``detail`` "auto" takes pictures'
    tiles where they fit the context beside a question. ``picture_tokens`` are the positions kept of each.
    ``prompt_engine`` "auto" takes onnxruntime where all layers are on the host, the model is quantized and not
    small, and its weights in int8 fit beside all else.
    """

    recipe: str = ""
    vision_recipe: str = ""
    context: int = 0
    images: int = 1
    detail: Detail = "high"
    picture_tokens: int | str | None = None
    micro_batch: int = 512
    gpu_layers: int = -1
    tensor_split: tuple[float, ...] = ()
    split_mode: SplitMode | None = None
    main_gpu: int | None = None
    kv_type_k: str = ""
    kv_type_v: str = ""
    flash_attention: bool | None = None
    vision_device: str = ""
    prompt_engine: PromptEngineName = "llama.cpp"

    def __post_init__(self) -> None:
        object.__setattr__(self, "picture_tokens", picture_share(self.picture_tokens))
        if self.detail not in get_args(Detail):
            raise OptionError(
                expected=f"detail among {', '.join(get_args(Detail))}", got=str(self.detail), fix="choose one"
            )
        for kind in (self.kv_type_k, self.kv_type_v):
            if kind and kind not in KV_TYPES:
                raise OptionError(expected=f"a KV type among {', '.join(KV_TYPES)}", got=kind, fix="choose one")
        if self.split_mode is not None and self.split_mode not in SPLIT_MODES:
            raise OptionError(
                expected=f"a split mode among {', '.join(SPLIT_MODES)}", got=str(self.split_mode), fix="choose one"
            )
        if self.flash_attention is False and self.kv_type_v in _block_types():
            raise OptionError(
                expected="flash attention for a quantized KV cache", got="it switched off", fix="leave out one of both"
            )


@dataclass(frozen=True)
class Plan:
    """A placement with what every device then holds, the host last. Bytes and positions."""

    model: ModelShape
    recipe: str
    vision_recipe: str
    context: int
    images: int
    placement: Placement
    uses: tuple[DeviceUse, ...]

    @property
    def fits(self) -> bool:
        """Whether every device keeps its reserve free, and the model has such a context, for so many pictures."""
        return self.placed and self.pictures_fit

    @property
    def placed(self) -> bool:
        """Whether every device keeps its reserve free."""
        return all(one.fits for one in self.uses)

    @property
    def pictures_fit(self) -> bool:
        """Whether the model has such a context, and that has room for the pictures and some text."""
        return self.context <= padded_context(self.model.llm.context_length) and (
            not self.images or self.images * self.picture_tokens + SHORTEST_TEXT <= self.room
        )

    @property
    def room(self) -> int:
        """Positions that a prompt and its answer can have."""
        return min(self.context, self.model.llm.context_length)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it does not fit, a sentence without full stop each."""
        limit, found = self.model.llm.context_length, []
        if self.context > padded_context(limit):
            found.append(f"the model has {limit} positions, not {self.context}")
        if self.images and (needed := self.images * self.picture_tokens) + SHORTEST_TEXT > self.room:
            whose = "the model has" if self.room == limit else "the context has"
            found.append(
                f"{self.images} picture{'s' if self.images > 1 else ''} of {self.picture_tokens} positions and "
                f"{SHORTEST_TEXT} for text are {needed + SHORTEST_TEXT}; {whose} {self.room}"
            )
        for one in self.uses:
            if not one.fits:
                lacking = (one.device.reserve - one.free) / 2**30
                found.append(
                    f"{one.device.name} lacks {lacking:.2f} GiB" if lacking >= 0.005 else f"{one.device.name} is full"
                )
        return tuple(found)

    @property
    def picture_tokens(self) -> int:
        """Positions of the largest picture."""
        return self.model.picture_tokens


@dataclass(frozen=True)
class _Task:
    """What is planned: a model, its host, the other devices in llama.cpp's order, and the completed request."""

    model: ModelShape
    weights: LlmBytes
    host: Device
    others: list[Device]
    request: Request


def make_plan(model: ModelShape, devices: Sequence[Device], request: Request) -> Plan:
    """The best plan that fits, else the one that comes nearest to it. Raises :class:`OptionError`.

    ``devices`` has one host, any number of GPUs and workers, in any order.
    """
    host, others = _sorted(devices)
    model = _detailed(model, request)
    completed = _completed(model, request)
    best: Plan | None = None
    for plan in _candidates(_Task(model, llm_bytes(model.llm, completed.recipe), host, others, completed)):
        if plan.placed:  # the context is the same in all of them
            return plan
        if best is None or _missing(plan) < _missing(best):
            best = plan
    assert best is not None  # there is always a candidate
    return best


def _missing(plan: Plan) -> int:
    """Bytes that are lacking, over all devices."""
    return sum(max(0, one.device.reserve - one.free) for one in plan.uses if not one.fits)


def _detailed(model: ModelShape, request: Request) -> ModelShape:
    """The model with its pictures' tiles or without."""
    model = dataclasses.replace(model, kept=request.picture_tokens)
    room = request.context or model.llm.context_length
    crowded = model.picture_tokens * request.images + QUESTION > room
    low = request.detail == "low" or (request.detail == "auto" and crowded)
    return dataclasses.replace(model, overview_only=True) if low else model


def _completed(model: ModelShape, request: Request) -> Request:
    context = request.context
    if not context:
        wanted = model.picture_tokens * request.images + QUESTION + DEFAULT_MAX_TOKENS
        context = min(wanted, model.llm.context_length)
    vision = model.vision.recipe or request.vision_recipe or "int8"
    if vision not in VISION_RECIPES:
        raise OptionError(expected=f"a vision type among {', '.join(VISION_RECIPES)}", got=vision, fix="choose one")
    recipe = request.recipe or model.llm.recipe or "q4_k_m"
    if recipe != model.llm.recipe or not model.llm.sizes:  # a file's own may be any: its bytes are known
        check_recipe(recipe)
    return dataclasses.replace(request, context=padded_context(context), recipe=recipe, vision_recipe=vision)


def _sorted(devices: Sequence[Device]) -> tuple[Device, list[Device]]:
    """The host, and the others in llama.cpp's order: workers first."""
    hosts = [one for one in devices if one.kind == "cpu"]
    if len(hosts) != 1 or len({one.name for one in devices}) < len(devices):
        names = ", ".join(one.name for one in devices)
        raise OptionError(expected="one host, and devices of different names", got=names, fix="name each one once")
    return hosts[0], sorted((one for one in devices if one.kind != "cpu"), key=lambda one: one.kind != "rpc")


def _candidates(task: _Task) -> Iterator[Plan]:
    """Plans in order of preference; there is always one."""
    caches, groups = _caches(task.request), _groups(task)
    whole = task.model.llm.layers + 1
    chosen = task.request.gpu_layers
    if chosen in (-1, whole) and task.others:
        yield from (_plan(task, group, whole, cache) for cache in caches for group in groups)
    for cache in caches:
        if chosen >= 0:
            yield _plan(task, groups[-1], min(chosen, whole), cache)
        else:
            yield _most_layers(task, groups[-1], cache)


def _groups(task: _Task) -> list[list[Device]]:
    """Sets of devices to try: the fastest or largest GPU alone, then all. Named workers are always in."""
    others, request = task.others, task.request
    remote = any(one.kind == "rpc" for one in others)
    if request.split_mode == "row" and remote:
        raise OptionError(
            expected="split mode layer with workers", got="row", fix="llama.cpp can't split rows over machines"
        )
    if request.split_mode == "none" and others:
        index = request.main_gpu or 0
        if index >= len(others):
            raise OptionError(expected=f"a main GPU below {len(others)}", got=str(index), fix="choose another")
        return [[others[index]]]
    if request.tensor_split or request.split_mode or len(others) < 2 or remote:
        return [others]
    return [[max(others, key=lambda one: (one.bandwidth, one.memory))], others]


def _caches(request: Request) -> list[tuple[str, str]]:
    if request.kv_type_k or request.kv_type_v:
        return [(request.kv_type_k or "f16", request.kv_type_v or "f16")]
    return list(_AUTO_KV if request.flash_attention is not False else _AUTO_KV[:1])


def _most_layers(task: _Task, group: list[Device], cache: tuple[str, str]) -> Plan:
    """As many layers on the devices as fit there, the rest on the host."""
    low, high = 0, task.model.llm.layers if group else 0  # all of them were tried before
    while low < high:
        middle = (low + high + 1) // 2
        plan = _plan(task, group, middle, cache)
        if all(one.fits for one in plan.uses[:-1]):
            low = middle
        else:
            high = middle - 1
    return _plan(task, group, low, cache)


def _plan(task: _Task, group: list[Device], gpu_layers: int, cache: tuple[str, str]) -> Plan:
    """The plan for one choice of devices, number of layers on them, and cache."""
    model, request = task.model, task.request
    group = group if gpu_layers else []
    gpu_layers = gpu_layers if group else 0
    flash = request.flash_attention
    if flash is None:  # on processors only where the cache needs it: it costs parity there (see options)
        flash = any(one.kind == "gpu" for one in group) or cache[1] in _block_types()  # a worker may be a processor
    buffers = Buffers(request.context, request.micro_batch, flash)
    load = Load(model.llm, task.weights, buffers, cache)
    counts = _counts(load, group, gpu_layers, request) if group else []
    mode: SplitMode = request.split_mode or ("layer" if len(group) > 1 else "none")
    uses, vision = _with_vision(model, place(load, group, task.host, counts, split_mode=mode), request)
    uses, engine = _with_prompts(model.llm, uses, request, on_host=not gpu_layers)
    placement = Placement(
        devices=tuple(one.name for one in group),
        gpu_layers=gpu_layers,
        tensor_split=tuple(request.tensor_split or map(float, counts)) if len(group) > 1 else (),
        split_mode=mode,
        main_gpu=task.others.index(group[0]) if len(group) == 1 else request.main_gpu or 0,
        kv_type_k=cache[0],
        kv_type_v=cache[1],
        flash_attention=flash,
        vision_device=vision,
        workers=tuple(one.endpoint for one in group if one.kind == "rpc"),
        prompt_engine=engine,
    )
    return Plan(model, request.recipe, request.vision_recipe, request.context, request.images, placement, tuple(uses))


def _counts(load: Load, group: list[Device], gpu_layers: int, request: Request) -> list[int]:
    if not request.tensor_split:
        return balanced_split(load, group, gpu_layers)
    if len(request.tensor_split) != len(group):
        raise OptionError(
            expected=f"{len(group)} shares, one for each of {', '.join(one.name for one in group)}",
            got=str(len(request.tensor_split)),
            fix="workers come first, then GPUs",
        )
    return split_layers(gpu_layers, request.tensor_split)


def _with_vision(model: ModelShape, uses: list[DeviceUse], request: Request) -> tuple[list[DeviceUse], str]:
    """Put the tower on the GPU with most room left, else on the host; pictures are the host's."""
    size = tower_bytes(model.vision, request.vision_recipe)
    names = {one.device.name: index for index, one in enumerate(uses) if one.device.kind != "rpc"}
    if request.vision_device and request.vision_device not in names:
        raise OptionError(
            expected=f"a vision device among {', '.join(names)}", got=request.vision_device, fix="choose one"
        )
    chosen = len(uses) - 1
    gpus = [index for index, one in enumerate(uses) if one.device.kind == "gpu"]
    if request.vision_device:
        chosen = names[request.vision_device]
    elif gpus:
        roomiest = max(gpus, key=lambda index: uses[index].free)
        if uses[roomiest].add_vision(size).fits:
            chosen = roomiest
    found = list(uses)
    found[chosen] = found[chosen].add_vision(size)
    found[-1] = found[-1].add_vision(picture_bytes(model, request.images))
    return found, found[chosen].device.name


def _with_prompts(
    shape: LlmShape, uses: list[DeviceUse], request: Request, *, on_host: bool
) -> tuple[list[DeviceUse], PromptEngineName]:
    """Put the prompt engine's weights on the host where it reads prompts: a model that is there as a whole."""
    size = prompt_bytes(shape)
    found = [*uses[:-1], uses[-1].add_prompts(size)]
    pays = request.recipe not in FULL_PRECISION and size >= LEAST_FOR_INT8 and found[-1].fits
    if on_host and (request.prompt_engine == "onnxruntime" or (request.prompt_engine == "auto" and pays)):
        return found, "onnxruntime"
    return uses, "llama.cpp"


def _block_types() -> set[str]:
    """Cache types that come in blocks and need flash attention."""
    return {kind for kind in KV_TYPES if BY_NAME[kind].weights > 1}
