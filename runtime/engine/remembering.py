"""What an engine had read, beyond its one context: copies in memory and, where a load asks for it, on the disk.

Nothing is written on a request's way. A state that another conversation displaces is copied at once, into the page
cache; hashing, syncing and all other writing wait for two idle seconds or a clean stop.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from ..callbacks import Cancel
from ..durable.durable import Durable
from ..durable.entry import Draft
from ..errors import Cancelled, LlavaEdgeError
from ..language.interface import LanguageModel
from ..language.kept_states import LEAST, ContextState, KeptStates, Record
from ..language.kv_cache import KvCache
from ..language.llm import Llm
from ..pictures.encoded import EncodedImage
from ..prompts.segments import ImageSegment, OpenImage, Segment, total_positions
from .asking import SAVE_SECONDS, Remembered

IDLE_SECONDS = 2.0
"""After an answer, before anything is written."""
WRITE_RATE = 500e6
"""Bytes a second that a disk is taken to write."""
WORTH = 1 / 3
"""A state is written where that costs at most this share of reading it again."""
MOST_DRAFTS = 4
"""Displaced states that wait in files until there is time to finish them."""


class Remembering:
    """Guards the context of a model, and remembers what it held. ``durable`` is None where nothing is written."""

    def __init__(
        self, llm: LanguageModel, cache: KvCache, *, kept_bytes: int, durable: Durable | None, context_limit: int
    ) -> None:
        self.kept = KeptStates(kept_bytes)
        self._llm, self._cache = llm, cache
        self._durable = durable
        self._states = durable.states if durable is not None else None
        self._least = durable.folder.limits.min_positions if durable is not None else 0
        self._gain = min(self._least, LEAST)
        self._context_limit = context_limit
        self._context, self._saving = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._timer: threading.Timer | None = None
        self._drafts: list[tuple[Record, Draft]] = []
        self._foreign: set[str] = set()
        self._seconds_a_position = 0.0
        self._state_hits = 0

    @property
    def found(self) -> Remembered:
        """What was found again so far."""
        pictures = self._durable.pictures.hits if self._durable is not None else 0
        return Remembered(self.kept.size, self.kept.hits, self._state_hits, pictures)

    @contextmanager
    def reading(self, given: Iterable[EncodedImage]) -> Iterator[None]:
        """Have the context to itself in the block, which reads pictures of which some were ``given``."""
        with self._context:
            if self._durable is not None:
                own = self._durable.pictures.is_own
                self._foreign |= {image.key for image in given if not own(image)}
            try:
                yield
            finally:
                self._save_later()

    def change_to(self, wanted: Sequence[Segment]) -> None:
        """Before ``wanted`` is read: keep what it displaces, put back what was read of it. Needs :meth:`reading`."""
        if self._states is not None:
            self._draft_displaced(wanted)
        if isinstance(self._llm, Llm):  # a child's state would cross a pipe
            self.kept.change_to(wanted, ContextState(self._llm, self._cache))
        if self._states is not None:
            self._put_back(wanted)

    def note_speed(self, positions: int, seconds: float) -> None:
        """Note how long positions took to read: what is read as fast as a disk writes is not written."""
        if positions >= self._gain and seconds > 0:
            self._seconds_a_position = seconds / positions

    def save(self, *, cancelled: Cancel | None = None, seconds: float = SAVE_SECONDS) -> None:
        """Write what is to be remembered, in at most about so many ``seconds``; nothing during a request.

        What can't be written is left out. Interrupted, it leaves nothing half-written.
        """
        if self._durable is None or self._stop.is_set() or self._context.locked():
            return
        end = time.monotonic() + seconds

        def ends() -> bool:
            return self._stop.is_set() or time.monotonic() > end or (cancelled is not None and cancelled())

        if not self._saving.acquire(timeout=seconds):
            return
        try:
            with suppress(OSError, Cancelled, LlavaEdgeError):
                self._save(self._durable, ends)
        finally:
            self._saving.release()

    def close(self) -> None:
        """End what is being written, and forget all."""
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._saving.acquire(timeout=SAVE_SECONDS):  # the thread of an idle moment leaves no draft behind
            self._saving.release()
        for _, draft in self._drafts:
            with suppress(OSError):
                draft.discard()
        self._drafts.clear()
        self.kept.clear()

    def _save_later(self) -> None:
        if self._durable is None or self._stop.is_set():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(IDLE_SECONDS, _save_idly, (weakref.ref(self),))
        self._timer.daemon = True
        self._timer.start()

    def _save(self, durable: Durable, ends: Cancel) -> None:
        if not (durable.pictures.waiting or self._drafts or self._to_copy()):
            return
        with durable.folder.writing(ends) as allowed:
            if not allowed:
                return
            durable.pictures.write(ends)
            if self._states is None:
                return
            copied = self._copied_now()
            if copied is not None:
                self._drafts.append(copied)
            while self._drafts:
                held, draft = self._drafts.pop()  # the latest first
                try:
                    self._states.finish(held, draft, ends)
                finally:
                    draft.discard()  # where it is still there

    def _copied_now(self) -> tuple[Record, Draft] | None:
        """A copy of what the context holds, if it is to be written and nobody computes."""
        if not self._context.acquire(blocking=False):
            return None
        try:
            return self._copied(self._cache.segments()) if self._to_copy() else None
        finally:
            self._context.release()

    def _draft_displaced(self, wanted: Sequence[Segment]) -> None:
        lost = self._cache.positions - self._cache.reusable(wanted)
        if lost < max(self._gain, 1) or len(self._drafts) >= MOST_DRAFTS or not self._to_copy():
            return
        with suppress(OSError):
            assert self._durable is not None
            self._durable.folder.make()
            if (copied := self._copied(self._cache.segments())) is not None:
                self._drafts.append(copied)

    def _to_copy(self) -> bool:
        """Whether what the context holds is worth a file, and has none."""
        held = self._cache.segments()
        if self._states is None or self._durable is None or total_positions(held) < max(self._least, 1):
            return False
        if self._foreign & {_picture(one) for one in held}:
            return False
        folder, size = self._durable.folder, self._llm.state_size()
        reading = self._seconds_a_position * total_positions(held)
        if (reading and size / WRITE_RATE > WORTH * reading) or not 0 < size <= folder.limits.states:
            return False
        return not folder.why_unusable() and folder.disk_has(size) and not self._states.has(held)

    def _copied(self, held: Record) -> tuple[Record, Draft] | None:
        assert self._states is not None
        draft = self._states.draft(held, size := self._llm.state_size())
        written = False
        try:
            written = self._llm.write_state(draft.path, draft.offset, size)
        finally:
            if not written:
                draft.discard()
        return (held, draft) if written else None

    def _put_back(self, wanted: Sequence[Segment]) -> None:
        """Take the stored state that has most of ``wanted``; one that is no good makes room for the next best."""
        assert self._states is not None
        if self._foreign & {_picture(one) for one in wanted}:
            return
        while True:
            beyond = self._cache.reusable(wanted) + max(self._gain, 1) - 1
            found = self._states.find(wanted, beyond=beyond, most=self._context_limit)
            if found is None:
                return
            entry, positions = found.entry, total_positions(found.segments)
            try:
                restored = self._llm.read_state(entry.path, entry.offset, entry.size, entry.sha256, positions)
            except LlavaEdgeError:  # no memory for so large a context
                self._cache.adopt(())
                return
            self._cache.adopt(found.segments if restored else ())
            if restored:
                self._states.used(found)
                self._state_hits += 1
                return
            self._states.drop(found)


def _picture(segment: Segment | OpenImage) -> str:
    """The key of a picture; of text none."""
    if isinstance(segment, OpenImage):
        return segment.image.digest
    return segment.digest if isinstance(segment, ImageSegment) else ""


def _save_idly(forgetting: weakref.ref[Remembering]) -> None:
    remembering = forgetting()
    if remembering is not None:
        remembering.save(seconds=float(3600))
