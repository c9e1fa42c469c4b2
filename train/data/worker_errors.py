"""A broken sample that a worker process finds, as the same error in the process that trains.

torch's DataLoader sends an exception home as its type and the text of its traceback, and makes a
new one from ``type(text)`` (``torch._utils.ExceptionWrapper``). :class:`SampleError` can't be made
like that, and would arrive as a RuntimeError that holds the whole traceback.
"""

from __future__ import annotations

import json

from torch.utils.data import get_worker_info

from ...runtime.errors import LlavaEdgeError
from ...runtime.prompts.conversations import SampleError


class WorkerSampleError(SampleError):
    """A :class:`SampleError` that can be made from the traceback of its like in a worker."""

    def __init__(self, text: str) -> None:
        """``text`` ends in one line of JSON, in a worker the only one, that holds the error's parts."""
        self._line = text.rstrip().rpartition("\n")[2]
        parts = json.loads(self._line[self._line.index("{") :])
        self.sample: str = parts.pop("sample")
        LlavaEdgeError.__init__(self, **parts)

    def __str__(self) -> str:
        """The JSON where a traceback is going to be made of it, the readable line elsewhere."""
        return self._line if get_worker_info() else super().__str__()


def parts_of(error: SampleError) -> str:
    """What :class:`WorkerSampleError` makes the same error of, in one line."""
    parts = {"sample": error.sample, "expected": error.expected, "got": error.got, "fix": error.fix}
    return json.dumps(parts)


def portable(error: SampleError) -> SampleError:
    """``error`` as it can leave this process: itself, but in a DataLoader's worker."""
    return error if get_worker_info() is None else WorkerSampleError(parts_of(error))
