"""``card.md``: what a benchmark holds, how it was chosen, what was left out and why, and what is to be filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..copies.duplicates import LARGEST_LIMIT, Copies, Pair, histogram
from ..copies.overlap import Overlap
from ..copies.photographs import Photograph
from .asked import Item

CARD = "card.md"
SIZES = (120, 1020)
"""Questions of LLaVA-Bench (Wilder): the small and the whole one."""
SHOWN = 200
"""Rows of a table; what is more is counted."""
_ANSWERS = re.compile(r"(?<=<!-- answers -->\n).*?(?=\n<!-- end of answers -->)", re.DOTALL)


@dataclass(frozen=True)
class Chosen:
    """A question that was chosen: the item, its cluster's number from 1 and how many questions that has."""

    item: Item
    cluster: int
    size: int


@dataclass(frozen=True)
class Facts:
    """What the card is written from. ``items`` counts the questions that were chosen from."""

    name: str
    bundle: str
    identity: str
    drafted_by: str
    seed: int
    wanted: int
    photographs: tuple[Photograph, ...]
    unreadable: tuple[str, ...]
    copies: Copies
    asked_left_out: tuple[str, ...]
    items: int
    chosen: tuple[Chosen, ...]
    dropped: tuple[Chosen, ...]
    overlap: Overlap | None

    @property
    def overlapping(self) -> tuple[str, ...]:
        """Names of the pictures chosen that the training set has too."""
        found = {self.photographs[one.photograph].name for one in self.overlap.found} if self.overlap else set()
        return tuple(name for name in self.pictures if name in found)

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the pictures chosen, in the order of the questions."""
        return tuple(dict.fromkeys(one.item.name for one in self.chosen))

    @property
    def overlap_share(self) -> float | None:
        """The share of the pictures chosen that the training set has too; None where none was given."""
        return len(self.overlapping) / len(self.pictures) if self.overlap and self.pictures else None

    @property
    def blind(self) -> int:
        """Questions among the chosen that were answered without the picture."""
        return sum(bool(one.item.blind) for one in self.chosen)


def card(facts: Facts) -> str:
    """The page."""
    confirmed = sum(one.item.confirmed for one in facts.chosen)
    sections = [
        f"# {_cell(facts.name)}",
        _counts(facts),
        f"## Answers\n\n<!-- answers -->\n{_answers(confirmed, len(facts.chosen))}\n<!-- end of answers -->\n\n"
        f"Answers without a person's were drafted by {_cell(facts.drafted_by)}.",
        _blind(facts),
        _overlap(facts),
        _choice(facts),
        _copies(facts),
        _left_out("Files that could not be read", facts.unreadable),
        _left_out("Questions that could not be used", facts.asked_left_out),
        _licences(facts),
    ]
    return "\n\n".join(one for one in sections if one) + "\n"


def with_answers(text: str, confirmed: int, total: int) -> str:
    """The card with what it says of the answers brought up to date; without its marks, as it is."""
    said = _answers(confirmed, total)
    return _ANSWERS.sub(lambda _: said, text, count=1)


def _answers(confirmed: int, total: int) -> str:
    open_ones = total - confirmed
    if not open_ones:
        return f"All {total} reference answers were confirmed by a person."
    return (
        f"{confirmed} of {total} reference answers were confirmed by a person. The other {open_ones} are not scored: "
        "`llava-edge benchmark confirm FOLDER`."
    )


def _counts(facts: Facts) -> str:
    found, kept = len(facts.photographs), len(facts.copies.kept)
    rows = [
        ("pictures that were read", found),
        ("files that could not be read", len(facts.unreadable)),
        ("copies left out", found - kept),
        ("pictures to choose from", kept),
        ("questions to choose from", facts.items),
        ("questions wanted (-k)", facts.wanted),
        ("questions left out because they were answered blind", len(facts.dropped)),
        ("questions", len(facts.chosen)),
        ("pictures", len(facts.pictures)),
    ]
    said = ""
    if facts.wanted > facts.items:
        said = f"\n\nThere were fewer questions than wanted, so all {facts.items} were taken."
    return _table(("what", "number"), rows) + said


def _blind(facts: Facts) -> str:
    return (
        f"## Answered without the picture\n\n{_cell(facts.bundle)} was asked every question without its picture. "
        f"{facts.blind} of the {len(facts.chosen)} questions got their reference answer all the same; their records "
        f"say so (`blind`). {len(facts.dropped)} others were left out for it."
    )


def _overlap(facts: Facts) -> str:
    title = "## Overlap with a training set\n\n"
    if facts.overlap is None or facts.overlap_share is None:
        return f"{title}Not measured. `--against TRAIN.json` measures it."
    overlap, share = facts.overlap, facts.overlap_share
    said = (
        f"{len(facts.overlapping)} of {len(facts.pictures)} pictures ({100 * share:.1f} %) are in "
        f"{_cell(overlap.file)}, which has {overlap.pictures} pictures (LLaVA-Bench (Wilder) reports less than 2 % "
        "for its own)."
    )
    if overlap.missing:
        said += f" {overlap.missing} of its pictures could not be read and were not compared."
    training = {facts.photographs[one.photograph].name: one for one in overlap.found}
    rows = [(name, training[name].training, f"{training[name].difference:.3f}") for name in facts.overlapping]
    return title + said + _behind(_rows(("picture", "in the training set", "difference"), rows))


def _choice(facts: Facts) -> str:
    sizes = sorted({one.cluster: one.size for one in (*facts.chosen, *facts.dropped)}.values())
    said = (
        f"## How they were chosen\n\nWeighted k-means with seed {facts.seed}; a point is a question with its picture: "
        "the mean of the vision part's features of the whole picture, centred, and behind them the language model's "
        "distribution of the answer's first token, projected. Its weight are the picture's pixels, so large pictures "
        "draw the centres; of each cluster the question nearest its centre was taken. Questions about the largest "
        f"pictures come first. Bundle: {_cell(facts.bundle)} (`{facts.identity}`). LLaVA-Bench (Wilder) has "
        f"{SIZES[0]} and {SIZES[1]} questions.\n\nClusters: {len(sizes)}, of {sizes[0]} to {sizes[-1]} questions "
        f"(median {sizes[len(sizes) // 2]}); `clusters.png` shows the largest ones."
    )
    rows = [
        (number, facts_item.item.name, facts_item.cluster, facts_item.size)
        for number, facts_item in enumerate(facts.chosen, start=1)
    ]
    return said + _behind(_rows(("question", "picture", "cluster", "of questions"), rows))


def _copies(facts: Facts) -> str:
    copies, names = facts.copies, [one.name for one in facts.photographs]
    differences = [pair.difference for pair in copies.pairs]
    said = (
        "## Copies\n\nA copy has the same content: re-encoded, scaled, or a crop of at least 80 %. Turned and mirrored "
        "pictures are not looked for. Two pictures are laid over each other, and their difference is the squared error "
        "at the worst of 64 places, as a share of what unrelated pictures of their contrast have. Up to "
        f"{copies.limit:.3f} they are copies: the middle of the widest gap above the {len(copies.made)} copies that "
        f"were made of these photographs, but at most {LARGEST_LIMIT}. {len(copies.pairs)} pairs were compared. The "
        "better of two stays: more pixels, then a lossless format, then the larger file."
    )
    bins = [(f"{low:.4f} to {high:.4f}", own, found) for low, high, own, found in histogram(copies.made, differences)]
    said += _behind(_table(("difference", "copies that were made", "pairs"), bins))
    rows = [(names[one.copy], names[one.kept], one.why, f"{one.difference:.4f}") for one in copies.left_out]
    said += _behind(_rows(("left out", "because of", "why", "difference"), rows))
    if copies.borderline:
        said += (
            f"\n\n{len(copies.borderline)} pairs are near that limit. `pairs.png` shows them; write `true` or `false` "
            "at `same` in `pairs.json` and build again with `--pairs pairs.json`."
        )
        near = [(*_named(pair, names), f"{pair.difference:.4f}") for pair in copies.borderline]
        said += _behind(_rows(("picture", "and", "difference"), near))
    return said


def _named(pair: Pair, names: Sequence[str]) -> tuple[str, str]:
    return names[pair.one], names[pair.other]


def _left_out(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    more = [f"- and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return f"## {title}\n\n" + "\n".join([*(f"- {_cell(line)}" for line in lines[:SHOWN]), *more])


def _licences(facts: Facts) -> str:
    folders = dict.fromkeys(name.rpartition("/")[0] or "." for name in facts.pictures)
    rows = [(folder, "", "", "") for folder in folders]
    return (
        "## Licences\n\nTo fill in before anybody else gets this folder. Pictures are the files as they were, with "
        "what cameras write into them (place, time, device).\n\n"
        + _table(("folder", "source", "who holds the rights", "licence"), rows)
    )


def _behind(table: str) -> str:
    return f"\n\n{table}" if table else ""


def _rows(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of the first rows, and how many there are more; nothing where there is none."""
    if not rows:
        return ""
    more = f"\n\nand {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return _table(head, rows[:SHOWN]) + more


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(str(one)) for one in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Someone's words in Markdown: on one line, and nothing in them is markup."""
    plain = "".join(one if one.isprintable() else " " for one in text)
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", plain)
