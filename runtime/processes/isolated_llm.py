"""A language model in a process of its own: llama.cpp may abort there without taking us along."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..language.interface import LanguageModel
from ..language.llm import Llm
from ..options import GenerationOptions, LoadOptions
from .parent_side import IsolatedProcess


def open_llm(path: Path, *, options: LoadOptions, space_prefixed: bool, stop_tokens: Collection[int]) -> LanguageModel:
    """Load a GGUF model here, or in a process of its own where ``options`` want workers or isolation."""
    kind = IsolatedLlm if options.workers or options.isolate else Llm
    return kind(path, options=options, space_prefixed=space_prefixed, stop_tokens=stop_tokens)


class IsolatedLlm:
    """:class:`Llm` by proxy. Every method may raise what :class:`IsolatedProcess` raises."""

    def __init__(
        self, path: Path, *, options: LoadOptions, space_prefixed: bool = False, stop_tokens: Collection[int] = ()
    ) -> None:
        """Start the process and load ``path`` in it. Raises NativeError, WorkerError, OptionError."""
        self._process = IsolatedProcess(options)
        try:
            sizes = self._process.request("load", path, options, space_prefixed, tuple(stop_tokens))
        except BaseException:
            self.close()
            raise
        self.vocab_size: int = sizes["vocab_size"]
        self.dim: int = sizes["dim"]
        self.context_limit: int = sizes["context_limit"]
        self.threads: int = sizes["threads"]
        self.on_cpu = bool(sizes["on_cpu"])

    def close(self) -> None:
        """End the process, which frees everything. Safe to call twice."""
        self._process.close()

    @property
    def context_size(self) -> int:
        """Positions of the current context; 0 before the first one."""
        return int(self._process.request("context_size"))

    def tokenize(self, text: str) -> list[int]:
        """See :meth:`Llm.tokenize`."""
        return list(self._call("tokenize", text))

    def piece(self, token: int, *, first: bool = False) -> bytes:
        """See :meth:`Llm.piece`."""
        return bytes(self._call("piece", token, first=first))

    def is_end(self, token: int) -> bool:
        """See :meth:`Llm.is_end`."""
        return bool(self._call("is_end", token))

    def ensure_context(self, positions: int) -> None:
        """See :meth:`Llm.ensure_context`."""
        self._call("ensure_context", positions)

    def truncate(self, positions: int) -> None:
        """See :meth:`Llm.truncate`. Nothing to forget where the process has gone."""
        if not self._process.gone:
            self._call("truncate", positions)

    def decode_tokens(self, tokens: Sequence[int], position: int, *, logits: bool, every: bool = False) -> None:
        """See :meth:`Llm.decode_tokens`."""
        self._call("decode_tokens", list(tokens), position, logits=logits, every=every)

    def decode_embeddings(self, embeddings: npt.NDArray[np.float32], position: int, *, logits: bool = False) -> None:
        """See :meth:`Llm.decode_embeddings`."""
        self._call("decode_embeddings", np.ascontiguousarray(embeddings), position, logits=logits)

    def logits(self) -> npt.NDArray[np.float32]:
        """See :meth:`Llm.logits`."""
        values: npt.NDArray[np.float32] = self._call("logits")
        return values

    def sampler(self, options: GenerationOptions, *, seed: int, recent: Sequence[int]) -> IsolatedSampler:
        """See :meth:`Llm.sampler`."""
        return IsolatedSampler(self, int(self._process.request("sampler", options, seed, list(recent))))

    def sample(self, number: int) -> int:
        """Draw a token with sampler ``number``."""
        return int(self._process.request("sample", number))

    def close_sampler(self, number: int) -> None:
        """Free sampler ``number``; it has gone already where the process has."""
        if not self._process.gone:
            self._process.request("close_sampler", number)

    def _call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        return self._process.request("call", method, *arguments, keywords)


class IsolatedSampler:
    """:class:`Sampler` by proxy."""

    def __init__(self, llm: IsolatedLlm, number: int) -> None:
        self._llm = llm
        self._number = number
        self._open = True

    def sample(self) -> int:
        """Draw the next token from the latest logits."""
        return self._llm.sample(self._number)

    def close(self) -> None:
        """Free it."""
        if self._open:
            self._open = False
            self._llm.close_sampler(self._number)
