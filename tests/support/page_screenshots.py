"""Takes the page's pictures in docs/: ``python -m support.page_screenshots``. Into a FOLDER behind it go all states."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image
from support.page import SIGN, answers, ask, handed, opened, started
from support.running_server import Played, Reached, running

DOCS = Path(__file__).parents[2] / "docs"
SIZES = {"narrow": (390, 844), "wide": (1280, 800)}
LINE = "for line in open('measured.csv', encoding='utf-8'): print(line.split(','), 'and so on')"
CODE = f"In Python:\n\n```python\n{LINE}\n```\nThat is all."
RTL = "שלום, מה יש בתמונה?\nEnglish again."


def documented(page: Any) -> None:
    """A picture, an answer, and a question behind it."""
    page.set_input_files("#files", str(SIGN))
    page.wait_for_selector("#pictures svg")
    ask(page, "What does the sign say?")
    answers(page)
    ask(page, "How many shapes are there?")
    answers(page, 2)
    page.evaluate("document.activeElement.blur()")


def states(folder: Path) -> dict[str, Callable[..., None]]:
    """Everything else that the page may look like, by name."""

    def picture(page: Any, played: Played) -> None:
        tall, wide = folder / f"{'a-very-long-name-of-a-file-' * 5}.png", folder / "wide.png"
        Image.linear_gradient("L").resize((60, 3000)).save(tall)
        Image.radial_gradient("L").resize((3000, 60)).save(wide)
        page.set_input_files("#files", [str(SIGN), str(tall), str(wide)])
        page.wait_for_selector("#pictures li:nth-child(3)")

    def low(page: Any, played: Played) -> None:
        page.click("summary")
        page.select_option("#detail", "low")
        picture(page, played)

    def encoding(page: Any, played: Played) -> None:
        page.set_input_files("#files", str(SIGN))
        page.wait_for_selector("#pictures svg")
        ask(page, "hold encode")
        page.wait_for_selector("#doing:has-text('tile')")

    def answering(page: Any, played: Played) -> None:
        ask(page, f"say {CODE} {'W' * 400}")
        answers(page)
        ask(page, f"say \n{RTL}")
        answers(page, 3)
        page.set_input_files("#files", str(SIGN))
        page.wait_for_selector("#pictures svg")
        ask(page, "hold decode")
        page.wait_for_selector("#doing:has-text('answering')")

    def error(page: Any, played: Played) -> None:
        ask(page, "first")
        answers(page)
        handed(page, "drop", b"just text", "notes.txt")
        page.wait_for_selector("#error:visible")

    return {
        "empty": lambda page, played: page.keyboard.press("Tab"),
        "picture": picture,
        "low": low,
        "encoding": encoding,
        "answering": answering,
        "error": error,
    }


def shoot(browser: Any, server: Reached, path: Path, size: str, scheme: str, act: Callable[[Any], None]) -> None:
    """One picture of the whole page in a window of that size."""
    width, height = SIZES[size]
    window = {"width": width, "height": height}
    touch = {"has_touch": True, "is_mobile": True} if size == "narrow" else {}
    with opened(browser, server, quiet=False, viewport=window, color_scheme=scheme, **touch) as page:
        act(page)
        page.screenshot(path=str(path), full_page=True)


def main() -> None:
    """Write the two of docs/, or all into a folder."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with started() as browser:
        if folder is None:
            for size, scheme in (("wide", "light"), ("narrow", "dark")):
                with running() as server:
                    shoot(browser, server, DOCS / f"page-{size}.png", size, scheme, documented)
            return
        for name, act in states(folder).items():
            for size, scheme in product(SIZES, ("light", "dark")):
                played = Played()
                with running(played) as server:
                    path = folder / f"{name}-{size}-{scheme}.png"
                    shoot(browser, server, path, size, scheme, partial(act, played=played))


if __name__ == "__main__":
    main()
