"""Overlap of label maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from MMRegCore.errors import GeometryError


def dice(first: torch.Tensor, second: torch.Tensor, labels: Sequence[int] | None = None) -> dict[int, float]:
    """Dice coefficient of each label: 2 |A ∩ B| / (|A| + |B|), in [0, 1]; NaN for a label that is in neither map.

    Of label maps (..., D, H, W) of whole numbers of any type; of every label but 0 that is in either map when
    ``labels`` is None.  Raises `GeometryError` when the shapes differ.
    """
    if first.shape != second.shape:
        raise GeometryError(f"expected label maps of one shape; got {tuple(first.shape)} and {tuple(second.shape)}")
    one, two = first.round().long().flatten(), second.round().long().flatten()
    if labels is None:
        labels = [int(n) for n in torch.cat([one.unique(), two.unique()]).unique() if int(n) != 0]
    overlaps = {}
    for number in labels:
        a, b = one == number, two == number
        total = int(a.sum()) + int(b.sum())
        overlaps[int(number)] = 2 * int((a & b).sum()) / total if total else float("nan")
    return overlaps
