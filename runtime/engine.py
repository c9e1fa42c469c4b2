"""The engine: a bundle's picture encoder, its language model, and what the model's cache holds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .answer import Memory
from .bundle.bundle import Bundle
from .bundle.manifest import Manifest
from .callbacks import Cancel, Progress, Share
from .encode_ahead import Encoding
from .errors import BundleError, Cancelled, OptionError
from .language.kv_cache import KvCache
from .options import Detail, GenerationOptions, LoadOptions
from .pictures.encoded import EncodedImage
from .pictures.encoder import Opened, PictureEncoder
from .pictures.inputs import ImageInput
from .pictures.tower import VisionEncoder
from .processes.isolated_llm import LlmProcess, open_llm
from .processes.repacking import settle_repacking
from .prompts.prompt import Prompt, build_prompt
from .prompts.template import TemplateMessage
from .turns import Turns, Wait


class Engine:
    """What a loaded bundle owns. One request at a time, which takes :meth:`answering`."""

    def __init__(
        self,
        bundle: Bundle,
        options: LoadOptions,
        process: LlmProcess | None = None,
        *,
        on_load: Share | None = None,
        cancelled: Cancel | None = None,
    ) -> None:
        """Load ``bundle``; the callbacks are those of :func:`load`."""
        began = time.perf_counter()
        self.bundle = bundle
        self._turns, self._encoding_turns = Turns(), Turns()
        manifest = bundle.manifest
        _check_context(options, manifest.llm.context_length)
        if on_load is not None:
            on_load(0.0)
        if cancelled is not None and cancelled():
            raise Cancelled
        self.options = options = settle_repacking(options)
        tower = VisionEncoder(
            bundle.vision_path,
            dim=manifest.vision.dim,
            geometry=manifest.geometry,
            threads=options.threads or None,
            providers=options.providers or None,
            fingerprint=bundle.vision_fingerprint,
        )
        self.pictures = PictureEncoder(
            tower,
            bundle.newline(),
            manifest.geometry,
            keep=options.images_kept,
            vision=bundle.vision_fingerprint,
        )
        template = manifest.template
        try:
            self.llm = open_llm(
                bundle.llm_path,
                options=options,
                space_prefixed=template.space_prefix != "none",
                stop_tokens=template.stop_ids,
                process=process,
                on_load=on_load,
                cancelled=cancelled,
            )
        except BaseException:
            self.pictures.close()
            raise
        self.cache = KvCache(self.llm, batch=options.batch)
        self._check_llm(manifest)
        self.load_seconds = time.perf_counter() - began

    def close(self) -> None:
        """Stop what is under way, wait for its native code, free the session and the model.

        Safe to call twice, and from any thread. Every later call, and the one that was stopped, is a NativeError.
        """
        self._turns.close()
        self._encoding_turns.close()
        try:
            self.llm.close()
        finally:
            self.pictures.close()

    @property
    def overlaps(self) -> bool:
        """Whether tiles are encoded while the language model reads: only where both do not need the cores."""
        return not (self.pictures.tower.choice.on_cpu and self.llm.on_cpu)

    @property
    def context_limit(self) -> int:
        """Positions that prompt and answer may take together."""
        return self.options.context or self.llm.context_limit

    @contextmanager
    def answering(
        self, wait: Wait = False, *, cancelled: Cancel | None = None, what: str = "an answer"
    ) -> Iterator[None]:
        """Hold the engine for one request, which errors call ``what``.

        Raises :class:`BusyError` while another one runs, after ``wait``; Cancelled; NativeError after ``close``.
        """
        with self._turns.take(what, wait, cancelled):
            yield

    def memory(self) -> Memory:
        """What the model takes; see :class:`Memory`."""
        here = self.llm.memory()
        vision = self.bundle.vision_path.stat().st_size
        return Memory(here["model"], here["KV"], here["compute"] + here["output"], vision, self.pictures.kept_bytes)

    def encode_image(
        self,
        source: ImageInput,
        *,
        detail: Detail = "high",
        on_progress: Progress | None = None,
        cancelled: Cancel | None = None,
        wait: Wait = False,
    ) -> EncodedImage:
        """Encode one picture; see :meth:`Model.encode_image`."""
        # beside an answer where that one leaves the vision tower's device alone
        turns = self._encoding_turns if self.overlaps else self._turns
        with turns.take("the encoding of a picture", wait, cancelled):
            opened = self.pictures.open(source, detail=GenerationOptions(detail=detail).detail)
            if detail == "auto" and opened.layout.image_tokens >= self.context_limit:
                opened = self.pictures.lowered(opened)
            return self.pictures.encode(opened, on_progress=on_progress, cancelled=cancelled)

    def encode_ahead(
        self, images: Sequence[Opened], *, on_progress: Progress | None, cancelled: Cancel | None
    ) -> Encoding:
        """Encode what is not encoded yet: at once, or where :attr:`overlaps` says so while it is read."""
        return Encoding(images, self.pictures, on_progress=on_progress, cancelled=cancelled, overlapped=self.overlaps)

    def prompt(
        self, messages: Sequence[TemplateMessage], images: Sequence[Opened] = (), *, answering: bool = True
    ) -> Prompt:
        """The prompt of ``messages`` about ``images`` in their order, with the rows that are encoded already.

        ``answering`` adds the assistant's opening. Raises :class:`TemplateError`.
        """
        segments = [image.segment for image in images]
        spec = self.bundle.manifest.template
        prompt = build_prompt(messages, segments, spec=spec, tokenize=self.llm.tokenize, answering=answering)
        return prompt.with_rows({image.key: image.embeddings for image in images if isinstance(image, EncodedImage)})

    def _check_llm(self, manifest: Manifest) -> None:
        """Refuse a GGUF that does not belong to the vision part, and a context beyond what it says itself."""
        if self.llm.dim != manifest.vision.dim:
            self.close()
            raise BundleError(
                expected=f"a language model of width {manifest.vision.dim}",
                got=f"width {self.llm.dim}",
                fix="export the bundle again",
            )
        try:
            _check_context(self.options, self.llm.context_limit)
        except OptionError:
            self.close()
            raise


def _check_context(options: LoadOptions, limit: int) -> None:
    if options.context > limit:
        raise OptionError(
            expected=f"a context of at most {limit} positions (the model's limit)",
            got=str(options.context),
            fix="choose a smaller context",
        )
