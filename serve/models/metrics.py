"""Counters for whoever watches the server, in Prometheus' text form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ...runtime.answer import Answer
from ...runtime.engine.asking import Remembered

HELP = {
    "requests_total": "Requests for an answer, by how they ended.",
    "prompt_tokens_total": "Positions of prompts, pictures included.",
    "cached_tokens_total": "Of these, what was read before.",
    "prompt_engine_tokens_total": "Of the others, what onnxruntime read; llama.cpp read the rest.",
    "image_tokens_total": "Of all, positions of pictures.",
    "generated_tokens_total": "Tokens of answers.",
    "encode_seconds_total": "Time spent on pictures.",
    "prefill_seconds_total": "Time spent on reading prompts.",
    "decode_seconds_total": "Time spent on writing answers.",
    "loads_total": "Times that a model was loaded.",
    "unloads_total": "Times that a model was unloaded.",
    "failures_total": "Times that a model failed and was unloaded.",
    "restarts_total": "Times that a model's process ended by itself and was started again.",
    "requests_waiting": "Requests in the queue.",
    "requests_computing": "Requests that compute.",
    "models_loaded": "Models in memory.",
    "kept_state_hits_total": "Times that a displaced conversation was taken back from memory.",
    "cache_state_hits_total": "Times that a conversation was taken from the durable cache.",
    "cache_picture_hits_total": "Times that an encoded picture was taken from the durable cache.",
    "kept_state_bytes": "Size of displaced conversations in memory.",
    "prompt_weight_bytes": "Size of the weights in int8 that the prompt engine has made; 0 before the first request.",
    "cache_state_bytes": "Size of conversations in the durable cache.",
    "cache_picture_bytes": "Size of encoded pictures in the durable cache.",
    "uploads": "Uploaded pictures that are kept.",
    "upload_bytes": "Their size.",
}

HITS = {
    "kept_hits": "kept_state_hits_total",
    "state_hits": "cache_state_hits_total",
    "picture_hits": "cache_picture_hits_total",
}
"""What a model counts, and the counters of it."""


class Metrics:
    """Counts since the server started."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._remembered: dict[str, Remembered] = {}
        self._outcomes: Counter[str] = Counter({"answered": 0, "cancelled": 0, "failed": 0, "refused": 0})

    def count(self, name: str, by: float = 1) -> None:
        """Add to a counter of :data:`HELP`."""
        self._counts[name] += by  # type: ignore[assignment]  # seconds too

    def ended(self, outcome: str) -> None:
        """Note how a request ended: answered, cancelled, failed or refused."""
        self._outcomes[outcome] += 1

    def answered(self, answer: Answer) -> None:
        """Note an answer's sizes and times."""
        self.ended("answered")
        self.count("prompt_tokens_total", answer.prompt_tokens)
        self.count("cached_tokens_total", answer.cached_tokens)
        self.count("prompt_engine_tokens_total", answer.prompt_engine_tokens)
        self.count("image_tokens_total", sum(answer.image_tokens))
        self.count("generated_tokens_total", len(answer.tokens))
        self.count("encode_seconds_total", answer.timings.encode)
        self.count("prefill_seconds_total", answer.timings.prefill)
        self.count("decode_seconds_total", answer.timings.decode)

    def remembered(self, model: str, now: Remembered) -> None:
        """Take what a model has found again since it was loaded, which begins at 0 when its process does."""
        before = self._remembered.get(model, Remembered())
        for name, counter in HITS.items():
            new, old = getattr(now, name), getattr(before, name)
            self.count(counter, new - old if new >= old else new)
        self._remembered[model] = now

    def forgotten(self, model: str) -> None:
        """Note that a model was unloaded."""
        self._remembered.pop(model, None)

    def text(self, gauges: Mapping[str, float]) -> str:
        """Everything, with ``gauges`` for what is so at the moment."""
        known = list(self._remembered.values())
        sizes = {"kept_state_bytes": sum(one.kept_bytes for one in known)}
        gauges = {**sizes, "prompt_weight_bytes": sum(one.prompt_bytes for one in known), **gauges}
        lines = []
        for name, meaning in HELP.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP llava_edge_{name} {meaning}", f"# TYPE llava_edge_{name} {kind}"]
            if name == "requests_total":
                lines += [f'llava_edge_{name}{{outcome="{one}"}} {n}' for one, n in sorted(self._outcomes.items())]
            else:
                lines.append(f"llava_edge_{name} {gauges.get(name, self._counts[name]):.10g}")
        return "\n".join(lines) + "\n"
