"""Our bundles as a model of lmms-eval: ``lmms-eval --model llava_edge --model_args bundle=PATH --tasks …``.

lmms-eval (0.7 or newer) finds it by itself through the entry point ``lmms_eval.models`` in
``pyproject.toml``. Only lmms-eval imports this module: it brings torch along.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from PIL import Image
from tqdm import tqdm

from ..runtime.distances import log_softmax
from ..runtime.errors import ContextError, ImageError, OptionError
from ..runtime.language.generation import room_for_answer
from ..runtime.language.scoring import logits_along
from ..runtime.model import Model, load
from ..runtime.options import GenerationOptions
from ..runtime.pictures.encoded import EncodedImage
from ..runtime.prompts.prompt import Prompt
from ..runtime.prompts.segments import TextSegment, common_prefix
from ..runtime.prompts.template import TemplateMessage

MAX_NEW_TOKENS = 1024
"""Where a task gives no limit, as lmms-eval's own LLaVA models have it."""


def manifest() -> Any:
    """What the entry point gives lmms-eval: the name of the model and where its class is."""
    from lmms_eval.models.registry_v2 import ModelManifest  # its package loads the entry points, and so this module

    return ModelManifest(model_id="llava_edge", simple_class_path=f"{__name__}.LlavaEdge")


class LlavaEdge(lmms):  # type: ignore[misc]  # lmms-eval is not typed
    """A bundle that answers lmms-eval's requests, one at a time.

    ``bundle`` is a folder (empty: the demo model); other ``--model_args`` are those of
    :class:`LoadOptions`, such as ``threads=4``. Pictures come before the text of a prompt, as in
    lmms-eval's own "simple" LLaVA models; ``<image>`` marks in a text are taken out.
    """

    is_simple = True

    def __init__(self, bundle: str = "", batch_size: int | str = 1, device: str | None = None, **options: Any) -> None:
        super().__init__()
        if str(batch_size) != "1" or device is not None:
            raise OptionError(
                expected="batch_size 1 and no device: llama.cpp uses the GPU it was built for",
                got=f"batch_size {batch_size}, device {device}",
                fix="leave them out; gpu_layers=0 keeps the language model on the CPU",
            )
        options.pop("max_batch_size", None)
        self._model: Model = load(bundle or None, **options)

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answer (context, generation_kwargs, doc_to_visual, doc_id, task, split) requests, in their order.

        A prompt that does not fit, or a picture that can't be read, gives an empty answer and a
        warning, as lmms-eval's own models do. Raises :class:`OptionError` for beams and videos.
        """
        return [self._generate(*one.args) for one in self._progress(requests)]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """(mean loss a token, whether greedy) of continuations, the end of the turn included.

        lmms-eval's interface says log-probability, but its tasks take the smallest value as best,
        because its own models return the loss ("we just use the argmin here" in ``api/task.py``).
        This is that loss: minus the log-probability over the number of tokens.
        """
        return [self._loss(*one.args) for one in self._progress(requests)]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not offered: raises :class:`OptionError`."""
        raise OptionError(
            expected="a task of type generate_until, loglikelihood or multiple_choice",
            got="one of several rounds",
            fix="choose another task",
        )

    def clean(self) -> None:
        """Free the bundle."""
        self._model.close()
        super().clean()

    def _progress(self, requests: Sequence[Instance]) -> Any:
        return tqdm(requests, desc="Model Responding", disable=self.rank != 0)

    def _generate(
        self, context: str, settings: dict[str, Any], doc_to_visual: Any, doc_id: int, task: str, split: str
    ) -> GenerationResult:
        options = generation_options(settings)
        try:
            images = self._images(doc_to_visual, doc_id, task, split)
            answer = self._model.ask(_without_marks(context), images, **options)
        except (ContextError, ImageError) as error:
            logging.getLogger(__name__).warning("%s %s: %s; the answer is left empty", task, doc_id, error)
            return GenerationResult(text="")
        self.cache_hook.add_partial("generate_until", (context, settings), answer.text)
        return GenerationResult(answer.text, TokenCounts(answer.prompt_tokens, len(answer.tokens)))

    def _images(self, doc_to_visual: Any, doc_id: int, task: str, split: str) -> list[EncodedImage]:
        visuals = doc_to_visual(self.task_dict[task][split][doc_id]) or []
        for one in visuals:
            if not isinstance(one, Image.Image | str | os.PathLike):
                raise OptionError(expected="pictures", got=type(one).__name__, fix="choose a task about pictures")
        return [self._model.encode_image(one) for one in visuals]

    def _loss(
        self, context: str, target: Any, doc_to_visual: Any = None, doc_id: int = 0, task: str = "", split: str = ""
    ) -> tuple[float, bool]:
        """The last four are missing where a task asks for a continuation without its context."""
        continuation = target if isinstance(target, str) else target(self.task_dict[task][split][doc_id])
        images = self._images(doc_to_visual, doc_id, task, split) if doc_to_visual else []
        question = TemplateMessage("user", _without_marks(context), len(images))
        engine = self._model.engine
        prompt = engine.prompt([question], images)
        whole = engine.prompt([question, TemplateMessage("assistant", continuation)], images, answering=False)
        steps = len(whole) - min(common_prefix(prompt.segments, whole.segments), len(prompt))
        losses = self._step_losses(whole, steps)
        self.cache_hook.add_partial("loglikelihood", (context, continuation), losses)
        return losses

    def _step_losses(self, whole: Prompt, steps: int) -> tuple[float, bool]:
        """Mean loss and greediness of the last ``steps`` tokens, each computed after the ones before it."""
        *before, last = whole.segments
        assert isinstance(last, TextSegment)
        engine, targets = self._model.engine, last.tokens[-steps:]
        given = replace(whole, segments=(*before, TextSegment(last.tokens[:-steps])))
        with engine.answering():
            room_for_answer(whole, engine.context_limit, GenerationOptions())
            total, greedy = 0.0, True
            along = logits_along(engine.llm, engine.cache, given, targets[:-1], room=steps)
            for logits, target in zip(along, targets, strict=True):
                total -= float(log_softmax(logits)[target])
                greedy = greedy and int(logits.argmax()) == target
        return total / steps, greedy


def generation_options(settings: dict[str, Any]) -> dict[str, Any]:
    """A task's ``generation_kwargs`` as our options; temperature 0 (the default) is greedy."""
    if settings.get("num_beams") not in (None, 1):
        raise OptionError(expected="num_beams 1", got=str(settings["num_beams"]), fix="pass --gen_kwargs num_beams=1")
    until = settings.get("until") or ()
    options = {
        "max_tokens": int(settings.get("max_new_tokens") or MAX_NEW_TOKENS),
        "stop": (until,) if isinstance(until, str) else tuple(one for one in until if one),
    }
    temperature = float(settings.get("temperature") or 0)
    if temperature > 0 and settings.get("do_sample") is not False:
        options |= {"temperature": temperature, "top_p": settings.get("top_p") or 1.0, "top_k": 0, "min_p": 0.0}
    return options


def _without_marks(context: str) -> str:
    return context.replace("<image>", "").strip()
