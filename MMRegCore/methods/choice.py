"""Do no harm: start, rigid motion and deformation compete, and a gain counts only beyond its own uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from MMRegCore.config import ChoiceSettings
from MMRegCore.displacement import DisplacementField
from MMRegCore.optimisation.agreement import Agreement
from MMRegCore.preprocess import Prepared

# Agreement is alike over some millimetres: cubes of this size are taken for independent of each other.
_BLOCK_MM = 10.0
# A deformation that folds is drawn back towards its rigid part by these factors until it does not.
_DRAWN_BACK = (1.0, 0.8, 0.6, 0.4)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One of the results that compete.

    Attributes
    ----------
    name : str
        'start', 'rigid' or 'deformable'.
    displacement_voxel : Tensor, (1, 3, D, H, W)
    agreement : float
        Mean gain of `Agreement` over the field of view.
    improvement, standard_error : float
        Of the agreement over that of the start; the error from cubes of the field of view.
    folding_voxels : int
        In the field of view.
    """

    name: str
    displacement_voxel: torch.Tensor
    agreement: float
    improvement: float
    standard_error: float
    folding_voxels: int

    @property
    def significance(self) -> float:
        """The improvement in units of its standard error."""
        return self.improvement / max(self.standard_error, 1e-12)


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen, and from what."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; without the fields."""
        rows = [
            {
                "name": c.name,
                "agreement": c.agreement,
                "improvement": c.improvement,
                "standard_error": c.standard_error,
                "significance": c.significance,
                "folding_voxels": c.folding_voxels,
            }
            for c in self.candidates
        ]
        return {"chosen": self.chosen.name, "reason": self.reason, "candidates": rows}


def choose(
    prepared: Prepared, displacement_voxel: torch.Tensor, agreement: Agreement, settings: ChoiceSettings
) -> Choice:
    """Let the start, the deformation's rigid part and the deformation compete.

    A candidate can be chosen when its agreement is better than the start's by ``settings.significance`` standard errors
    and by at least ``settings.least_improvement``, which chance alone would not give; the deformation only when it also
    beats the rigid part by as many standard errors and does not fold.

    Parameters
    ----------
    prepared : Prepared
        On the device of ``agreement``.
    displacement_voxel : Tensor, (1, 3, D, H, W)
        What the method found, voxels of the working grid.
    agreement : Agreement
    settings : ChoiceSettings
    """
    inside = prepared.fixed_weight[0, 0] > 0
    rigid = rigid_part(prepared, displacement_voxel)
    deformable, folds = _unfolded(prepared, displacement_voxel, rigid, inside)
    gains = [_gains(agreement, field) for field in (torch.zeros_like(rigid), rigid, deformable)]
    start = Candidate("start", torch.zeros_like(rigid), float(gains[0].sum()), 0.0, 0.0, 0)
    moved = _candidate("rigid", rigid, gains[1], gains[0], agreement, 0)
    bent = _candidate("deformable", deformable, gains[2], gains[0], agreement, folds)
    over_rigid = _candidate("deformable", deformable, gains[2], gains[1], agreement, folds)
    if folds > 0:
        chosen, reason = (moved if _counts(moved, settings) else start), "the deformation folds"
    elif _counts(bent, settings) and over_rigid.significance >= settings.significance:
        chosen, reason = bent, "the deformation agrees clearly better than the start and than a rigid motion"
    elif _counts(moved, settings):
        chosen, reason = (
            moved,
            "a rigid motion agrees clearly better than the start, and a deformation no better than it",
        )
    else:
        chosen, reason = start, "nothing agrees better than the start beyond what chance would give"
    return Choice(chosen, (start, moved, bent), reason)


def rigid_part(prepared: Prepared, displacement_voxel: torch.Tensor) -> torch.Tensor:
    """(1, 3, D, H, W), voxels: the rigid motion nearest to a displacement in the field of view."""
    field = DisplacementField.from_voxel(displacement_voxel.cpu(), prepared.grid)
    matrix = field.nearest_rigid(prepared.fixed_weight[0, 0])
    points = prepared.grid.points_ras()
    moved = points @ matrix[:3, :3].T + matrix[:3, 3] - points
    return DisplacementField(torch.from_numpy(moved), prepared.grid).to_voxel().to(displacement_voxel.device)


def _unfolded(
    prepared: Prepared, displacement: torch.Tensor, rigid: torch.Tensor, inside: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """The displacement, drawn back towards its rigid part as far as it takes not to fold, and the folds left."""
    for factor in _DRAWN_BACK:
        drawn = rigid + factor * (displacement - rigid)
        determinant = DisplacementField.from_voxel(drawn.cpu(), prepared.grid).jacobian_determinant()
        folds = int((determinant[inside.cpu()] <= 0).sum())
        if folds == 0:
            break
    return drawn, folds


@torch.no_grad()
def _gains(agreement: Agreement, displacement_voxel: torch.Tensor) -> torch.Tensor:
    """(1, 1, a, b, c): what each patch adds to the mean gain."""
    gain, share = agreement.gain(agreement.displaced(displacement_voxel))
    return gain * share


def _candidate(
    name: str, displacement: torch.Tensor, gains: torch.Tensor, before: torch.Tensor, agreement: Agreement, folds: int
) -> Candidate:
    """Compare the gains of each patch; the standard error of their sum is that of a sum of independent cubes."""
    difference = _cubes(gains - before, agreement)
    improvement = float((gains - before).sum())
    share = _cubes(agreement.shares(), agreement)
    rest = difference - share * improvement / float(share.sum().clamp(min=1e-12))
    return Candidate(name, displacement, float(gains.sum()), improvement, float(rest.square().sum().sqrt()), folds)


def _cubes(values: torch.Tensor, agreement: Agreement) -> torch.Tensor:
    """Sums over cubes of `_BLOCK_MM`."""
    size = max(round(_BLOCK_MM / agreement.patch_distance_mm), 1)
    padding = [n for length in reversed(values.shape[2:]) for n in (0, -length % size)]
    return F.avg_pool3d(F.pad(values, padding), size) * size**3


def _counts(candidate: Candidate, settings: ChoiceSettings) -> bool:
    return candidate.significance >= settings.significance and candidate.improvement >= settings.least_improvement
