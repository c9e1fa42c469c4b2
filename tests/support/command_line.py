"""The ``llava-edge`` program run in the test's own process: for what it says, where a process is not the point."""

from __future__ import annotations

import contextlib
import io
import sys
from unittest import mock

from llava_edge.cli.main import main


def run_here(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command. What would be a traceback is raised."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["llava-edge", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), out.getvalue(), err.getvalue()
    raise AssertionError("main returned")
