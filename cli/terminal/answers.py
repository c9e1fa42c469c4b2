"""What ``ask`` says beside an answer: hints before it, where it was computed, what each stage took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...runtime.options import LoadOptions
from .visible import visible

if TYPE_CHECKING:
    from ...runtime.answer import Answer
    from ...runtime.model import Model

NO_PICTURE: Final = "no picture was given, so the answer is made of the question alone; give one before the question"


def unheeded(loading: LoadOptions) -> list[str]:
    """What was asked of the load and has no effect here."""
    if loading.gpu_layers > 0 and not loading.workers:
        from ...runtime.ggml.devices import has_gpu

        if not has_gpu():
            return [
                f"--gpu-layers {loading.gpu_layers} has no effect: llama.cpp found no GPU here, or was built without "
                "one; all layers are on the CPU"
            ]
    return []


def remembered(loading: LoadOptions) -> tuple[str, bool]:
    """Where is kept what later runs use, or why nothing is, and whether that is new; nothing without a cache."""
    if not loading.cache:
        return "", False
    from ...runtime.durable.durable import cache_root
    from ...runtime.durable.folder import CacheFolder, Limits

    folder = CacheFolder(cache_root(loading.cache), Limits.of(loading))
    if why := folder.why_unusable():
        return f"nothing is kept for later runs: {visible(why)}", True
    if not folder.disk_has(0):
        return f"nothing new is kept for later runs: the disk of {visible(str(folder.root))} is nearly full", False
    new = not folder.place.exists()
    return f"pictures and conversations are kept for later runs in {visible(str(folder.root))} (--no-cache: none)", new


def placed(model: Model) -> list[str]:
    """Where layers, KV cache and vision are."""
    return [model.placement, model.provider]


def stages(answer: Answer, model: Model) -> list[str]:
    """What each stage took, and with how much: a line a stage."""
    times, computed = answer.timings, answer.prompt_tokens - answer.cached_tokens
    pictures = f"{len(answer.image_tokens)} pictures, {sum(answer.image_tokens)} positions"
    return [
        f"threads  {model.threads}",
        f"cache    {model.context_size} positions, of them {answer.cached_tokens} of the prompt from before",
        f"load     {times.load:9.3f} s",
        f"encode   {times.encode:9.3f} s, {pictures}",
        f"prefill  {times.prefill:9.3f} s, {computed} positions",
        f"decode   {times.decode:9.3f} s, {len(answer.tokens)} tokens",
        f"seed     {answer.seed}",
    ]
