"""What keeping fewer of a picture's positions costs: right answers by how the rows are chosen, and the first token.

``python -m llava_edge.benchmark.costs.picture_tokens_cost`` asks a bundle the questions of a data set with so many
rows of each picture (``--keep``), chosen in each of the ways named (``--choice``), and prints right answers; those
about text in pictures apart. ``--first-token`` asks about one picture instead, and prints how long that wait is.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.model import Model, load
from ...runtime.pictures.built_in import built_in_picture
from ...runtime.pictures.encoded import EncodedImage
from ...runtime.pictures.geometry import Geometry
from ...runtime.pictures.pack import choose
from ...runtime.pictures.tiles import lay_out
from ..accuracy.metrics import score
from ..data.datasets import load_questions
from ..data.questions import Question

Rows = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
TEXT = ("read", "table")
"""The demo's types of questions whose answer is written in the picture."""


def _random(features: Rows, count: int) -> Indices:
    """Seeded by what is chosen from, so that a picture always loses the same rows."""
    seed = int(np.abs(features[0]).sum() * 1e4) + len(features)
    return np.sort(np.random.default_rng(seed).choice(len(features), min(count, len(features)), replace=False))


def _even(features: Rows, count: int) -> Indices:
    """Every so manieth row."""
    return np.unique(((np.arange(count) + 0.5) * len(features) / count).astype(np.intp))


def _unusual(features: Rows, count: int) -> Indices:
    """Those farthest from the mean, however alike."""
    return np.sort(np.argsort(-((features - features.mean(axis=0)) ** 2).sum(axis=1), kind="stable")[:count])


def _cosine(features: Rows, count: int) -> Indices:
    """DivPrune as published: farthest by cosine, from the one on whose nearest is farthest."""
    if count >= len(features):
        return np.arange(len(features))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = 1 - unit @ unit.T
    np.fill_diagonal(distances, np.inf)
    chosen = [int(np.argmax(distances.min(axis=1)))]
    while len(chosen) < count:
        nearest = distances[chosen].min(axis=0)
        nearest[chosen] = -1
        chosen.append(int(np.argmax(nearest)))
    return np.sort(np.array(chosen))


CHOICES: Mapping[str, Callable[[Rows, int], Indices]] = {
    "distance": choose,
    "cosine": _cosine,
    "unusual": _unusual,
    "even": _even,
    "random": _random,
}
SHARES = ("half", "third", "equal")
"""What the overview gets: half, a third, or as much as its share of all rows."""
NEWLINES = ("one", "rows")


@dataclass(frozen=True)
class Way:
    """How rows are chosen: by what, what of them the overview's are, and whether every row of the grid is ended."""

    keep: str
    choice: str = "distance"
    overview: str = "half"
    newlines: str = "one"

    def apply(self, image: EncodedImage, geometry: Geometry) -> EncodedImage:
        """The picture with the rows that this keeps."""
        layout, side = image.layout, geometry.features_per_tile
        counted = lay_out(layout.size, geometry, overview_only=layout.grid == (0, 0), picture_tokens=self.keep)
        if not any(counted.kept):
            return image
        rows, columns = layout.unpadded
        of_overview = self._of_overview(sum(counted.kept), side, rows * columns)
        last = len(image.embeddings) - 1
        grid = np.arange(side, last)
        ending = (grid - side) % (columns + 1) == columns
        features, pick = grid[~ending], CHOICES[self.choice]
        lines = [features[pick(image.embeddings[features], sum(counted.kept) - of_overview)]]
        lines += [grid[ending]] if self.newlines == "rows" else []
        lines = [np.sort(np.concatenate([*lines, [last]]))]
        kept = image.embeddings[np.concatenate([pick(image.embeddings[:side], of_overview), *lines])]
        key = f"{image.key}:{self}"
        return replace(image, embeddings=kept, key=key, layout=replace(layout, image_tokens=len(kept)))

    def _of_overview(self, count: int, overview: int, grid: int) -> int:
        share = {"half": 1 / 2, "third": 1 / 3, "equal": overview / (overview + grid)}[self.overview]
        return min(max(count - grid, 1, count - int(count * (1 - share))), overview, count - (1 if grid else 0))


def accuracy(model: Model, questions: Sequence[Question], ways: Sequence[Way]) -> list[tuple[float, ...]]:
    """For each way the mean positions of a picture and the shares of right answers: all, text, the others."""
    geometry, positions = model.manifest.geometry, [list[int]() for _ in ways]
    right: list[dict[bool, list[float]]] = [{True: [], False: []} for _ in ways]
    about = sorted(questions, key=lambda one: str(one.images))
    for images, asked in itertools.groupby(about, key=lambda one: one.images):
        encoded, several = [model.encode_image(image) for image in images], list(asked)
        for index, way in enumerate(ways):
            fewer = [way.apply(image, geometry) for image in encoded]
            positions[index] += [image.layout.image_tokens for image in fewer]
            for question in several:
                text = model.ask(question.prompt, fewer, max_tokens=question.max_tokens).text
                right[index][question.type in TEXT].append(score(question, text) or 0.0)
    return [
        (statistics.mean(counted), *(float(np.mean(part)) for part in (found[True] + found[False], *found.values())))
        for counted, found in zip(positions, right, strict=True)
    ]


def first_token(model: Model, picture: Any, keep: str, runs: int) -> tuple[int, float, float]:
    """Positions of the picture, and the median seconds to the first token and of encoding among them."""
    answers = []
    for number in range(runs):
        model.ask("Hello", max_tokens=1)  # so that nothing of the picture is left
        answers.append(model.ask(f"{number}: what is this?", [picture], max_tokens=1, picture_tokens=keep))
    waits, encoding = [one.timings.first_token for one in answers], [one.timings.encode for one in answers]
    return answers[0].image_tokens[0], statistics.median(waits), statistics.median(encoding)


def main() -> None:
    """Print a row a way, or a row a number of positions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-m", "--model", help="a bundle; the demo without it")
    parser.add_argument("--keep", nargs="+", default=["100%", "50%", "25%", "12.5%", "6%"], metavar="N|N%%")
    parser.add_argument("--choice", nargs="+", default=["distance"], choices=CHOICES)
    parser.add_argument("--overview", nargs="+", default=["half"], choices=SHARES)
    parser.add_argument("--newlines", nargs="+", default=["one"], choices=NEWLINES)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--limit", type=int, default=0, help="questions a type; 0 is all")
    parser.add_argument("--first-token", action="store_true")
    parser.add_argument("--picture", help="with --first-token; one that is drawn without it")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    kept = 0 if given.first_token else 1
    with load(given.model, threads=given.threads, images_kept=kept, prepare=given.first_token or None) as model:
        if given.first_token:
            picture = Path(given.picture) if given.picture else built_in_picture(model.manifest.geometry)
            print(f"{'keep':>6} {'positions':>9} {'first token':>12} {'encode':>8}")
            for keep in given.keep:
                positions, wait, encode = first_token(model, picture, keep, given.runs)
                print(f"{keep:>6} {positions:>9} {wait:>10.2f} s {encode:>6.2f} s", flush=True)
            return
        questions = [one for one in load_questions(given.data, limit=given.limit) if one.confirmed]
        ways = [Way(*one) for one in itertools.product(given.keep, given.choice, given.overview, given.newlines)]
        print(
            f"{'keep':>6} {'choice':<9} {'overview':<8} {'newlines':<8} {'positions':>9} {'all':>7} {'text':>7} others"
        )
        for way, (mean, *shares) in zip(ways, accuracy(model, questions, ways), strict=True):
            head = f"{way.keep:>6} {way.choice:<9} {way.overview:<8} {way.newlines:<8} {mean:>9.0f}"
            print(head, *(f"{share:>7.1%}" for share in shares))


if __name__ == "__main__":
    main()
