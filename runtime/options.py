"""What a caller may choose: how a bundle is loaded, and how an answer is sampled.

An option is declared once, as a field of :class:`LoadOptions` or :class:`GenerationOptions` with its type, default,
range and help text. The command line takes all of it from there (``cli/terminal/options.py``). The ``TypedDict``
beside each class gives type checkers the keywords of ``load``, ``ask`` and ``stream``; a test holds the two equal.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, get_args

from .answer_forms import AnswerForm, answer_form
from .errors import OptionError
from .option_checks import Option, check_declared, check_number, folder_named, parse_endpoint, picture_share, plain
from .option_checks import declared as declared
from .option_checks import types_of as types_of

DEFAULT_MAX_TOKENS = 512
MICRO_BATCH = 512
Device = Literal["", "auto", "cpu"]
PromptEngineName = Literal["auto", "llama.cpp", "onnxruntime"]
Isolation = Literal["llm", "engine"]
"""What may live in a process of its own."""
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Types that llama.cpp's cache may have."""
Detail = Literal["high", "low", "auto"]
"""How much of a picture the model sees: its tiles, an overview alone, or what fits the context."""
QUANTIZED_KV_TYPES = KV_TYPES[3:]
"""Those of blocks: for values, llama.cpp can read them in its flash attention alone."""
SplitMode = Literal["none", "layer", "row"]
SPLIT_MODES: tuple[SplitMode, ...] = get_args(SplitMode)
"""How llama.cpp may split a model over GPUs."""
CONTEXT_STEP = 256
"""Contexts are sized in steps of this many positions; llama.cpp pads to it anyway (llama-context.cpp)."""
MAX_DEVICES = 16
"""Devices that llama.cpp splits a model over."""
PENALTY_WINDOW = 64
"""Tokens that the repeat penalty looks back on (llama.cpp's usual window)."""


_KV_TYPE = Option(
    "Type of the KV cache: f16, q8_0, …; q8_0 halves it.",
    words=("", *KV_TYPES),
    name="a KV type",
    flag="--kv-type",
    metavar="TYPE",
)


@dataclass(frozen=True)
class LoadOptions:
    """How a bundle is loaded. The defaults are what measured best; see ``docs/performance.md``.

    ``threads`` drives decoding, prefill and the vision tower. ``context`` is in positions; 0 sizes it
    from each prompt, up to the model's limit. ``providers`` run the vision tower, the first that
    starts: names as "cuda", "openvino" or "cuda:1"; empty means the best one installed.

    ``device`` "auto" lets the planner choose what the following leave open, "cpu" uses no GPU of
    this machine, empty leaves the choices to llama.cpp. ``gpu_layers`` -1 puts all layers on a GPU
    if the build has one. ``split_mode`` puts the model on one GPU, or splits it by layers or rows;
    ``main_gpu`` is the one for "none" and for what "row" can't split. ``kv_type_k`` and
    ``kv_type_v`` are llama.cpp's types of the KV cache, f16 where empty. ``flash_attention`` None
    means llama.cpp's choice on a GPU and off on a CPU, where its kernel moves a long prompt's logits
    (KL 2e-3) and so breaks parity with the reference; a quantized ``kv_type_v`` needs it, and has it on.

    ``workers`` are HOST:PORT of ``llava-edge worker`` on other machines; with them the planner
    chooses too. ``tensor_split`` are the shares of the layers that each device gets, workers first,
    then this machine's GPUs. ``isolate`` "llm", or True, keeps llama.cpp in a process of its own, so that its crash is
    an error; workers imply it. "engine" keeps everything there that computes, onnxruntime too: a crash is one
    :class:`EngineCrashed`, and the next request starts another process. False is "engine" in a process that was forked
    after a model was loaded, where llama.cpp can't compute. ``worker_timeout`` ends a step of computing that takes
    longer. ``kept_states`` are bytes for what was read of conversations that made way for others, so that several that
    take turns are not read again; 0 keeps none.

    ``cache`` is a folder in which encoded pictures and what was read of conversations are found again by later
    processes, True the user's cache, None no folder: it holds what was asked in another form. ``cache_pictures`` and
    ``cache_states`` are bytes that each may take there, ``cache_min_free_disk`` bytes that stay free on its disk, and
    states of fewer than ``cache_min_positions`` are not written.

    ``repack`` None means yes where a model's types gain by it; on CPUs with AMX only after a trial, because a llama.cpp
    compiled by GCC 12 dies there (``repacking``; an ``Llm`` on its own makes no trial and leaves it off there).
    ``prompt_engine`` "onnxruntime" reads prompts of 64 positions and more with int8 products on the CPU, for which
    each weight takes another byte of memory; "auto" is llama.cpp where that does not pay (``docs/prompt-engine.md``).
    ``prepare`` says when those bytes are made: True in the load, False at the first long prompt, None while nothing
    else is computed, from half a second after the load on.
    """

    threads: Annotated[int, Option("CPU threads; 0 means one per physical core.", (0, 1024), show_default=False)] = 0
    context: Annotated[
        int, Option("Positions of the context; 0 sizes it by the prompt.", (0, 2**24), show_default=False)
    ] = 0
    providers: Annotated[
        tuple[str, ...],
        Option(
            "What runs the vision tower: tensorrt cuda coreml directml openvino cpu; may repeat. The best without it.",
            flag="--provider",
            metavar="NAME[:DEVICE]",
        ),
    ] = ()
    device: Annotated[
        Device, Option("auto plans layers, KV cache and vision; cpu uses no GPU.", words=get_args(Device))
    ] = ""
    gpu_layers: Annotated[
        int, Option("Layers on GPUs and workers; -1 is as many as fit.", (-1, 10_000), show_default=False)
    ] = -1
    split_mode: Annotated[SplitMode | None, Option("One GPU, or how several share the model.", words=SPLIT_MODES)] = (
        None
    )
    main_gpu: Annotated[int | None, Option("The GPU of split mode none.", (0, 1024))] = None
    kv_type_k: Annotated[str, _KV_TYPE] = ""
    kv_type_v: Annotated[str, _KV_TYPE] = ""
    flash_attention: Annotated[bool | None, Option("On where layers are on a GPU, else off.")] = None
    workers: Annotated[
        tuple[str, ...],
        Option("Put layers on this 'llava-edge worker'; may repeat.", flag="--worker", metavar="HOST:PORT"),
    ] = ()
    tensor_split: Annotated[
        tuple[float, ...],
        Option(
            "Shares of the layers, like 2,1,1: workers first, then GPUs here; by the plan without it.", metavar="SHARES"
        ),
    ] = ()
    isolate: Annotated[
        Isolation | bool,
        Option(
            "Keep llama.cpp, or the whole engine, in a process of its own; llm without a word, workers imply it.",
            words=(*get_args(Isolation), "off"),
            metavar="llm|engine|off",
            show_default=False,
            bare="llm",
        ),
    ] = False
    worker_timeout: Annotated[
        float, Option("Seconds that a step may take on workers; 0 is no limit.", (0, 86_400), in_python_only=True)
    ] = 600.0
    batch: Annotated[int, Option("Positions a prefill call.", (1, 65536), in_python_only=True)] = 512
    micro_batch: Annotated[
        int | None,
        Option("Positions computed at once, at most a batch; 512 if that has them.", (1, 65536), in_python_only=True),
    ] = None
    repack: Annotated[
        bool | None,
        Option("Rearrange weights at load for faster products; by default where the types gain by it."),
    ] = None
    prompt_engine: Annotated[
        PromptEngineName,
        Option(
            "What computes the products of long prompts; auto takes what is faster here.",
            words=get_args(PromptEngineName),
        ),
    ] = "auto"
    prepare: Annotated[
        bool | None,
        Option(
            "Where onnxruntime reads prompts: make its weights in the load, or at the first prompt of 64 positions; "
            "else when idle."
        ),
    ] = None
    images_kept: Annotated[
        int, Option("Encoded pictures kept in memory, the latest used.", (0, 10_000), in_python_only=True)
    ] = 8
    kept_states: Annotated[
        int, Option("Bytes for what was read of displaced conversations.", (0, 2**50), in_python_only=True)
    ] = 0
    cache: Annotated[
        str | os.PathLike[str] | bool | None,
        Option(
            "Keep what was seen and read for later runs in this folder; in the user's cache without it.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None
    cache_pictures: Annotated[int, Option("Bytes of pictures kept there.", (0, 2**50), metavar="BYTES")] = 2**30
    cache_states: Annotated[int, Option("Bytes of conversations kept there.", (0, 2**50), metavar="BYTES")] = 4 * 2**30
    cache_min_free_disk: Annotated[int, Option("Bytes of its disk that stay free.", (0, 2**60), metavar="BYTES")] = (
        10 * 2**30
    )
    cache_min_positions: Annotated[int, Option("Positions below which nothing read is kept there.", (0, 2**24))] = 512

    def __post_init__(self) -> None:
        object.__setattr__(self, "isolate", _isolation(self.isolate))
        object.__setattr__(self, "cache", folder_named(self.cache, "cache"))
        check_declared(self)
        if self.micro_batch is not None:
            check_number("micro_batch", self.micro_batch, 1, self.batch)
        if len(set(self.workers)) < len(self.workers):
            raise OptionError(
                expected="workers as a tuple of different HOST:PORT", got=repr(self.workers), fix="name each one once"
            )
        if self.flash_attention is False and self.kv_type_v in QUANTIZED_KV_TYPES:
            raise OptionError(
                expected=f"flash attention with values in {self.kv_type_v}",
                got="flash attention switched off",
                fix="switch it on or leave it open, or choose f16 for the values",
            )
        for endpoint in self.workers:
            parse_endpoint(endpoint)
        for share in self.tensor_split:
            check_number("tensor_split", share, 0.0, 1e9)
        if len(self.tensor_split) > MAX_DEVICES or (self.tensor_split and not any(self.tensor_split)):
            raise OptionError(
                expected=f"1 to {MAX_DEVICES} shares, one above 0",
                got=repr(self.tensor_split),
                fix="give each device its share of the layers",
            )

    @property
    def computed_at_once(self) -> int:
        """``micro_batch``, and where it is open what measured best within a batch."""
        return min(MICRO_BATCH, self.batch) if self.micro_batch is None else self.micro_batch

    @property
    def wants_flash_attention(self) -> bool | None:
        """``flash_attention``, and yes where it is open and the types of the KV cache need it."""
        if self.flash_attention is None and self.kv_type_v in QUANTIZED_KV_TYPES:
            return True
        return self.flash_attention

    def check_context(self, limit: int) -> None:
        """Refuse a context of more than a model's ``limit`` positions. Raises OptionError."""
        if self.context > limit:
            raise OptionError(
                expected=f"a context of at most {limit} positions (the model's limit)",
                got=str(self.context),
                fix="choose a smaller context",
            )


class LoadChoices(TypedDict, total=False):
    """The keywords of ``load``: the fields of :class:`LoadOptions`."""

    threads: int
    context: int
    providers: tuple[str, ...]
    device: Device
    gpu_layers: int
    split_mode: SplitMode | None
    main_gpu: int | None
    kv_type_k: str
    kv_type_v: str
    flash_attention: bool | None
    workers: tuple[str, ...]
    tensor_split: tuple[float, ...]
    isolate: Isolation | bool
    worker_timeout: float
    batch: int
    micro_batch: int | None
    repack: bool | None
    prompt_engine: PromptEngineName
    prepare: bool | None
    images_kept: int
    kept_states: int
    cache: str | os.PathLike[str] | bool | None
    cache_pictures: int
    cache_states: int
    cache_min_free_disk: int
    cache_min_positions: int


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is sampled. ``temperature`` 0 is greedy and deterministic.

    ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 and ``repeat_penalty`` 1 switch their filters off.
    ``seed`` None draws a new one for every answer. ``stop`` strings end the answer and are not
    part of it. ``detail`` is how much of the question's pictures the model sees: "high" tiles and overview, "low" the
    overview alone, "auto" high where the prompt fits the context, else low, which a warning then says.
    ``picture_tokens`` keeps so many of each picture's positions, newlines not counted: a number from 2, or a share such
    as "25%". It loses detail, small text and places first, and a warning says so (``docs/picture-tokens.md``).

    ``schema`` (a JSON Schema, as a dict or as JSON text), ``regex`` or ``grammar`` (llguidance's Lark syntax), at most
    one of them, is a form that the answer is held to; it needs the extra "schema". An answer that ends by itself has
    that form; one cut off ("length", "cancel", or a ``stop`` string inside) is its beginning. Kept is JSON text.
    """

    max_tokens: Annotated[
        int,
        Option(
            "Tokens an answer may have.",
            (1, 2**31 - 1),
            fix="an answer has at least one token; a large number lets it end by itself, up to the context",
        ),
    ] = DEFAULT_MAX_TOKENS
    temperature: Annotated[float, Option("0 is greedy and deterministic.", (0, 100))] = 0.0
    seed: Annotated[int | None, Option("Seed of the draw; a new one without it.", (0, 2**32 - 1))] = None
    top_k: Annotated[int, Option("Draw from the K likeliest; 0 switches it off.", (0, 2**31 - 1))] = 40
    top_p: Annotated[float, Option("Draw from this share of probability.", (0, 1))] = 0.95
    min_p: Annotated[float, Option("Drop what is this much less likely than the best.", (0, 1))] = 0.05
    repeat_penalty: Annotated[float, Option("Above 1 discourages repeats.", (0.01, 100))] = 1.0
    stop: Annotated[tuple[str, ...], Option("End the answer here; may repeat.")] = ()
    detail: Annotated[
        Detail, Option("high shows the model tiles, low an overview alone, auto what fits.", words=get_args(Detail))
    ] = "high"
    picture_tokens: Annotated[
        int | str | None,
        Option(
            "Lossy: keep so many of a picture's positions, N or N%, those least like each other, and one newline; "
            "all without it.",
            metavar="N|N%",
        ),
    ] = None
    schema: Annotated[
        dict[str, Any] | str | None,
        Option("JSON Schema that the answer has: a file, or JSON beginning with {.", metavar="FILE|JSON", or_file=True),
    ] = None
    regex: Annotated[str | None, Option("Regular expression that the answer has as a whole.")] = None
    grammar: Annotated[str | None, Option("Grammar that the answer has, in llguidance's Lark syntax.")] = None

    def __post_init__(self) -> None:
        check_declared(self)
        object.__setattr__(self, "picture_tokens", picture_share(self.picture_tokens))
        if (form := self.form) is not None and form.kind == "schema":
            object.__setattr__(self, "schema", form.text)  # plain: options are compared, and sent to other processes
        if not all(self.stop):
            raise OptionError(
                expected="stop strings of at least one character",
                got="an empty one, which would end every answer at once",
                fix="leave stop out, or give the text at which an answer ends",
            )

    @property
    def form(self) -> AnswerForm | None:
        """What the answer is held to, if anything."""
        return answer_form(self.schema, self.regex, self.grammar)


class SamplingChoices(TypedDict, total=False):
    """The sampling keywords of ``ask``, ``stream`` and ``generate``: the fields of :class:`GenerationOptions`."""

    max_tokens: int
    temperature: float
    seed: int | None
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    stop: tuple[str, ...]
    detail: Detail
    picture_tokens: int | str | None
    schema: dict[str, Any] | str | None
    regex: str | None
    grammar: str | None


def padded_context(positions: int) -> int:
    """``positions`` in whole steps of a context."""
    return math.ceil(positions / CONTEXT_STEP) * CONTEXT_STEP


def _isolation(value: Any) -> Any:
    """True as the word that it stands for, and "off" as False; anything else as it is."""
    value = plain(value, bool)
    if value is True:
        return "llm"
    return False if isinstance(value, str) and value == "off" else value


def make_options(kind: type[Any], **values: Any) -> Any:
    """Build an options value, naming a keyword that it does not have."""
    known = list(declared(kind))
    if unknown := sorted(set(values) - set(known)):
        raise OptionError(
            expected=f"options among {', '.join(known)}", got=", ".join(unknown)[:200], fix="check the spelling"
        )
    return kind(**values)
