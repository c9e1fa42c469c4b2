"""How a bundle judges given answers about pictures, token by token (teacher forcing)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...runtime.callbacks import Progress
from ...runtime.distances import kl_divergence, log_softmax
from ...runtime.engine.engine import Engine
from ...runtime.errors import OptionError
from ...runtime.language.scoring import logits_along
from ...runtime.model import load
from ...runtime.prompts.prompt import Prompt
from ...runtime.prompts.segments import TextSegment
from ...runtime.prompts.template import TemplateMessage
from ..data.datasets import load_questions
from ..data.questions import Question

LogProbabilities = npt.NDArray[np.float32]


def spread_questions(data: str, limit: int = 0) -> list[Question]:
    """At most ``limit`` questions of ``data`` (see :func:`load_questions`), evenly spread; 0 takes all."""
    found = load_questions(data)
    step = max(1.0, len(found) / limit) if limit else 1.0
    return [found[int(index * step)] for index in range(int(len(found) / step))]


def force_answers(
    bundle: Path, questions: Sequence[Question], *, threads: int = 0, on_progress: Progress = lambda done, total: None
) -> list[LogProbabilities]:
    """Log-probabilities (answer tokens with the end token, vocab) of every question's answer in turn."""
    found = []
    with load(bundle, threads=threads) as model:
        for done, question in enumerate(questions, start=1):
            found.append(_force(model.engine, question))
            on_progress(done, len(questions))
    return found


def compare(pairs: Sequence[tuple[LogProbabilities, LogProbabilities]]) -> tuple[float, float]:
    """Mean KL in nats from each first to each second, and the share of positions with the same likeliest token."""
    same = np.concatenate([reference.argmax(-1) == ours.argmax(-1) for reference, ours in pairs])
    return float(np.concatenate([kl_divergence(*pair) for pair in pairs]).mean()), float(same.mean())


def _force(engine: Engine, question: Question) -> LogProbabilities:
    images = [engine.encode_image(image) for image in question.images]
    asked = TemplateMessage("user", question.prompt, len(images))
    prompt = engine.prompt([asked], images)
    whole = engine.prompt([asked, TemplateMessage("assistant", question.answers[0])], images, answering=False)
    tokens = _answer_tokens(engine, prompt, whole)
    along = logits_along(engine.llm, engine.cache, prompt, tokens[:-1], room=len(whole) - len(prompt))
    return np.asarray([log_softmax(logits) for logits in along], np.float32)


def _answer_tokens(engine: Engine, prompt: Prompt, whole: Prompt) -> list[int]:
    """What the whole conversation has after the prompt, up to the token that ends the answer."""
    asked, told = prompt.segments[-1], whole.segments[-1]
    if not isinstance(asked, TextSegment) or not isinstance(told, TextSegment):
        raise OptionError(expected="a template that ends with text", got="a picture", fix="check the chat template")
    tokens = list(told.tokens[len(asked) :])
    if told.tokens[: len(asked)] != asked.tokens or not tokens:
        raise OptionError(
            expected="a template that continues a prompt with the answer", got="another text", fix="check it"
        )
    end = next((index for index, token in enumerate(tokens) if engine.llm.is_end(token)), len(tokens) - 1)
    return tokens[: end + 1]
