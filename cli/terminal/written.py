"""What the commands that write bundles say: the disk they need, what they wrote, how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...runtime.bundle.disk_space import DiskNeed
from ...runtime.bundle.manifest import Manifest
from ...runtime.bundle.work_folder import work_place
from .progress import note
from .streams import say_json
from .visible import visible


class Written:
    """What there is to say about the bundle at ``output``, collected while it is written."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._need: DiskNeed | None = None

    def needs(self, need: DiskNeed) -> None:
        """Say what it will take, before it is taken."""
        self._need = need
        note(f"{visible(str(self._output))}: {need}")

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Where Ctrl-C leaves finished work behind, say how to go on."""
        try:
            yield
        except KeyboardInterrupt:
            if (place := work_place(self._output)).is_dir():
                note(f"what is finished is kept in {visible(str(place))}; the same command continues")
            raise

    def tell(self, manifest: Manifest, about: str, *, as_json: bool) -> None:
        """Say what was written: a line on stderr, or one JSON object on stdout."""
        total = sum(entry.size for entry in manifest.files)
        note(f"{visible(str(self._output))}: {total / 1e6:,.1f} MB; {about}")
        if as_json and self._need is not None:
            files = {entry.name: entry.size for entry in manifest.files}
            measured = manifest.parity.measured
            disk = self._need.to_json()
            made = {"llm": manifest.llm.recipe, "vision": manifest.vision.recipe, "machine": manifest.llm.machine}
            say_json({"bundle": str(self._output), **made, "files": files, "measured": measured, "disk": disk})
