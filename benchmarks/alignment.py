"""Images of one head that are not quite aligned, brought onto each other: a truth must not be off by itself."""

from __future__ import annotations

import SimpleITK as sitk

from MMRegCore import Volume
from MMRegCore.io.volumes import itk_image, volume_from_itk


def aligned(moving: Volume, fixed: Volume) -> Volume:
    """An image (1, D, H, W) resampled onto another's grid after a rigid registration by mutual information.

    SimpleITK's, not MMReg's: what is measured must not make its own truth.
    """
    reference, image = itk_image(fixed), itk_image(moving)
    registration = sitk.ImageRegistrationMethod()
    registration.SetMetricAsMattesMutualInformation(50)
    registration.SetMetricFixedMask(sitk.BinaryDilate(reference > 0, [2] * 3))
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetOptimizerAsRegularStepGradientDescent(0.5, 1e-4, 100)
    registration.SetOptimizerScalesFromPhysicalShift()
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(reference.TransformContinuousIndexToPhysicalPoint([n / 2 for n in reference.GetSize()]))
    registration.SetInitialTransform(rigid, inPlace=True)
    registration.Execute(reference, image)
    return volume_from_itk(sitk.Resample(image, reference, rigid, sitk.sitkLinear, 0.0), name=moving.name)
