"""The engine: a bundle's picture encoder, its language model, and what the model's cache holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .bundle.bundle import Bundle
from .bundle.manifest import Manifest
from .callbacks import Cancel, Progress
from .encode_ahead import Encoding, Opened
from .errors import BundleError, BusyError, OptionError
from .language.kv_cache import KvCache
from .options import LoadOptions
from .pictures.encoded import EncodedImage
from .pictures.encoder import ImageInput, PictureEncoder
from .pictures.tower import VisionEncoder
from .processes.isolated_llm import LlmProcess, open_llm
from .processes.repacking import settle_repacking
from .prompts.prompt import Prompt, build_prompt
from .prompts.template import TemplateMessage


class Engine:
    """What a loaded bundle owns. One request at a time, which takes :meth:`answering`."""

    def __init__(self, bundle: Bundle, options: LoadOptions, process: LlmProcess | None = None) -> None:
        began = time.perf_counter()
        self.bundle = bundle
        self.options = options = settle_repacking(options)
        self._answering = threading.Lock()
        manifest = bundle.manifest
        tower = VisionEncoder(
            bundle.vision_path,
            dim=manifest.vision.dim,
            geometry=manifest.geometry,
            threads=options.threads or None,
            providers=options.providers or None,
            fingerprint=bundle.vision_fingerprint,
        )
        self.pictures = PictureEncoder(tower, bundle.newline(), manifest.geometry, keep=options.images_kept)
        template = manifest.template
        self.llm = open_llm(
            bundle.llm_path,
            options=options,
            space_prefixed=template.space_prefix != "none",
            stop_tokens=template.stop_ids,
            process=process,
        )
        self.cache = KvCache(self.llm, batch=options.batch)
        self._check_llm(manifest)
        self.load_seconds = time.perf_counter() - began

    def close(self) -> None:
        """Free the session and the model. Safe to call twice."""
        self.llm.close()
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
    def answering(self) -> Iterator[None]:
        """Hold the engine for one request. Raises :class:`BusyError` while another one runs."""
        if not self._answering.acquire(blocking=False):
            raise BusyError(
                expected="one request at a time",
                got="a second one while an answer is under way",
                fix="finish or close the first answer's iterator",
            )
        try:
            yield
        finally:
            self._answering.release()

    def encode_image(
        self,
        source: ImageInput,
        *,
        overview_only: bool = False,
        on_progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> EncodedImage:
        """Encode one picture; see :meth:`Model.encode_image`."""
        with self.answering():
            opened = self.pictures.open(source, overview_only=overview_only)
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
        """Refuse a GGUF that does not belong to the vision part, and a context beyond the model's."""
        if self.llm.dim != manifest.vision.dim:
            self.close()
            raise BundleError(
                expected=f"a language model of width {manifest.vision.dim}",
                got=f"width {self.llm.dim}",
                fix="export the bundle again",
            )
        if self.options.context > self.llm.context_limit:
            self.close()
            raise OptionError(
                expected=f"a context of at most {self.llm.context_limit} positions (the model's limit)",
                got=str(self.options.context),
                fix="choose a smaller context",
            )
