"""Logits of positions that no loss counts are not computed: the loss and its gradients stay transformers' own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from llava_edge.train.data.sequences import IGNORED
from llava_edge.train.loop.trainer import without_unscored_logits


def batch(labels: list[list[int]]) -> dict[str, torch.Tensor]:
    return {"labels": torch.tensor(labels), "input_ids": torch.ones(len(labels), len(labels[0]), dtype=torch.long)}


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ([[IGNORED, IGNORED, IGNORED, 5, 6]], 3),
        ([[IGNORED, IGNORED, IGNORED, 5], [IGNORED, IGNORED, 4, IGNORED]], 3),
        ([[IGNORED, 5, 6]], 3),
        ([[5, IGNORED, 6]], 3),
        ([[IGNORED, IGNORED]], 2),
    ],
)
def test_from_the_first_label_s_predecessor_on(labels: list[list[int]], kept: int) -> None:
    inputs = batch(labels)
    got = without_unscored_logits(inputs)
    assert got["logits_to_keep"] == kept
    assert torch.equal(got["labels"], inputs["labels"][:, -kept:])
    assert got["input_ids"] is inputs["input_ids"]


def test_loss_and_gradients_are_transformers_own(tmp_path: Path) -> None:
    from support.reference_training import small_base
    from transformers import LlavaNextForConditionalGeneration

    model = LlavaNextForConditionalGeneration.from_pretrained(small_base(tmp_path / "base"), dtype=torch.float32)
    torch.manual_seed(0)
    ids = torch.randint(0, 300, (2, 40))
    labels = ids.clone()
    labels[:, :25], labels[1, 30:] = IGNORED, IGNORED
    inputs = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
    found = []
    for given in (inputs, without_unscored_logits(inputs)):
        model.zero_grad()
        output = model(**given)
        output.loss.backward()
        found.append((output.loss.detach(), model.get_input_embeddings().weight.grad.clone(), output.logits.shape[1]))
    assert [shape for *_, shape in found] == [40, 16]
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-6)
