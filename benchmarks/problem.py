"""A registration problem with its answer, as files that any program can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from MMRegCore import DisplacementField, SpatialTransform, Volume, read_volume, write_transform, write_volume
from MMRegCore.geometry import Array
from MMRegCore.resampling import resample

# MR around the ultrasound's grid, so that no shift brings in a place where it has been cut off.
MARGIN_VOXEL = 15


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be registered, and how far from the truth an answer is.

    Attributes
    ----------
    fixed : Volume, (1, D, H, W)
        Its mask is the field of view.
    moving : tuple of Volume
        The first is the one for methods that take only one.
    region : Tensor, (D, H, W), bool
        Where an error of the field counts.
    truth : DisplacementField, optional
        On the fixed grid; None where only landmarks are known.
    points_fixed, points_moving : ndarray, (N, 3), optional
        Corresponding landmarks, RAS mm; the measure where there is no ``truth``.
    start_ras : ndarray, (4, 4)
        Fixed to moving, where every method starts.
    """

    fixed: Volume
    moving: tuple[Volume, ...]
    region: torch.Tensor
    truth: DisplacementField | None
    points_fixed: Array | None
    points_moving: Array | None
    start_ras: Array

    def errors_mm(self, transform: SpatialTransform) -> Array:
        """(N,): distance from the truth at every voxel of the region, or at every landmark."""
        if self.truth is None:
            return np.asarray(np.linalg.norm(transform.apply(self.points_fixed) - self.points_moving, axis=1))
        return self.error_map_mm(transform)[self.region].numpy()

    def error_map_mm(self, transform: SpatialTransform) -> torch.Tensor:
        """(D, H, W): distance from the true displacement."""
        found = transform.displacement_field(self.fixed.grid).displacement_mm
        return (found - self.truth.displacement_mm).norm(dim=-1)

    def write(self, folder: Path) -> None:
        """Write all of it into ``folder``, with a digest of what it holds."""
        folder.mkdir(parents=True)
        write_volume(self.fixed, folder / "fixed.nii.gz")
        write_volume(Volume(self.fixed.mask[None].float(), self.fixed.grid), folder / "cone.nii.gz", dtype="uint8")
        for volume in self.moving:
            write_volume(volume, folder / f"{volume.name}.nii.gz")
            write_volume(self._from_start(volume), folder / f"{volume.name}_from_start.nii.gz")
        write_transform(SpatialTransform.from_matrix(self.start_ras), folder / "start.h5")
        answer = {"region": self.region.numpy(), "start_ras": self.start_ras}
        if self.truth is None:
            answer |= {"points_fixed": self.points_fixed, "points_moving": self.points_moving}
        else:
            answer |= {"displacement_mm": self.truth.displacement_mm.numpy()}
        np.savez_compressed(folder / "answer.npz", **answer)
        arrays = [self.fixed.data.numpy(), *(v.data.numpy() for v in self.moving), *answer.values()]
        content = {"moving": [volume.name for volume in self.moving], "digest": _digest(arrays)}
        # Last, so that a folder with this file is complete.
        (folder / "case.json").write_text(json.dumps(content), encoding="utf-8")

    def _from_start(self, volume: Volume) -> Volume:
        """A moving image on a grid of the fixed image's orientation, brought there by the start."""
        if np.array_equal(self.start_ras, np.eye(4)):
            return volume
        around = self.fixed.grid.padded(MARGIN_VOXEL)
        return Volume(resample(volume, around, self.start_ras, padding_mode="zeros"), around, name=volume.name)

    @classmethod
    def read(cls, folder: Path) -> Problem:
        """What `write` wrote."""
        fixed = read_volume(folder / "fixed.nii.gz", mask_path=folder / "cone.nii.gz")
        moving = tuple(read_volume(path) for path in moving_paths(folder))
        answer = np.load(folder / "answer.npz")
        truth = None
        if "displacement_mm" in answer:
            truth = DisplacementField(torch.from_numpy(answer["displacement_mm"]), fixed.grid)
        points = (answer.get("points_fixed"), answer.get("points_moving"))
        return cls(fixed, moving, torch.from_numpy(answer["region"]), truth, *points, answer["start_ras"])


def moving_paths(folder: Path) -> list[Path]:
    """The moving images of a written problem, in order."""
    names = json.loads((folder / "case.json").read_text(encoding="utf-8"))["moving"]
    return [folder / f"{name}.nii.gz" for name in names]


def digest(folder: Path) -> str:
    """Of everything that a result depends on."""
    return str(json.loads((folder / "case.json").read_text(encoding="utf-8"))["digest"])


def _digest(arrays: Sequence[Array]) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]
