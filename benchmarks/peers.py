"""Other people's registration on a written problem, a process each: NAME FOLDER OUTPUT.

Each has one setting for all cases, near its documentation, on one thread.  Where a choice was open it was tried on one
to three of the simulated cases themselves, so what there is of a bias is in the peers' favour; nothing was searched
beyond that.

- No rigid stages: on open_ms 07, T2, 5 mm, those of ANTs (Mattes MI) and greedy (NMI, WNCC) ended 13 to 17 mm from the
  truth, and elastix did worse with one (17 mm) than without (11 mm).  Where the start is near they can help: greedy's
  took subject 4, T1, 2 mm to 1.6 mm.
- The cone as a mask where that served better: for elastix, not for ANTs; greedy has it untried.

The moving images lie on a grid of the ultrasound's spacing, from the start of the case.  ``OUTPUT`` is the displacement
on the fixed grid, LPS mm, in ITK's direction (fixed to moving).

- ``convexAdam``: its defaults, without masks; the first MR only.
- ``SyN MI``, ``SyN CC`` (antspyx): ``SyNOnly`` with its default iterations 40 × 20 × 0; Mattes MI of 32 bins, or CC of
  radius 2 (4, which is usual, takes more than twice as long: too long for a set on one thread); no mask; every further
  MR as a further metric.
- ``elastix`` (itk-elastix): its default parameter map ``bspline`` (Mattes MI and bending energy, 4 resolutions of 256
  iterations), on a final grid of 20 mm instead of 10, because brain shift is smooth; the cone as mask; the first MR
  only.
- ``greedy`` (picsl-greedy): deformable NMI, 100 × 50 × 10 iterations, smoothed by 4 and 2 voxels: with the 2 and 0.5 of
  its guide, WNCC ended further off; the cone as mask; every MR in a pair of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk


@dataclass(frozen=True)
class Peer:
    """A method of others.

    Attributes
    ----------
    distribution : str
        Its name on PyPI.
    revision : int
        Of its settings here; a new one has the cases measured again.
    run : callable
        Takes the folder of a problem; gives the displacement as an image on the fixed grid.
    """

    distribution: str
    revision: int
    run: Callable[[Path], sitk.Image]

    @property
    def version(self) -> str:
        """What its results depend on, besides the case."""
        return f"{self.distribution} {version(self.distribution)}, settings {self.revision}"


def _moving_paths(folder: Path) -> list[Path]:
    names = json.loads((folder / "case.json").read_text(encoding="utf-8"))["moving"]
    return [folder / f"{name}_from_start.nii.gz" for name in names]


def _convex_adam(folder: Path) -> sitk.Image:
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    fixed = sitk.ReadImage(str(folder / "fixed.nii.gz"), sitk.sitkFloat32)
    moving = sitk.ReadImage(str(_moving_paths(folder)[0]), sitk.sitkFloat32)
    # It wants both images on one grid.
    around = sitk.Resample(fixed, moving, sitk.Transform(), sitk.sitkLinear, 0.0)
    voxels = convex_adam_pt(around, moving, device=torch.device("cpu"))
    # Its components follow the axes of the array.
    to_lps = np.reshape(moving.GetDirection(), (3, 3)) * np.array(moving.GetSpacing())
    image = sitk.GetImageFromArray(voxels[..., ::-1] @ to_lps.T, isVector=True)
    image.CopyInformation(moving)
    return sitk.Resample(image, fixed, sitk.Transform(), sitk.sitkLinear)


def _ants(folder: Path, metric: str, bins_or_radius: int) -> sitk.Image:
    import ants

    fixed = ants.image_read(str(folder / "fixed.nii.gz"))
    moving, *others = (ants.image_read(str(path)) for path in _moving_paths(folder))
    extras = [(metric, fixed, other, 1, bins_or_radius) for other in others]
    with tempfile.TemporaryDirectory() as scratch:
        found = ants.registration(
            fixed,
            moving,
            "SyNOnly",
            initial_transform="identity",
            syn_metric=metric,
            syn_sampling=bins_or_radius,
            multivariate_extras=extras or None,
            random_seed=1,
            outprefix=f"{scratch}/",
        )
        path = ants.apply_transforms(fixed, moving, found["fwdtransforms"], compose=f"{scratch}/all_")
        return sitk.ReadImage(path, sitk.sitkVectorFloat32)


def _elastix(folder: Path) -> sitk.Image:
    import itk

    fixed, moving = (itk.imread(str(p), itk.F) for p in (folder / "fixed.nii.gz", _moving_paths(folder)[0]))
    cone = itk.imread(str(folder / "cone.nii.gz"), itk.UC)
    parameters = itk.ParameterObject.New()
    values = parameters.GetDefaultParameterMap("bspline")
    values["FinalGridSpacingInPhysicalUnits"] = ["20.0"]
    # Eroded at the coarse resolutions, the cone leaves too little to draw samples from.
    values["ErodeMask"] = ["false"]
    values["RandomSeed"] = ["1"]
    values["WriteResultImage"] = ["false"]
    parameters.AddParameterMap(values)
    _, transform = itk.elastix_registration_method(fixed, moving, parameters, fixed_mask=cone)
    with tempfile.TemporaryDirectory() as scratch:
        field = itk.transformix_deformation_field(moving, transform, output_directory=scratch)
        image = sitk.GetImageFromArray(itk.array_from_image(field), isVector=True)
    image.CopyInformation(sitk.ReadImage(str(folder / "fixed.nii.gz")))
    return image


def _greedy(folder: Path) -> sitk.Image:
    from picsl_greedy import Greedy3D

    images = {name: sitk.ReadImage(str(folder / f"{name}.nii.gz"), sitk.sitkFloat32) for name in ("fixed", "cone")}
    pairs = ""
    for number, path in enumerate(_moving_paths(folder)):
        images[f"moving{number}"] = sitk.ReadImage(str(path), sitk.sitkFloat32)
        pairs += f"-i fixed moving{number} "
    greedy = Greedy3D()
    settings = "-gm cone -m NMI -s 4vox 2vox -n 100x50x10 -threads 1"
    greedy.execute(f"{pairs} {settings} -o warp", warp=None, **images)
    greedy.execute("-rf fixed -r warp -threads 1 -rc field", field=None)
    return greedy["field"]


PEERS = {
    "convexAdam": Peer("convexAdam", 1, _convex_adam),
    "SyN MI": Peer("antspyx", 1, lambda folder: _ants(folder, "mattes", 32)),
    "SyN CC": Peer("antspyx", 1, lambda folder: _ants(folder, "CC", 2)),
    "elastix": Peer("itk-elastix", 1, _elastix),
    "greedy": Peer("picsl-greedy", 1, _greedy),
}


if __name__ == "__main__":
    name, problem, output = sys.argv[1:]
    sitk.WriteImage(sitk.Cast(PEERS[name].run(Path(problem)), sitk.sitkVectorFloat32), output)
