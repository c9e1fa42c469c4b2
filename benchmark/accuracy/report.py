"""A comparison as people read it: sentences and tables, for a terminal and in Markdown, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...runtime.errors import amount
from .bootstrap import LEVEL, Estimate
from .comparison import Accuracy, Candidate, Comparison, Divergence, Measured
from .divergence import MEASURED

PARTS = {"vision": "vision alone", "llm": "LLM alone"}
NONE = "–"
NAMED = 3
"""Records that were left out, of which the report says why."""
SURE = f"{100 * LEVEL:g} %"


@dataclass(frozen=True)
class Table:
    """A title, the columns' heads, and rows of texts; the first column is words, the others figures."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """For a terminal."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        return "\n".join([self.title, *(_line(line, widths) for line in lines)])

    def markdown(self) -> str:
        """For a document."""
        rules = ("---", *("---:" for _ in self.head[1:]))
        lines = (f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in (self.head, rules, *self.rows))
        return "\n".join([f"## {self.title}", "", *lines])


def statements(comparison: Comparison) -> list[str]:
    """What was found, a sentence or two a candidate, no number without its interval."""
    said = []
    for candidate in comparison.candidates:
        name, divergence, accuracy = candidate.side.name, candidate.overall.divergence, candidate.overall.accuracy
        if accuracy is not None:
            said.append(about_difference(name, comparison.reference.name, accuracy.difference))
        if candidate.text_difference is not None and divergence is not None:
            said.append(about_text(candidate, candidate.text_difference))
        if divergence is not None:
            kl, top1 = figure(divergence.kl_mean, precise), figure(divergence.top1, percent)
            said.append(f"{name}: KL to {comparison.reference.name} {kl} nats a token; same likeliest token in {top1}")
    return said


def about_difference(name: str, reference: str, difference: Estimate) -> str:
    """Such as "q4 is 0.8 points below f16 (95 %: 0.1 to 1.6)", or that the two can't be told apart."""
    value, low, high = (100 * one for one in (difference.value, difference.low, difference.high))
    if not difference.known:
        return f"{name} and {reference}: one picture tells nothing about other pictures"
    if high < 0:
        return f"{name} is {-value:.1f} points below {reference} ({SURE}: {-high:.1f} to {-low:.1f})"
    if low > 0:
        return f"{name} is {value:.1f} points above {reference} ({SURE}: {low:.1f} to {high:.1f})"
    ends = f"{_side(low)} to {_side(high)}"
    return f"{name} can't be told from {reference}: {_side(value)} ({SURE}: {ends})"


def about_text(candidate: Candidate, difference: Estimate) -> str:
    """Such as "q4: KL is 0.004 nats a token larger with the pictures than without (95 %: 0.001 to 0.007)"."""
    name = candidate.side.name
    if not difference.known:
        return f"{name}: one picture or one prompt does not tell whether the pictures make a difference"
    value, low, high = (precise(one) for one in (difference.value, difference.low, difference.high))
    if difference.low <= 0 <= difference.high:
        return f"{name}: KL with the pictures can't be told from KL without: {value} nats ({SURE}: {low} to {high})"
    if difference.value > 0:
        return f"{name}: KL is {value} nats a token larger with the pictures than without ({SURE}: {low} to {high})"
    ends = f"{precise(-difference.high)} to {precise(-difference.low)}"
    return f"{name}: KL is {precise(-difference.value)} nats a token smaller with the pictures ({SURE}: {ends})"


def _side(points: float) -> str:
    if abs(points) < 0.05:
        return "0.0 points"
    return f"{abs(points):.1f} points {'below' if points < 0 else 'above'}"


def tables(comparison: Comparison) -> list[Table]:
    """Divergence, accuracy and the candidates by question type."""
    named = [(_name(one), one.overall, one) for one in comparison.candidates]
    rows: list[tuple[str, Measured]] = []
    for name, overall, candidate in named:
        rows.append((name, overall))
        rows += [(f"  {PARTS[part]}", measured) for part, measured in candidate.parts.items()]
    text = {name: candidate.text for name, _, candidate in named if candidate.text is not None}
    found = [_divergence_table(rows, text)]
    if any(one.accuracy for _, one in rows):
        found.append(_accuracy_table(comparison, rows))
    if any(len(one.types) > 1 for one in comparison.candidates):
        found += [_type_table(one) for one in comparison.candidates]
    return found


def _name(candidate: Candidate) -> str:
    side = candidate.side
    return f"{side.name} ({side.vision} + {side.llm}, {side.bytes / 1e6:,.1f} MB)"


def _divergence_table(rows: Sequence[tuple[str, Measured]], text: Mapping[str, Measured]) -> Table:
    """A row each, and behind a candidate's one without the pictures where that was measured."""
    head = ("candidate", "KL mean", "KL median", "KL p99", "same top-1", "same answer", "first other token")
    cells = []
    for name, one in rows:
        cells.append((name, *_divergence_cells(one.divergence)))
        if name in text:
            cells.append(("  without the pictures", *_divergence_cells(text[name].divergence, "one prompt")))
    return Table(f"Divergence, nats a token ({SURE} intervals)", head, tuple(cells))


def _divergence_cells(found: Divergence | None, alone: str = "one picture") -> tuple[str, ...]:
    if found is None:
        return (NONE,) * 6
    values = [figure(one, precise, alone) for one in (found.kl_mean, found.kl_median, found.kl_p99)]
    shares = [figure(one, percent, alone) for one in (found.top1, found.same)]
    return (*values, *shares, NONE if found.first_divergent is None else f"{found.first_divergent:g}")


def _accuracy_table(comparison: Comparison, rows: Sequence[tuple[str, Measured]]) -> Table:
    side = comparison.reference
    reference = f"{side.name} ({side.vision} + {side.llm}, {side.bytes / 1e6:,.1f} MB), the reference"
    own = comparison.accuracy
    first = (reference, str(comparison.scored), figure(own, percent) if own else NONE, NONE)
    return Table(
        f"Accuracy ({SURE} intervals)",
        ("bundle", "questions", "accuracy", "points from the reference"),
        (first, *((name, *_accuracy_cells(one.accuracy)) for name, one in rows)),
    )


def _accuracy_cells(found: Accuracy | None) -> tuple[str, ...]:
    if found is None:
        return (NONE,) * 3
    return str(found.scored), figure(found.candidate, percent), figure(found.difference, points)


def _type_table(candidate: Candidate) -> Table:
    head = ("type", "questions", "KL mean", "reference accuracy", "accuracy", "points from the reference")
    rows = []
    for name, one in candidate.types.items():
        kl = figure(one.divergence.kl_mean, precise) if one.divergence else NONE
        found = one.accuracy
        shares = [figure(each, percent) for each in (found.reference, found.candidate)] if found else [NONE, NONE]
        rows.append((name, str(one.questions), kl, *shares, figure(found.difference, points) if found else NONE))
    return Table(f"{candidate.side.name} by question type ({SURE} intervals)", head, tuple(rows))


def figure(estimate: Estimate, show: Callable[[float], str], alone: str = "one picture") -> str:
    """A value with its interval, each written by ``show``; ``alone`` says why there is none."""
    ends = f"{show(estimate.low)} to {show(estimate.high)}" if estimate.known else alone
    return f"{show(estimate.value)} ({ends})"


def percent(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * value:+.1f}"


def precise(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def notes(comparison: Comparison) -> list[str]:
    """What the numbers rest on."""
    error = max((one.overall.divergence.kl_error for one in comparison.candidates if one.overall.divergence), default=0)
    pictures = f"about {amount(comparison.pictures, 'picture')}" if comparison.pictures else "without pictures"
    said = [
        f"{amount(comparison.questions, 'question')} {pictures}, greedy answers; intervals by drawing "
        f"{'pictures' if comparison.pictures else 'questions'} again (paired bootstrap).",
        f"KL is teacher-forced on the first {MEASURED} tokens of {comparison.reference.name}'s answers; keeping "
        f"their log-probabilities in float16 moved a mean by at most {error:.1g} nats.",
    ]
    if comparison.unconfirmed:
        said.append(
            f"{comparison.unconfirmed} answers were confirmed by nobody; they count for the divergence only "
            "(llava-edge benchmark confirm FOLDER, or --unconfirmed)."
        )
    if unscored := comparison.questions - comparison.scored - comparison.unconfirmed:
        said.append(f"{unscored} answers are free-form and were not judged; they count for the divergence only.")
    if any(one.text for one in comparison.candidates):
        said.append(
            "Without the pictures: the same questions, asked of both sides as text alone; intervals by drawing "
            "prompts again, each as often as it was asked."
        )
    if comparison.refused:
        said.append(
            f"{comparison.refused} questions do not fit the context, or their picture can't be shown; "
            "they are wrong for all."
        )
    return said + left_out(comparison.left_out)


def left_out(records: Sequence[str]) -> list[str]:
    """How many records could not be questions, and what was wrong with the first of them."""
    if not records:
        return []
    more = f", and {len(records) - NAMED} more" if len(records) > NAMED else ""
    what = "records of the data set were" if len(records) > 1 else "record of the data set was"
    return [f"{len(records)} {what} left out: {' | '.join(records[:NAMED])}{more}."]


def terminal(comparison: Comparison) -> str:
    """All of it for a terminal: tables, notes, and the statements last."""
    return "\n\n".join(
        [*(one.text() for one in tables(comparison)), "\n".join(notes(comparison)), "\n".join(statements(comparison))]
    )


def markdown(comparison: Comparison, *, command: str, plot: str | None) -> str:
    """All of it as a Markdown page that begins with the statements and names the command that made it."""
    names = ", ".join(one.side.name for one in comparison.candidates)
    page = [
        f"# {names} against {comparison.reference.name}",
        "\n".join(f"- {one}" for one in statements(comparison)),
        *([f"![accuracy and KL against size]({plot})"] if plot else []),
        *(one.markdown() for one in tables(comparison)),
        "\n".join(f"- {one}" for one in notes(comparison)),
        f"Made by `{command}`.",
    ]
    return "\n\n".join(page) + "\n"


def as_json(comparison: Comparison) -> str:
    """The comparison as one JSON object."""
    return json.dumps(comparison.as_dict(), ensure_ascii=False, allow_nan=False)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    figures = (f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "  ".join([f"{cells[0]:<{widths[0]}}", *figures])


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("  ", "&nbsp; ", 1) if cell.startswith("  ") else cell.replace("|", "\\|")
