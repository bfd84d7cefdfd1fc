"""What model selection found, and what landmarks did; needs no torch, because the Slicer module reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["initial", "rigid", "deformed"]
# Landmarks gave the start only, or stayed as evidence in the rigid search, or in all of it.
LandmarkUse = Literal["start", "rigid search", "search"]
LandmarkMotion = Literal["rigid", "translation"]


@dataclass(frozen=True)
class Candidate:
    """One of the results that are compared.

    Attributes
    ----------
    name : {'initial', 'rigid', 'deformed'}
    similarity : float
        Averaged over the field of view.
    improvement, standard_error : float
        Of the similarity over that of the initial transform; the error from cubes of the field of view.
    significance : float
        The improvement in units of its standard error.
    folding_voxels : int
        Voxels of the field of view with a negative Jacobian determinant.
    """

    name: Kind
    similarity: float
    improvement: float
    standard_error: float
    significance: float
    folding_voxels: int


@dataclass(frozen=True)
class ModelSelection:
    """Which candidate was selected, out of which, and why.

    ``rival_mm`` is how far away another place lies that fits about as well, if one does.
    """

    selected: Kind
    reason: str
    candidates: tuple[Candidate, ...]
    rival_mm: float | None = None
