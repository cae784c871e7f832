"""Losses against their formulas, term by term."""

from __future__ import annotations

import math

import pytest
import torch

from models.msi.losses import contrastive_loss, magnitude_loss, transcription_loss


@pytest.mark.parametrize("sources", [2, 3])
def test_contrastive_loss_is_the_sum_written_out(sources: int) -> None:
    batch, size, margin = 4, 6, 1 / 8
    queries = 0.4 * torch.randn(batch, sources, 2, size, generator=torch.Generator().manual_seed(sources))
    values = queries.tolist()
    total, active = 0.0, 0
    for item in values:
        for i in range(sources):
            same = sum((a - b) ** 2 for a, b in zip(item[i][0], item[i][1], strict=True)) / size
            other = item[(i + 1) % sources][1]
            apart = sum((a - b) ** 2 for a, b in zip(item[i][0], other, strict=True)) / size
            total += same + max(0.0, margin - apart)
            active += apart < margin
    assert 0 < active < batch * sources  # both sides of the margin occur
    assert float(contrastive_loss(queries)) == pytest.approx(total / batch / sources, rel=1e-5)


def test_contrastive_loss_is_nothing_for_queries_alike_and_apart() -> None:
    one, other = torch.full((6,), 0.5), torch.full((6,), -0.5)
    apart = torch.stack([torch.stack([one, one]), torch.stack([other, other])])[None]  # [1, S, 2, M]
    assert float(contrastive_loss(apart)) == 0.0
    alike = one.expand(1, 2, 2, 6)
    assert float(contrastive_loss(alike)) == pytest.approx(1 / 8)


def test_transcription_loss_is_the_mean_surprise() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, classes = torch.randn(2, 5, 3, generator=generator), torch.tensor([[0, 4, 2], [1, 1, 3]])
    total = 0.0
    for item, row in zip(logits.tolist(), classes.tolist(), strict=True):
        for n, k in enumerate(row):
            column = [item[p][n] for p in range(5)]
            total += math.log(sum(math.exp(value) for value in column)) - column[k]
    assert float(transcription_loss(logits, classes)) == pytest.approx(total / 6, rel=1e-5)


def test_magnitude_loss_is_the_mean_distance() -> None:
    estimate, target = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([[0.0, 2.0], [0.5, 1.0]])
    assert float(magnitude_loss(estimate, target)) == pytest.approx((1 + 4 + 0 + 2) / 4)
