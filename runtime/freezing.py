"""A frozen application (PyInstaller, cx_Freeze) is its own interpreter, and so has to run what its children serve."""

from __future__ import annotations

import sys

from .processes.starting import CHILD_WORD, let_frozen_start


def freeze_support() -> None:
    """Call this first in the program of a frozen application that loads models in processes of their own.

    Started as such a process, the application serves it here and ends; it never gets behind this call. Otherwise,
    and where nothing is frozen, this returns at once.
    """
    if not getattr(sys, "frozen", False):
        return
    if sys.argv[1:2] != [CHILD_WORD]:
        let_frozen_start()
        return
    from .engine import engine_child
    from .processes import llm_child

    let_frozen_start()  # an engine's process has one for its workers
    mains = {f"{main.__module__}:{main.__name__}": main for main in (engine_child.main, llm_child.main)}
    main = mains.get(" ".join(sys.argv[2:]))
    if main is None:
        sys.exit(f"expected {' or '.join(mains)}; got another process; {CHILD_WORD} is not for people")
    main()
    sys.exit(0)
