"""The engine: a bundle's picture encoder, its language model, and what the model's cache holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from ..answer import Memory
from ..bundle.bundle import Bundle
from ..bundle.manifest import Manifest
from ..callbacks import Cancel, Progress, Share
from ..durable.durable import open_durable
from ..errors import BundleError, Cancelled, NativeError, OptionError
from ..language.generation import generate, new_run, room_for_answer
from ..language.interface import LanguageModel
from ..language.kv_cache import KvCache
from ..language.llm import Llm
from ..options import Detail, GenerationOptions, LoadOptions
from ..pictures.encoded import EncodedImage
from ..pictures.encoder import Opened, PictureEncoder
from ..pictures.files.sources import UNNAMED
from ..pictures.inputs import ImageInput
from ..pictures.tower import VisionEncoder
from ..planning.auto_placement import describe_placement, prompt_engine_fits
from ..processes.isolated_llm import LlmProcess, open_llm
from ..processes.repacking import settle_repacking
from ..prompt_engine.choice import settle_prompt_engine
from ..prompts.prompt import Prompt, build_prompt, keeps_places
from ..prompts.template import TemplateMessage
from ..system.machine import thread_warnings
from .asking import (
    Callbacks,
    Checked,
    Conversation,
    Outcome,
    Remembered,
    answer_of,
    lowered_of,
    memory_of,
    said_of,
    worth_keeping,
)
from .decoded import DecodedPictures, asked_again
from .encode_ahead import Encoding
from .remembering import Remembering
from .turns import Turns, Wait


@dataclass(frozen=True)
class _Ready:
    """The ticket of a checked conversation: its pictures opened, its prompt, and the tokens an answer may have."""

    opened: tuple[Opened, ...]
    prompt: Prompt
    room: int


class Engine:
    """What a loaded bundle owns. One request at a time, which takes :meth:`answering`."""

    restarts = 0
    """It has no process of its own that could be started again."""

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
        self.bundle = bundle
        self._turns, self._encoding_turns = Turns(), Turns()
        self._loading, self._loaded = threading.RLock(), False
        options.check_context(bundle.manifest.llm.context_length)
        if on_load is not None:
            on_load(0.0)
        if cancelled is not None and cancelled():
            raise Cancelled
        self.options, self._why_engine = settle_prompt_engine(
            bundle.llm_path, settle_repacking(options, bundle.llm_path), fits=partial(prompt_engine_fits, bundle)
        )
        self._decoded = DecodedPictures()
        self.load_seconds = 0.0
        self._load(process, on_load, cancelled)

    def _load(
        self, process: LlmProcess | None = None, on_load: Share | None = None, cancelled: Cancel | None = None
    ) -> None:
        began = time.perf_counter()
        manifest = self.bundle.manifest
        self.pictures = self._open_pictures(manifest)
        try:
            self.llm: LanguageModel = open_llm(
                self.bundle.llm_path,
                options=self.options,
                space_prefixed=manifest.template.space_prefix != "none",
                stop_tokens=manifest.template.stop_ids,
                process=process,
                on_load=on_load,
                cancelled=cancelled,
            )
        except BaseException:
            self.pictures.close()
            raise
        self.cache = KvCache(self.llm, batch=self.options.batch)
        self.remembering = Remembering(
            self.llm,
            self.cache,
            kept_bytes=self.options.kept_states,
            durable=open_durable(self.bundle, self.options, self.pictures),
            context_limit=self.context_limit,
        )
        self._check_llm(manifest)
        self._loaded = True
        self.load_seconds = time.perf_counter() - began

    def _open_pictures(self, manifest: Manifest) -> PictureEncoder:
        bundle, options = self.bundle, self.options
        tower = VisionEncoder(
            bundle.vision_path,
            dim=manifest.vision.dim,
            geometry=manifest.geometry,
            threads=options.threads or None,
            providers=options.providers or None,
            fingerprint=bundle.vision_fingerprint,
        )
        return PictureEncoder(
            tower,
            bundle.newline(),
            manifest.geometry,
            keep=options.images_kept,
            vision=bundle.vision_fingerprint,
        )

    def close(self) -> None:
        """Stop what is under way, wait for its native code, free the session and the model; see :meth:`Model.close`."""
        self._turns.close()
        self._encoding_turns.close()
        self._free()

    def unload(self, wait: Wait = False) -> None:
        """Free the session and the model until the next request, which loads them again.

        Raises :class:`BusyError` during a request, after ``wait``.
        """
        with self._turns.take("an unloading", wait), self._encoding_turns.take("an unloading", wait), self._loading:
            self.remembering.save()
            self._loaded = False
            self._free()

    def save(self, cancelled: Cancel | None = None) -> None:
        """Write what the durable cache is to have, where no request is under way; it ends where it is ``cancelled``."""
        with suppress(NativeError):
            self._turns.check()
            if self._loaded:
                self.remembering.save(cancelled=cancelled)

    def _free(self) -> None:
        self.remembering.close()
        self._decoded.clear()
        try:
            self.llm.close()
        finally:
            self.pictures.close()

    def _ready(self) -> None:
        """Load again what was unloaded."""
        with self._loading:
            if not self._loaded:
                self._turns.check()
                self._load()

    @property
    def overlaps(self) -> bool:
        """Whether tiles are encoded while the language model reads: only where both do not need the cores."""
        return not (self.pictures.tower.choice.on_cpu and self.llm.on_cpu)

    @property
    def counts_beside_answers(self) -> bool:
        """Whether :meth:`check` may be called while another thread is in :meth:`answer`."""
        return isinstance(self.llm, Llm)  # a child answers one call at a time

    @property
    def context_limit(self) -> int:
        """Positions that prompt and answer may take together."""
        return self.options.context or self.llm.context_limit

    @property
    def context_size(self) -> int:
        """Positions that the context has room for now; 0 before the first question."""
        return self.llm.context_size if self._loaded else 0

    @property
    def threads(self) -> int:
        """Threads that the language model computes with on a CPU."""
        return self.llm.threads

    @property
    def placement(self) -> str:
        """One line: where layers and KV cache are, and how attention is computed."""
        self._turns.check()
        self._ready()
        return describe_placement(self.options, on_cpu=self.llm.on_cpu, why_engine=self._why_engine)

    @property
    def provider(self) -> str:
        """One line: what runs the vision tower, and why it is not another."""
        return str(self.pictures.tower.choice)

    @contextmanager
    def answering(
        self, wait: Wait = False, *, cancelled: Cancel | None = None, what: str = "an answer"
    ) -> Iterator[None]:
        """Hold the engine for one request, which errors call ``what``.

        Raises :class:`BusyError` while another one runs, after ``wait``; Cancelled; NativeError after ``close``.
        """
        with self._turns.take(what, wait, cancelled):
            self._ready()
            with self.llm.hearing(cancelled):
                yield

    def memory(self) -> Memory:
        """What the model takes; see :class:`Memory`."""
        if not self._loaded:
            self._turns.check()
            return Memory(0, 0, 0, 0, 0)
        return memory_of(self.llm.memory(), self.bundle.vision_path.stat().st_size, self.pictures.kept_bytes)

    def remembered(self) -> Remembered:
        """What was found again since it was loaded; nothing while it is unloaded."""
        if not self._loaded:
            return Remembered()
        return replace(self.remembering.found, prompt_bytes=self.llm.memory()["prompts"])

    def check_image(self, image: EncodedImage) -> None:
        """Refuse a picture that was encoded for another model. Raises ImageError, OptionError."""
        self.pictures.check(image)

    def encode_image(
        self,
        source: ImageInput,
        *,
        detail: Detail = "high",
        picture_tokens: int | str | None = None,
        on_progress: Progress | None = None,
        cancelled: Cancel | None = None,
        wait: Wait = False,
        name: str = UNNAMED,
    ) -> EncodedImage:
        """Encode one picture, called ``name`` where it is no file; see :meth:`Model.encode_image`."""
        self._ready()
        # beside an answer where that one leaves the vision tower's device alone
        turns = self._encoding_turns if self.overlaps else self._turns
        with turns.take("the encoding of a picture", wait, cancelled), self._undisturbed():
            wanted = GenerationOptions(detail=detail, picture_tokens=picture_tokens)
            opened = self.pictures.open(source, detail=wanted.detail, picture_tokens=wanted.picture_tokens, name=name)
            if detail == "auto" and opened.layout.image_tokens >= self.context_limit:
                opened = self.pictures.lowered(opened)
            return self.pictures.encode(opened, on_progress=on_progress, cancelled=cancelled)

    def check(self, conversation: Conversation, cancelled: Cancel | None = None) -> Checked:
        """Open the pictures and measure the prompt; "auto" gives up tiles where it does not fit.

        From any thread, also beside an answer. Raises ImageError, ContextError, TemplateError, OptionError or
        MissingExtraError for a form that answers can't be held to, and Cancelled between two pictures.
        """
        with self._undisturbed():
            return self._checked(conversation, cancelled)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        self._ready()
        with self.llm.undisturbed():
            yield

    def _checked(self, conversation: Conversation, cancelled: Cancel | None) -> Checked:
        settings = conversation.settings
        if settings.form is not None:
            self.llm.check(settings)
        opened = self._decoded.opened(conversation, self.pictures, cancelled)
        prompt, fitting = self._fitting(conversation, opened)
        said = said_of(fitting, conversation.messages[-1].images, self.pictures.whole)
        warnings = [*thread_warnings(self.threads), *said, *lowered_of(opened, fitting)]
        if conversation.messages[-1].places and not keeps_places(self.bundle.manifest.template):
            warnings.append("The chat template puts all pictures of a message in front of its text.")
        room = room_for_answer(prompt, self.context_limit, settings)
        return Checked(
            asked_again(conversation, opened),
            len(prompt),
            tuple(picture.layout.image_tokens for picture in fitting),
            tuple(warnings),
            _Ready(fitting, prompt, room),
        )

    def answer(
        self, checked: Checked, callbacks: Callbacks, outcome: Outcome, *, seconds: float = 0.0, keep: bool = True
    ) -> Generator[str, None, None]:
        """Compute and yield the answer token by token; the text of one may be empty. Needs :meth:`answering`.

        ``seconds`` were spent on the question before. ``outcome`` is filled in when the iterator has ended, its images
        only where ``keep``. Raises NativeError, WorkerError; where it is cancelled it ends.
        """
        ready: _Ready = checked.ticket
        settings = checked.conversation.settings
        run = new_run(settings)
        run.started -= seconds
        outcome.tokens = run.tokens
        with self._undisturbed():
            encoding = Encoding(
                ready.opened,
                self.pictures,
                on_progress=callbacks.on_encode,
                cancelled=callbacks.cancelled,
                overlapped=self.overlaps,
                together=callbacks.together,
            )
        broken = False
        try:
            if not encoding.cancelled:
                prompt = ready.prompt.with_rows(encoding.rows)
                with self.remembering.reading([one for one in ready.opened if isinstance(one, EncodedImage)]):
                    self.remembering.change_to(prompt.segments)
                    if callbacks.on_reused is not None:
                        callbacks.on_reused(self.cache.reusable(prompt.segments), len(prompt))
                    yield from generate(
                        self.llm,
                        self.cache,
                        prompt,
                        options=settings,
                        room=ready.room,
                        run=run,
                        on_progress=callbacks.on_prefill,
                        cancelled=callbacks.cancelled,
                    )
        except Exception:
            broken = True
            raise
        finally:
            encoding.close(finish=not broken and worth_keeping(run.finish_reason, run.tokens))
            run.encode = encoding.seconds
            if not broken:
                self.remembering.note_speed(len(ready.prompt) - run.cached_tokens, run.prefill)
                outcome.answer = answer_of(checked, run, self.load_seconds)
                count = checked.conversation.messages[-1].images
                outcome.images = encoding.images[len(encoding.images) - count :] if keep and count else ()

    def count_tokens(self, conversation: Conversation) -> int:
        """Positions of the prompt of :meth:`check`, also where it does not fit; nothing is computed.

        Raises ImageError, OptionError, TemplateError.
        """
        self._ready()
        return len(self._fitting(conversation, self._decoded.opened(conversation, self.pictures))[0])

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

    def _fitting(self, conversation: Conversation, opened: tuple[Opened, ...]) -> tuple[Prompt, tuple[Opened, ...]]:
        """The prompt and its pictures, with those lowered that may be where it does not fit the context."""
        prompt = self.prompt(conversation.messages, opened)
        if len(prompt) < self.context_limit:
            return prompt, opened
        lowered = tuple(
            self.pictures.lowered(picture) if one.detail == "auto" else picture
            for one, picture in zip(conversation.pictures, opened, strict=True)
        )
        return self.prompt(conversation.messages, lowered), lowered

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
            self.options.check_context(self.llm.context_limit)
        except OptionError:
            self.close()
            raise
