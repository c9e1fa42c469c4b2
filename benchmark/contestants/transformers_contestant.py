"""The peer transformers on the CPU, used as its documentation shows: one ``generate`` a question.

The weights keep the checkpoint's number format. A follow-up hands over the whole conversation again,
because ``generate`` keeps nothing of a picture between calls.
"""

from __future__ import annotations

import functools
import time
from importlib.metadata import version
from typing import Any

from PIL import Image

from ...runtime.system.machine import physical_cores
from .task import Figures, Task

Turn = dict[str, Any]


def ask(task: Task) -> Figures:
    """Load, ask about the picture, ask again with the conversation so far."""
    import torch
    from transformers import AutoProcessor, LlavaNextForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(task.threads or physical_cores())
    began = time.perf_counter()
    model = LlavaNextForConditionalGeneration.from_pretrained(task.checkpoint, dtype="auto", local_files_only=True)
    processor = AutoProcessor.from_pretrained(task.checkpoint, local_files_only=True, backend="pil")
    load = time.perf_counter() - began
    picture = Image.open(task.image).convert("RGB")
    clock = _Clock(model)
    turns: list[Turn] = [{"role": "user", "content": [{"type": "image"}, _text(task.question)]}]
    inputs, answer = _generate(model, processor, picture, turns, task.tokens, clock)
    first, encode, decode = clock.first_token, clock.encode, clock.decode
    text = processor.decode(answer, skip_special_tokens=True)
    turns += [{"role": "assistant", "content": [_text(text)]}, {"role": "user", "content": [_text(task.follow_up)]}]
    _generate(model, processor, picture, turns, 1, clock)
    return Figures(
        load=load,
        encode=encode,
        prefill=first - encode,
        first_token=first,
        decode=(len(answer) - 1) / decode if len(answer) > 1 else None,
        second=clock.first_token,
        prompt_tokens=int(inputs["input_ids"].shape[1]),
        image_tokens=int((inputs["input_ids"] == model.config.image_token_id).sum()),
        tokens=len(answer),
        settings=str(model.dtype).removeprefix("torch."),
        versions={name: version(name) for name in ("transformers", "torch")},
    )


def _text(text: str) -> Turn:
    return {"type": "text", "text": text}


def _generate(
    model: Any, processor: Any, picture: Image.Image, turns: list[Turn], tokens: int, clock: _Clock
) -> tuple[Any, list[int]]:
    """Inputs and generated ids; ``clock`` knows when the first one came."""
    clock.start()
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    # the rendered text begins with the BOS that the tokenizer would add once more
    special = not text.startswith(processor.tokenizer.bos_token or "\0")
    inputs = processor(images=picture, text=text, return_tensors="pt", add_special_tokens=special)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, streamer=clock)
    return inputs, output[0, inputs["input_ids"].shape[1] :].tolist()


class _Clock:
    """A transformers streamer that notes when tokens come, and the time spent in the vision part."""

    def __init__(self, model: Any) -> None:
        self.encode = self.first_token = self.decode = 0.0
        self._began = self._calls = 0.0
        inner = model.model.get_image_features

        @functools.wraps(inner)  # generate reads the signature to know what to pass
        def timed(*some: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*some, **named)
            finally:
                self.encode += time.perf_counter() - began

        model.model.get_image_features = timed

    def start(self) -> None:
        """A question begins."""
        self.encode = self.first_token = self.decode = self._calls = 0.0
        self._began = time.perf_counter()

    def put(self, _: Any) -> None:
        """transformers gives the prompt first, then token by token."""
        now = time.perf_counter() - self._began
        self._calls += 1
        if self._calls == 2:
            self.first_token = now
        self.decode = now - self.first_token

    def end(self) -> None:
        """The answer is complete."""
