"""The ways to choose what is kept of a picture, and what is printed of them."""

from __future__ import annotations

import numpy as np
import pytest
from llava_edge.benchmark.costs.picture_tokens_cost import CHOICES, NEWLINES, SHARES, Way, accuracy, first_token
from llava_edge.benchmark.data.datasets import load_questions
from llava_edge.runtime import load
from llava_edge.runtime.pictures.built_in import built_in_picture


def test_ways_keep_what_they_say() -> None:
    with load() as model:
        geometry = model.manifest.geometry
        whole = model.encode_image(built_in_picture(geometry))
        ours = model.encode_image(whole, picture_tokens="25%")
        np.testing.assert_array_equal(Way("25%").apply(whole, geometry).embeddings, ours.embeddings)
        assert Way("100%").apply(whole, geometry) is whole
        rows = whole.layout.unpadded[0]
        for choice in CHOICES:
            for overview in SHARES:
                for newlines in NEWLINES:
                    kept = Way("25%", choice, overview, newlines).apply(whole, geometry)
                    assert len(kept.embeddings) == len(ours.embeddings) + (rows - 1) * (newlines == "rows")
        questions = load_questions("demo", limit=1)
        (found,) = accuracy(model, questions, [Way("100%")])
        assert found[0] == pytest.approx(np.mean([one.layout.image_tokens for one in pictures_of(model, questions)]))
        assert found[1:] == (1.0, 1.0, 1.0)
        positions, wait, encoding = first_token(model, built_in_picture(geometry), "20", 1)
        assert positions == 21
        assert 0 < encoding < wait


def pictures_of(model, questions):  # type: ignore[no-untyped-def]
    return [model.encode_image(one) for one in {one.images[0] for one in questions}]
