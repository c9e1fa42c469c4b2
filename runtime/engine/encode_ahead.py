"""Pictures on their way to the language model: encoded before it reads, or while it reads.

On a CPU the vision tower and llama.cpp would take turns on the same cores, so everything is encoded
first. Where they compute on different devices a thread encodes the tiles, and the reader waits only
for the rows that it is about to compute: the overview is read while the grid tiles are encoded.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ..callbacks import Cancel, Embeddings, Progress, Rows
from ..errors import Cancelled
from ..pictures.encoded import EncodedImage
from ..pictures.encoder import LaidOutPicture, Opened, PictureEncoder

POLL_SECONDS = 0.05
"""A reader that waits for rows asks this often whether it was cancelled."""


class Arriving:
    """One picture's embeddings, of which only the first rows may be there yet."""

    def __init__(self, wait_until: Callable[[Callable[[], bool]], None]) -> None:
        self._wait_until = wait_until
        self._ready = 0
        self._embeddings: Embeddings | None = None

    def put(self, embeddings: Embeddings, ready: int) -> None:
        """Take embeddings (positions, dim) whose first ``ready`` rows hold."""
        if ready > self._ready:
            self._embeddings, self._ready = embeddings, ready

    def __getitem__(self, rows: slice, /) -> Embeddings:
        """Rows (count, dim) up to a given ``stop``, as soon as they are there."""
        self._wait_until(lambda: self._ready >= rows.stop)
        assert self._embeddings is not None
        return self._embeddings[rows]


class Encoding:
    """The pictures of one question: ``rows`` by key for the reader, ``images`` when all is done.

    Without ``overlapped`` they are encoded when this is made. With it, a thread begins to; callbacks
    are still called in the reader's thread only, and ``close`` must be called. ``on_progress`` hears of each picture by
    itself, or with ``together`` of the tiles of all that are to be encoded.
    """

    def __init__(
        self,
        images: Sequence[Opened],
        encoder: PictureEncoder,
        *,
        on_progress: Progress | None,
        cancelled: Cancel | None,
        overlapped: bool,
        together: bool = False,
    ) -> None:
        self.rows: dict[str, Rows] = {}
        self.seconds = 0.0
        self.cancelled = False
        self._wanted, self._encoder = images, encoder
        self._on_progress, self._asked, self._together = on_progress, cancelled, together
        self._images: list[EncodedImage] = []
        self._changed = threading.Condition()
        self._arriving: dict[str, Arriving] = {}
        self._steps: deque[tuple[Progress | None, int, int]] = deque()
        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        if overlapped and any(isinstance(image, LaidOutPicture) for image in images):
            self._start()
        else:
            self._encode_first()

    @property
    def images(self) -> tuple[EncodedImage, ...]:
        """All pictures in order; none where not all of them were encoded."""
        return tuple(self._images) if len(self._images) == len(self._wanted) else ()

    def close(self, *, finish: bool) -> None:
        """End the thread, when all is encoded (``finish``) or at the next tile. May raise its error."""
        if self._thread is None:
            return
        if not finish:
            self._stopping.set()
        self._thread.join()
        self._thread = None
        self._tell()
        if finish and self._error is not None:
            raise self._error

    def _encode_first(self) -> None:
        began = time.perf_counter()
        try:
            for image in self._wanted:
                ready = self._encoder.encode(image, on_progress=self._telling(), cancelled=self._asked)
                self._images.append(ready)
                self.rows[ready.key] = ready.embeddings
        except Cancelled:
            self.cancelled = True
        finally:
            self.seconds = time.perf_counter() - began

    def _telling(self) -> Progress | None:
        """What hears of the next picture's tiles."""
        if self._on_progress is None or not self._together:
            return self._on_progress
        tell = self._on_progress
        tiles = [image.layout.tiles if isinstance(image, LaidOutPicture) else 0 for image in self._wanted]
        before = sum(tiles[: len(self._images)])
        return lambda done, _: tell(before + done, sum(tiles))

    def _start(self) -> None:
        for image in self._wanted:
            self._arriving[image.key] = Arriving(self._wait_until)
        self.rows.update(self._arriving)
        self._thread = threading.Thread(target=self._encode_meanwhile, name="vision", daemon=True)
        self._thread.start()

    def _encode_meanwhile(self) -> None:
        began = time.perf_counter()
        try:
            for image in self._wanted:
                self._encode_next(image)
        except Exception as error:  # the reader raises it where it waits
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self.seconds = time.perf_counter() - began

    def _encode_next(self, image: Opened) -> None:
        def put(embeddings: Embeddings, ready: int) -> None:
            with self._changed:
                self._arriving[image.key].put(embeddings, ready)
                self._changed.notify_all()

        steps, tell = self._steps, self._telling()

        def step(done: int, total: int) -> None:
            steps.append((tell, done, total))

        ready = self._encoder.encode(image, on_rows=put, on_progress=step, cancelled=self._stopping.is_set)
        self._images.append(ready)
        put(ready.embeddings, len(ready.embeddings))

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        """In the reader's thread: wait for ``ready``, passing progress on and asking for a cancel."""
        while True:
            self._tell()
            with self._changed:
                if ready():
                    return
                if self._error is not None:
                    raise self._error
                self._changed.wait(POLL_SECONDS)
            if self._asked is not None and self._asked():
                raise Cancelled

    def _tell(self) -> None:
        while self._steps:
            tell, done, total = self._steps.popleft()
            if tell is not None:
                tell(done, total)
