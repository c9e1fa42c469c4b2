"""Ask with the engine in a process of its own: python examples/isolated.py PICTURE QUESTION [BUNDLE]."""

from __future__ import annotations

import sys

from llava_edge.runtime import Chat, freeze_support, load
from llava_edge.runtime.errors import EngineCrashed, LlavaEdgeError


def answer(chat: Chat, question: str, picture: str) -> None:
    """Print the answer as it comes; where the engine crashed, ask once more."""
    for last in (False, True):
        try:
            for piece in chat.stream(question, images=picture):
                print(piece, end="", flush=True)
            print()
            return
        except EngineCrashed as error:
            if last:
                raise
            print(error, file=sys.stderr)  # the next request starts another process


def main() -> int:
    """Load, ask, and give the memory back."""
    if len(sys.argv) < 3:
        print(__doc__)
        return 1
    picture, question, *rest = sys.argv[1:]
    try:
        with load(*rest, isolate="engine") as model:
            answer(model.chat(), question, picture)
            model.unload()  # until the next question
    except LlavaEdgeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    freeze_support()
    sys.exit(main())
