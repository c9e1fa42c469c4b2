"""Questions on their way through the line: counted, computed in one thread, told to whoever asked as events."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TypeVar

from ...runtime.callbacks import Cancel
from ...runtime.errors import (
    Cancelled,
    ContextError,
    EngineCrashed,
    ImageError,
    LlavaEdgeError,
    MissingExtraError,
    NativeError,
    OptionError,
    TemplateError,
    WorkerError,
)
from ..errors import RequestError, report, request_error, stopping
from ..requests.values import Asked, field_of_picture, with_detail
from ..settings import Settings
from .events import Accepted, Done, Encoding, Event, Failed, Reading, Text
from .interface import Counted, Listener, ServedModel
from .line import Line, Place
from .metrics import Metrics
from .registry import Entry, Models

T = TypeVar("T")
STOP_SECONDS, END_SECONDS = 3.0, 9.0
"""How long what computes may take to stop when the server ends, and all until models have written what they keep."""
SWEEP_SECONDS = 1.0
"""How often somebody looks for models that nobody uses."""


class Job:
    """One question. Its ``events`` end with Done or Failed, or with HungUp where whoever replies puts that in."""

    def __init__(self, entry: Entry, asked: Asked, keep_alive: float | None) -> None:
        self.entry = entry
        self.asked = asked
        self.keep_alive = keep_alive
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.accepted = False
        self.computing = False
        self.task: asyncio.Task[None] | None = None
        self.stop = threading.Event()
        self._loop = asyncio.get_running_loop()

    def tell(self, event: Event) -> None:
        """Put an event, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop has ended, and nobody listens
            self.stop.set()

    def cancel(self) -> None:
        """Leave the line, or stop computing at the next step."""
        self.stop.set()
        if self.task is not None and not self.computing:
            self.task.cancel()

    def fail(self, error: RequestError) -> None:
        """Tell ``error`` and stop."""
        self.events.put_nowait(Failed(error))
        self.cancel()


class Desk:
    """Takes questions and has them answered. Made and used in the event loop's thread."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self.models = models
        self.metrics = Metrics()
        self.line = Line(settings.limits.waiting)
        self._settings = settings
        self._jobs: set[Job] = set()
        self._wishes: set[threading.Event] = set()
        self._stopping = False
        self._counting = asyncio.Semaphore(1)
        self._thread = ThreadPoolExecutor(1, "engine")

    def enter(self) -> Place:
        """A place in the line. Raises RequestError (429, 503)."""
        if self._stopping:
            raise stopping()
        try:
            return self.line.enter()
        except RequestError:
            self.metrics.ended("refused")
            raise

    def ask(self, place: Place, entry: Entry, asked: Asked, keep_alive: float | None = None) -> Job:
        """Have a question answered; ``place`` is left when that has ended."""
        job = Job(entry, with_detail(asked, self._settings.detail), keep_alive)
        self._jobs.add(job)
        job.task = asyncio.create_task(self._run(job))
        job.task.add_done_callback(lambda _: self._ended(job, place))  # also of one cancelled before it began
        return job

    async def count(self, entry: Entry, asked: Asked, stop: threading.Event) -> Counted:
        """Count a question, loading the model where it is not. Raises Cancelled where ``stop`` is set meanwhile."""
        asked, wish = with_detail(asked, self._settings.detail), stop.is_set
        try:
            if _counts_beside(entry, asked):
                async with self._counting:
                    if (counted := await asyncio.to_thread(entry.count, asked, wish)) is not None:
                        return counted
            return await self.in_turn(lambda: self._load(entry, wish).count(asked, wish))
        except LlavaEdgeError as error:
            raise _told(error, asked) from error

    async def load(self, entry: Entry, stop: threading.Event) -> None:
        """Load a model, when it is the turn of that. Raises Cancelled where ``stop`` is set meanwhile."""
        await self.in_turn(lambda: self._load(entry, stop.is_set))

    @contextmanager
    def stopping_too(self) -> Iterator[threading.Event]:
        """What ends work that is no question: set by whoever wants it no more, and when the server ends."""
        stop = threading.Event()
        if self._stopping:
            stop.set()
        self._wishes.add(stop)
        try:
            yield stop
        finally:
            self._wishes.discard(stop)

    async def unload(self, entry: Entry) -> None:
        """Unload a model, when it is the turn of that."""
        await self.in_turn(lambda: self._unload(entry))

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the thread that computes, when all who came earlier are done."""
        async with self.line.turn():
            work_done = asyncio.get_running_loop().run_in_executor(self._thread, work)
            try:
                return await asyncio.shield(work_done)
            except asyncio.CancelledError:
                await asyncio.wait([work_done])  # the turn lasts as long as the thread is taken
                raise

    async def sweep(self) -> None:
        """Unload, for ever, what has been idle for as long as it may be."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for entry in self.models.entries:
                limit = entry.keep_alive
                if entry.state != "loaded" or self.line.inside or limit is None or entry.idle_seconds < limit:
                    continue
                await self.unload(entry)

    async def stop(self) -> None:
        """Tell everybody that the server ends, stop what computes, and close the models."""
        if self._stopping:
            return
        self._stopping = True
        for job in list(self._jobs):
            job.fail(stopping())
        for stop in self._wishes:
            stop.set()
        end = time.monotonic() + END_SECONDS
        await self._ended_within(STOP_SECONDS, *(job.task for job in list(self._jobs) if job.task))
        for entry in self.models.entries:
            await self._ended_within(max(end - time.monotonic(), 0), asyncio.ensure_future(self.unload(entry)))
        self._thread.shutdown(wait=False)

    async def _ended_within(self, seconds: float, *tasks: asyncio.Task[None]) -> None:
        """Wait for tasks; where they take longer a process stands still, and is ended."""
        if tasks and (await asyncio.wait(tasks, timeout=seconds))[1]:
            for entry in self.models.entries:
                await asyncio.to_thread(entry.end)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job) -> None:
        late = asyncio.get_running_loop().call_later(self._settings.limits.request_seconds, self._too_late, job)
        try:
            await self._accept(job)
            async with self.line.turn():
                job.computing = True
                await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, job)
        except Cancelled:  # while it was counted beside another one's answer
            self.metrics.ended("cancelled")
        except Exception as error:
            self._failed(job, error)
        finally:
            late.cancel()

    def _ended(self, job: Job, place: Place) -> None:
        if job.task is not None and job.task.cancelled():
            self.metrics.ended("cancelled")
        job.entry.used = time.monotonic()
        self._jobs.discard(job)
        place.leave()

    async def _accept(self, job: Job) -> None:
        """Count before it is the question's turn, so that a wrong one is refused at once."""
        if self.line.computing and _counts_beside(job.entry, job.asked):
            async with self._counting:
                if (counted := await asyncio.to_thread(job.entry.count, job.asked, job.stop.is_set)) is not None:
                    self._tell_accepted(job, counted)

    def _tell_accepted(self, job: Job, counted: Counted) -> None:
        job.accepted = True
        job.tell(Accepted(counted))

    def _compute(self, job: Job) -> None:
        """In the thread that computes: load, count, answer."""
        began = time.perf_counter()
        try:
            if job.stop.is_set():
                raise Cancelled
            model = self._load(job.entry, job.stop.is_set)
            load = time.perf_counter() - began
            if not job.accepted:
                self._tell_accepted(job, model.count(job.asked, job.stop.is_set))
            answer = model.answer(job.asked, _listener(job), job.stop.is_set)
            self.metrics.answered(answer)
            job.tell(Done(replace(answer, warnings=(*job.asked.warnings, *answer.warnings)), load))
            self._note_remembered(job.entry, model)
        except Cancelled:
            self.metrics.ended("cancelled")
        except EngineCrashed:  # the next request starts another process
            self.metrics.count("failures_total")
            raise
        except (NativeError, WorkerError):
            self.metrics.count("failures_total")
            self._unload(job.entry)  # nobody knows what state it is in; the next request loads it again
            raise
        finally:
            job.entry.used = time.monotonic()
            self._keep(job)

    def _note_remembered(self, entry: Entry, model: ServedModel) -> None:
        with suppress(LlavaEdgeError):  # the answer is there, whatever happened since
            self.metrics.remembered(entry.facts.id, model.remembered())

    def _keep(self, job: Job) -> None:
        job.entry.keep(job.keep_alive)
        if job.keep_alive == 0:
            self._unload(job.entry)

    def _load(self, entry: Entry, cancelled: Cancel) -> ServedModel:
        if entry.state != "loaded":
            self.metrics.count("loads_total")
        return entry.load(cancelled)

    def _unload(self, entry: Entry) -> None:
        if entry.state == "loaded":
            self.metrics.count("unloads_total")
            self.metrics.forgotten(entry.facts.id)
        entry.unload()

    def _failed(self, job: Job, error: Exception) -> None:
        self.metrics.ended("failed")
        told = _told(error, job.asked)
        job.tell(Failed(told))

    def _too_late(self, job: Job) -> None:
        limit = self._settings.limits.request_seconds
        job.fail(
            RequestError(
                expected=f"an answer within {limit:g} s",
                got="none yet",
                fix="ask for fewer tokens, or use a smaller model",
                status=504,
                code="request_timeout",
            )
        )


def _counts_beside(entry: Entry, asked: Asked) -> bool:
    """Whether to count a question beside another one's answer; a schema is compiled with the model's vocabulary."""
    return entry.counts_at_once and asked.form is None


def _told(error: Exception, asked: Asked) -> RequestError:
    """``error`` as the client that asked sees it, with the field that it is about; what is ours is said on stderr."""
    told = request_error(error)
    if told.status >= 500 and not isinstance(error, RequestError):
        report(error)
    if isinstance(error, ImageError):
        told.param = field_of_picture(asked, error)
    elif isinstance(error, ContextError | TemplateError):
        told.param = asked.param
    elif isinstance(error, OptionError | MissingExtraError) and asked.form is not None:
        told.param = asked.form.param
        if isinstance(error, OptionError):
            told.code = "invalid_schema"
    return told


def _listener(job: Job) -> Listener:
    """What hears of a job's computing and makes events of it."""
    began: list[float] = []
    cached: list[int] = []

    def read(done: int, total: int) -> None:
        if not began:
            began.append(time.perf_counter())
            cached.append(done)
        job.tell(Reading(done, total, cached[0], time.perf_counter() - began[0]))

    return Listener(
        on_text=lambda text: job.tell(Text(text)),
        on_encode=lambda done, total: job.tell(Encoding(done, total)),
        on_prefill=read,
    )
