"""Our own side: the bundle as an application uses it."""

from __future__ import annotations

from importlib.metadata import version

from ...runtime.answer import Answer
from ...runtime.chat import Chat
from ...runtime.model import load
from .task import Figures, Task


def ask(task: Task) -> Figures:
    """Load the bundle, ask about the picture, ask again; the figures are those that the API returns.

    What prompts are read with is made in the load, as OpenVINO compiles in its own.
    """
    with load(task.bundle, threads=task.threads, prepare=True) as model:
        chat = model.chat()
        first = chat.generate(task.question, images=[task.image], max_tokens=task.tokens)
        second = _follow_up(chat, task)
        recipe = f"{model.manifest.llm.recipe}, vision {model.manifest.vision.recipe}"
    times = first.timings
    after_first = len(first.tokens) - 1
    return Figures(
        load=times.load,
        encode=times.encode,
        prefill=times.prefill,
        first_token=times.first_token,
        decode=after_first / times.decode if after_first > 0 else None,
        second=second.timings.first_token,
        prompt_tokens=first.prompt_tokens,
        image_tokens=first.image_tokens[0],
        tokens=len(first.tokens),
        settings=recipe,
        versions={name: version(name) for name in ("onnxruntime", "llama-cpp-python")},
    )


def _follow_up(chat: Chat, task: Task) -> Answer:
    return chat.generate(task.follow_up, max_tokens=1)
