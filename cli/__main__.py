"""Where ``llava-edge`` and ``python -m llava_edge.cli`` begin: see :mod:`.start`."""

from __future__ import annotations

from .start import leave_at_interrupt


def main() -> None:
    """Load the program and run it."""
    leave_at_interrupt()
    from .main import main as program

    program()


if __name__ == "__main__":
    main()
