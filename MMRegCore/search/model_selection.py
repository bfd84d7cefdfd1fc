"""Do no harm: initial transform, rigid and deformed result are compared; an improvement counts only if significant."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from MMRegCore.displacement import DisplacementField
from MMRegCore.ops import jacobian_determinant
from MMRegCore.prepare import Prepared
from MMRegCore.search.sampled import SampledSimilarity
from MMRegCore.search.selection import Candidate, Kind, ModelSelection
from MMRegCore.search.settings import ModelSelectionSettings

# The similarity is correlated over some millimetres: cubes of this size are taken for independent of each other.
_BLOCK_MM = 10.0
# A deformation that folds is shrunk toward its rigid part by these factors until it does not.
_SHRINKAGE = (1.0, 0.8, 0.6, 0.4)


def select_model(
    prepared: Prepared, displacement_voxel: torch.Tensor, sampled: SampledSimilarity, settings: ModelSelectionSettings
) -> tuple[torch.Tensor, ModelSelection]:
    """Select among the initial transform, the deformation's rigid part, and the deformation.

    A candidate can be selected when its similarity is better than the initial one by ``settings.significance`` standard
    errors and by at least ``settings.least_improvement``, which chance alone would not give; the deformation only when
    it also beats the rigid part by as many standard errors and does not fold.

    Parameters
    ----------
    prepared : Prepared
    displacement_voxel : Tensor, (1, 3, D, H, W)
        What the method found, voxels of the working grid.
    sampled : SampledSimilarity
    settings : ModelSelectionSettings

    Returns
    -------
    displacement_voxel : Tensor, (1, 3, D, H, W)
        That of the selected candidate.
    selection : ModelSelection
    """
    rigid = rigid_part(prepared, displacement_voxel)
    deformed, folds = _unfolded(prepared, displacement_voxel, rigid)
    fields: dict[Kind, torch.Tensor] = {"initial": torch.zeros_like(rigid), "rigid": rigid, "deformed": deformed}
    values = {name: local_values(sampled, sampled.displaced(field)) for name, field in fields.items()}
    candidates = {
        name: _candidate(name, values[name], values["initial"], sampled, folds if name == "deformed" else 0)
        for name in fields
    }
    over_rigid = _candidate("deformed", values["deformed"], values["rigid"], sampled, folds)
    rigid_counts = _is_better(candidates["rigid"], settings)
    deformed_counts = _is_better(candidates["deformed"], settings) and over_rigid.significance >= settings.significance
    selected: Kind = "deformed" if deformed_counts and not folds else "rigid" if rigid_counts else "initial"
    selection = ModelSelection(selected, _reason(selected, folds), tuple(candidates.values()))
    return fields[selected], selection


def rigid_part(prepared: Prepared, displacement_voxel: torch.Tensor) -> torch.Tensor:
    """(1, 3, D, H, W), voxels: the rigid motion nearest to a displacement in the field of view."""
    field = DisplacementField.from_voxel(displacement_voxel.cpu(), prepared.grid)
    matrix = field.nearest_rigid(prepared.fixed.weight[0, 0])
    return DisplacementField.from_linear(matrix, prepared.grid).to_voxel().to(displacement_voxel.device)


def _reason(selected: Kind, folds: int) -> str:
    if folds:
        return "the deformation folds (negative Jacobian determinant)"
    return {
        "deformed": "the deformation is significantly more similar than the initial transform and a rigid motion",
        "rigid": "a rigid motion is significantly more similar than the initial transform, a deformation not more so",
        "initial": "nothing is more similar than the initial transform beyond what chance gives",
    }[selected]


def _unfolded(prepared: Prepared, displacement: torch.Tensor, rigid: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The displacement, shrunk toward its rigid part as far as it takes not to fold, and the folds left."""
    inside = prepared.fixed.weight[0] > 0
    for factor in _SHRINKAGE:
        shrunk = rigid + factor * (displacement - rigid)
        folds = int((jacobian_determinant(shrunk)[inside] <= 0).sum())
        if folds == 0:
            break
    return shrunk, folds


@torch.no_grad()
def local_values(sampled: SampledSimilarity, points: torch.Tensor) -> torch.Tensor:
    """(1, 1, a, b, c): what each place adds to the mean similarity when the samples are at points (N, 3)."""
    value, share = sampled.at(points)
    return value * share


def improvement_of(values: torch.Tensor, before: torch.Tensor, sampled: SampledSimilarity) -> tuple[float, float]:
    """By how much `local_values` are better than others, and its standard error: that of a sum of independent cubes."""
    difference, share = (_cubes(each, sampled) for each in (values - before, sampled.shares()))
    improvement = float((values - before).sum())
    rest = difference - share * improvement / float(share.sum().clamp(min=1e-12))
    return improvement, max(float(rest.square().sum().sqrt()), 1e-12)


def _candidate(
    name: Kind, values: torch.Tensor, before: torch.Tensor, sampled: SampledSimilarity, folds: int
) -> Candidate:
    improvement, error = improvement_of(values, before, sampled)
    return Candidate(name, float(values.sum()), improvement, error, improvement / error, folds)


def _cubes(values: torch.Tensor, sampled: SampledSimilarity) -> torch.Tensor:
    """Sums over cubes of `_BLOCK_MM`."""
    size = max(round(_BLOCK_MM / sampled.patch_spacing_mm), 1)
    padding = [n for length in reversed(values.shape[2:]) for n in (0, -length % size)]
    return F.avg_pool3d(F.pad(values, padding), size) * size**3


def _is_better(candidate: Candidate, settings: ModelSelectionSettings) -> bool:
    return candidate.significance >= settings.significance and candidate.improvement >= settings.least_improvement
