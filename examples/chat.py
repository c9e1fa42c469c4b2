"""Talk about one picture: python examples/chat.py PICTURE [BUNDLE]."""

from __future__ import annotations

import sys

from llava_edge.runtime import load
from llava_edge.runtime.errors import LlavaEdgeError


def main() -> int:
    """Read questions until the end of input; print answers as they come."""
    if len(sys.argv) < 2:
        print(__doc__)
        return 1
    picture, *rest = sys.argv[1:]
    try:
        with load(*rest) as model:
            chat = model.chat()
            images = [model.encode_image(picture)]
            for question in sys.stdin:
                for piece in chat.stream(question.strip(), images=images):
                    print(piece, end="", flush=True)
                print()
                images = []  # the chat remembers it
    except LlavaEdgeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
