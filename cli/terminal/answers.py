"""What ``ask`` says beside an answer: hints before it, where it was computed, what each stage took."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from ...runtime.errors import OptionError, StorageError, amount
from ...runtime.options import LoadOptions
from .visible import visible

if TYPE_CHECKING:
    from ...runtime.answer import Answer
    from ...runtime.model import Model

LEAST_POSITIONS: Final = 500
"""A prompt has to have them for the prompt engine's weights to pay, made for it alone (docs/prompt-engine.md)."""
NO_PICTURE: Final = "no picture was given, so the answer is made of the question alone; give one before the question"


def unheeded(loading: LoadOptions) -> list[str]:
    """What was asked of the load and has no effect here."""
    found = []
    if loading.gpu_layers > 0 and not loading.workers:
        from ...runtime.ggml.devices import has_gpu

        if not has_gpu():
            found.append(
                f"--gpu-layers {loading.gpu_layers} has no effect: llama.cpp found no GPU here, or was built without "
                "one; all layers are on the CPU"
            )
    if loading.prepare and loading.prompt_engine == "llama.cpp":
        found.append("--prepare has no effect with --prompt-engine llama.cpp: it needs no weights of its own")
    return found


class Kept(NamedTuple):
    """What there is to say of the durable cache: ``new`` where it should be said, ``works`` unless it is of no use."""

    text: str = ""
    new: bool = False
    works: bool = True


def remembered(loading: LoadOptions) -> Kept:
    """Where is kept what later runs use, or why nothing is; nothing without a cache.

    A folder that somebody named is said to be of no use each time; the usual one may be missing for good.
    """
    if not loading.cache:
        return Kept()
    from ...runtime.durable.durable import cache_root
    from ...runtime.durable.folder import CacheFolder, Limits
    from ...runtime.system.outputs import check_output_folder

    folder = CacheFolder(cache_root(loading.cache), Limits.of(loading))
    if why := folder.why_unusable():
        return Kept(f"nothing is kept for later runs: {visible(why)}", True, works=False)
    named = not isinstance(loading.cache, bool) or "LLAVA_EDGE_CACHE" in os.environ
    try:
        check_output_folder(folder.place, ("lock",), "--cache")
    except (OptionError, StorageError) as error:
        why = f"nothing is kept for later runs in {visible(str(folder.root))}: {visible(error.got)}"
        return Kept(why, named, works=False)
    if not folder.disk_has(0):
        why = f"nothing new is kept for later runs: the disk of {visible(str(folder.root))} is nearly full"
        return Kept(why, named, works=False)
    new = not folder.place.exists()
    where = f"pictures and conversations are kept for later runs in {visible(str(folder.root))} (--no-cache: none)"
    return Kept(where, new)


def _read(positions: int, by_engine: int) -> str:
    """How much of a prompt was read, and by what."""
    shares = {"onnxruntime": by_engine, "llama.cpp": positions - by_engine}
    if 0 in shares.values():
        return f"{amount(positions, 'position')} by {'onnxruntime' if by_engine else 'llama.cpp'}"
    return f"{positions} positions, " + " and ".join(f"{count} by {name}" for name, count in shares.items())


def placed(model: Model) -> list[str]:
    """Where layers, KV cache and vision are."""
    return [model.placement, model.provider]


def stages(answer: Answer, model: Model) -> list[str]:
    """What each stage took, and with how much: a line a stage."""
    times, computed = answer.timings, answer.prompt_tokens - answer.cached_tokens
    pictures = f"{amount(len(answer.image_tokens), 'picture')}, {sum(answer.image_tokens)} positions"
    memory = model.memory()
    int8 = f", of them {memory.prompts / 2**30:.2f} GiB weights in int8 for prompts" if memory.prompts else ""
    read = _read(computed, answer.prompt_engine_tokens)
    if not answer.tokens and answer.finish_reason == "cancel":
        read = f"stopped within {amount(computed, 'position')}"
    return [
        f"threads  {model.threads}",
        f"memory   {memory.total / 2**30:.2f} GiB" + int8,
        f"cache    {model.context_size} positions, of them {answer.cached_tokens} of the prompt from before",
        f"load     {times.load:9.3f} s",
        f"encode   {times.encode:9.3f} s, {pictures}",
        f"prefill  {times.prefill:9.3f} s, {read}",
        f"decode   {times.decode:9.3f} s, {amount(len(answer.tokens), 'token')}",
        f"seed     {answer.seed}",
    ]
