"""Which landmark of one list belongs to which of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from MMRegCore.errors import InputError


@dataclass(frozen=True)
class Pairing:
    """How two lists of landmarks were paired.

    Attributes
    ----------
    order : tuple of int
        For each fixed landmark the place of its partner in the moving list.
    by : {'label', 'order'}
    warning : str
        What to look at; empty where nothing is in doubt.
    """

    order: tuple[int, ...]
    by: Literal["label", "order"]
    warning: str = ""


def pair_by_label(fixed: Sequence[str], moving: Sequence[str]) -> Pairing:
    """Pair landmarks by labels that both lists hold, each once; otherwise by their order.

    Raises
    ------
    InputError
        When there are no landmarks, their numbers differ, or distinct labels agree only in part: then the order would
        pair strangers.
    """
    fixed, moving = [label.strip() for label in fixed], [label.strip() for label in moving]
    alone = sorted(set(fixed) ^ set(moving))
    if len(fixed) != len(moving) or not fixed:
        names = f"; without a partner: {', '.join(alone)}" if fixed and moving and any(alone) else ""
        raise InputError(
            f"expected as many fixed as moving landmarks, at least one; got {len(fixed)} fixed and {len(moving)} moving"
            f"{names}"
        )
    by_order = tuple(range(len(fixed)))
    shared = set(fixed) & set(moving) - {""}
    distinct = len(set(fixed)) == len(fixed) and len(set(moving)) == len(moving)
    if distinct and shared and not alone:
        return Pairing(tuple(moving.index(label) for label in fixed), "label")
    if distinct and shared:
        raise InputError(
            "expected landmarks with the same labels in both lists, or with no label in common; got labels without a "
            f"partner: {', '.join(alone)}"
        )
    if fixed == moving or not any(fixed) or not any(moving):
        return Pairing(by_order, "order")
    return Pairing(by_order, "order", "the labels of the landmarks differ or repeat: they were paired by their order")
