"""What the figure shows, read back from its parts: circles, the line and its band, n, R², names."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.benchmark.regression.figure import area, draw, write_figure
from llava_edge.benchmark.regression.line import regressions
from llava_edge.benchmark.regression.scores import Scores, read_scores
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "examples" / "regress" / "llava-next.csv"


def made(count: int, name: str = "m{}", benchmark: str = "b") -> Scores:
    random = np.random.default_rng(count)
    x = tuple(random.normal(60, 10, count).tolist())
    models = tuple(name.format(at) for at in range(count))
    return Scores(models, (7.0,) * count, "text", x, {benchmark: tuple(0.5 * one for one in x)})


def words(panel: Any) -> list[str]:
    return [one.get_text() for one in panel.texts]


def test_the_article_in_four_panels() -> None:
    scores = read_scores(EXAMPLE)
    found = regressions(scores)
    figure = draw(found, scores.x)
    assert len(figure.axes) == 4
    for panel, one in zip(figure.axes, found, strict=True):
        circles, stars = panel.collections[:2]
        assert len(circles.get_offsets()) == 8
        assert stars.get_offsets().tolist() == [[86.4, one.y[0]]]  # GPT4-V, of which nobody has said how large it is
        sizes = circles.get_sizes()
        assert sizes[0] / sizes[2] == pytest.approx(110 / 34)  # areas, not radii
        (line,) = panel.lines
        assert line.get_xdata()[[0, -1]].tolist() == [47.1, 86.4]
        slope, intercept = np.polyfit(one.x, one.y, 1)
        assert line.get_ydata()[-1] == pytest.approx(slope * 86.4 + intercept)
        band = panel.collections[2].get_paths()[0].vertices
        assert band[:, 1].min() < line.get_ydata().min()
        assert sorted(words(panel)) == sorted(scores.models)
        title = panel.get_title()
        assert title.startswith(f"{one.benchmark}\nn = 9, R² = ")
        assert "leaving one out" in title
    assert "Star: parameters not stated" in figure.get_supxlabel()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_without_a_line(count: int) -> None:
    (panel,) = draw(regressions(made(count)), "text").axes
    assert len(panel.lines) == 0
    assert panel.get_title() == f"b\nn = {count}, no line"


def test_models_of_which_no_size_is_stated_are_circles_alike() -> None:
    scores = Scores(("q8", "q4"), (None, None), "text", (60.0, 50.0), {"b": (40.0, 30.0)})
    figure = draw(regressions(scores), "text")
    circles, stars = figure.axes[0].collections[:2]
    assert (len(circles.get_offsets()), len(stars.get_offsets())) == (2, 0)
    assert len(set(circles.get_sizes().tolist())) == 1
    assert "parameters" not in figure.get_supxlabel()


def test_areas() -> None:
    assert area(55, 110) == area(110, 110) / 2
    assert area(0.001, 110) == area(0.01, 110) > 0  # small, but seen
    assert area(None, 110) == area(None, None) > 0


def test_names_do_not_cover_each_other() -> None:
    """Two circles at one place: their names stand apart."""
    scores = Scores(("one", "two"), (7.0, 7.0), "text", (60.0, 60.0), {"b": (40.0, 40.0)})
    figure = draw(regressions(scores), "text")
    one, two = (name.get_window_extent() for name in figure.axes[0].texts)
    assert not one.overlaps(two)


def test_of_very_many_models_none_is_named() -> None:
    (panel,) = draw(regressions(made(60)), "text").axes
    assert words(panel) == []


@pytest.mark.parametrize("name", ["$x_{}", "a$b$c{}", r"\frac{{{}", "模型{}", "n" * 300 + "{}", "%s{}"])
def test_names_are_text_whatever_is_in_them(name: str, tmp_path: Path) -> None:
    """Not formulas, and no warning about a letter that the font lacks."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_figure(tmp_path / "f.png", regressions(made(4, name, benchmark=name.format("b"))), name.format("x"))
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.format == "PNG"
        assert picture.width < 1000


def test_what_was_there_stays_when_drawing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    def torn(_: object, file: Any, **__: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "f.png").write_bytes(b"mine")
    monkeypatch.setattr(Figure, "savefig", torn)
    with pytest.raises(OSError, match="No space left"):
        write_figure(tmp_path / "f.png", regressions(made(5)), "text")
    assert [one.name for one in tmp_path.iterdir()] == ["f.png"]
    assert (tmp_path / "f.png").read_bytes() == b"mine"


def test_json_is_what_the_interface_says() -> None:
    for one in regressions(read_scores(EXAMPLE)):
        found = json.loads(json.dumps(one.as_dict(), allow_nan=False))
        assert {"benchmark", "n", "slope", "intercept", "r2", "slope_interval"} <= set(found)
        low, high = found["slope_interval"]
        assert low < found["slope"] < high
        assert len(found["leave_one_out"]) == found["n"] == 9
