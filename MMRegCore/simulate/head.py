"""Whole heads as they leave the scanner: MR with skull and scalp, rendered from a label map; gliomas without edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from MMRegCore.errors import InputError
from MMRegCore.geometry import Array, Grid
from MMRegCore.ops import gaussian_blur
from MMRegCore.resampling import resample, resample_smoothed
from MMRegCore.settings import Settings, setting
from MMRegCore.simulate.anatomy import TISSUES, Anatomy
from MMRegCore.simulate.contrast import mixture
from MMRegCore.simulate.mr import Contrast
from MMRegCore.simulate.noise import random_stream, smooth_noise, smooth_step, white_noise
from MMRegCore.volume import Volume

# Labels around the brain: what FreeSurfer's extended atlas calls the head.
HEAD_LABELS: dict[str, tuple[int, ...]] = {
    "bone": (515,),
    "marrow": (516,),
    "soft": (502, 507, 508, 512, 530),
    "mucosa": (509,),
    "skin": (511,),
    "dura": (514,),
    "eye": (506,),
}
# Relative to the brightest tissue of the brain; soft tissue is a mixture of muscle and fat.
_INTENSITY: dict[str, dict[str, float]] = {
    "t1": {
        "bone": 0.08, "marrow": 0.9, "muscle": 0.5, "fat": 1.3, "mucosa": 0.5, "skin": 0.7, "dura": 0.45, "eye": 0.2,
    },
    "t1c": {
        "bone": 0.08, "marrow": 0.9, "muscle": 0.5, "fat": 1.2, "mucosa": 0.9, "skin": 0.7, "dura": 0.95, "eye": 0.2,
    },
    "t2": {
        "bone": 0.06, "marrow": 0.45, "muscle": 0.25, "fat": 0.7, "mucosa": 0.6, "skin": 0.4, "dura": 0.3, "eye": 1.0,
    },
    "flair": {
        "bone": 0.06, "marrow": 0.4, "muscle": 0.35, "fat": 0.75, "mucosa": 0.6, "skin": 0.4, "dura": 0.4, "eye": 0.15,
    },
}  # fmt: skip
_BRIGHTEST = 1000.0


@dataclass(frozen=True)
class HeadSettings(Settings):
    """The scanner of a rendered head."""

    blur_mm: float = setting(0.6, "Standard deviation of the scanner's point spread.", minimum=0)
    slice_mm: float = setting(1.0, "Distance and thickness of the slices.", minimum=0.5, maximum=10)
    slice_axis: int = setting(2, "Axis of the grid (i, j, k) across the slices.", minimum=0, maximum=2)
    texture: float = setting(0.05, "Standard deviation of intensity within a tissue.", minimum=0)
    texture_mm: float = setting(1.2, "Size of that texture.", minimum=0.1)
    bias: float = setting(0.12, "Standard deviation of the logarithm of the receive field.", minimum=0)
    noise: float = setting(0.02, "Standard deviation of the noise, relative to the brightest tissue.", minimum=0)


def render_head(
    labels: Volume, anatomy: Anatomy, contrast: Contrast, settings: HeadSettings | None = None, *, seed: int = 0
) -> Volume:
    """An MR of a whole head, with skull and scalp, as it leaves the scanner.

    Parameters
    ----------
    labels : Volume, (1, D, H, W)
        Integers; `HEAD_LABELS` says what lies outside the brain.
    anatomy : Anatomy
        Of the same labels: the brain, with its tumour.
    contrast : {'t1', 't1c', 't2', 'flair'}
    settings : HeadSettings, optional
    seed : int
        Of intensities, texture, receive field and noise.

    Returns
    -------
    Volume, (1, D, H, W)
        The box around the head, in slices of ``settings.slice_mm``, named as the contrast in capitals; 0 to some 1300.

    Raises
    ------
    InputError
        When the contrast is not known.
    """
    if contrast not in _INTENSITY:
        raise InputError(f"expected a contrast among {', '.join(_INTENSITY)}; got '{contrast}'")
    settings = settings or HeadSettings()
    around = _head_box(labels)
    grid = around.grid
    brain = anatomy.brain.with_data(torch.cat([mixture(anatomy, contrast)[None], anatomy.brain.data]))
    inner, inside = resample(brain, grid, padding_mode="zeros")
    image = inner + (1 - inside).clamp(min=0) * _outer(around, contrast, seed)
    spacing_dhw = grid.spacing_mm[::-1]

    def smooth(name: str, sigma_mm: float) -> torch.Tensor:
        sigma = (sigma_mm / spacing_dhw).tolist()
        return smooth_noise(grid.shape, sigma, random_stream(seed, f"head {contrast} {name}"))

    image = image * torch.exp(settings.texture * smooth("texture", settings.texture_mm))
    image = image * torch.exp(settings.bias * smooth("bias", 45.0))
    blurred = gaussian_blur(image[None, None], (settings.blur_mm / spacing_dhw).tolist())[0]
    sharp, spacing = Volume(blurred, grid), grid.spacing_mm.copy()
    spacing[settings.slice_axis] = max(settings.slice_mm, float(spacing[settings.slice_axis]))
    sliced = grid.with_spacing(spacing)
    values = blurred if sliced.shape == grid.shape else resample_smoothed(sharp, sliced)
    noise = white_noise((2, *values.shape), random_stream(seed, f"head {contrast} noise")) * settings.noise
    # Magnitude images: noise of two channels, so that air is not zero.
    magnitude = ((values + noise[0]).square() + noise[1].square()).sqrt()
    return Volume((_BRIGHTEST * magnitude).round(), sliced, name=contrast.upper())


def with_glioma(
    anatomy: Anatomy, centre_ras: Sequence[float], radius_mm: float, *, edge_mm: float = 2.5, seed: int = 0
) -> Anatomy:
    """The anatomy with a tumour that has a random outline and no edge: its fraction fades over some ``edge_mm``.

    It replaces tissue, not fluid in the ventricles.
    """
    grid = anatomy.tissues.grid
    distance_mm = np.linalg.norm(grid.points_ras() - np.asarray(centre_ras, dtype=np.float64), axis=-1)
    sigma = (0.45 * radius_mm / grid.spacing_mm[::-1]).tolist()
    outline = smooth_noise(grid.shape, sigma, random_stream(seed, "glioma")).double().numpy()
    inward_mm = torch.from_numpy(radius_mm * (1 + 0.25 * outline) - distance_mm).float()
    share = torch.sigmoid(2 * inward_mm / edge_mm)
    share = torch.where(share > 0.02, share, torch.zeros(()))
    replaced = torch.tensor([float(name != "ventricles") for name in TISSUES]).reshape(-1, 1, 1, 1)
    tissues = anatomy.tissues.data
    return replace(
        anatomy,
        tissues=anatomy.tissues.with_data(tissues * (1 - share * replaced)),
        pia=anatomy.pia.with_data(anatomy.pia.data * (1 - share)),
        tumour=Volume((share * (tissues * replaced).sum(dim=0))[None], grid, name="tumour"),
    )


def with_thin_sulci(anatomy: Anatomy, strength: float = 0.5, *, apart_mm: float = 5.0, seed: int = 0) -> Anatomy:
    """The anatomy with thin curved sheets of fluid, which label maps lack: small sulci and perivascular spaces.

    ``strength`` is the fraction of fluid in the middle of a sheet, ``apart_mm`` the size of its folds.  Both MR and
    ultrasound show them, so that fine detail corresponds as it does in patients.
    """
    grid = anatomy.tissues.grid

    def smooth(name: str, sigma_mm: float) -> torch.Tensor:
        sigma = (sigma_mm / grid.spacing_mm[::-1]).tolist()
        return smooth_noise(grid.shape, sigma, random_stream(seed, f"thin sulci {name}"))

    sheet = torch.exp(-0.5 * (smooth("folds", apart_mm) / 0.12) ** 2)
    sheet = sheet * smooth_step(smooth("patches", apart_mm), -0.5, 0.5)
    solid = anatomy.tissues.data[: TISSUES.index("sulci")]
    share = strength * sheet
    tissues = anatomy.tissues.data.clone()
    tissues[: len(solid)] = solid * (1 - share)
    tissues[len(solid)] += (solid * share).sum(dim=0)
    pia = torch.maximum(anatomy.pia.data, (sheet * solid.sum(dim=0))[None])
    return replace(anatomy, tissues=anatomy.tissues.with_data(tissues), pia=anatomy.pia.with_data(pia))


def _head_box(labels: Volume, margin: int = 4) -> Volume:
    """The labels in a box around the head, with a margin in voxels."""
    inside = torch.nonzero(labels.data[0] > 0)
    low = [max(0, int(v) - margin) for v in inside.min(dim=0).values]
    high = [min(n, int(v) + margin + 1) for v, n in zip(inside.max(dim=0).values, labels.grid.shape, strict=True)]
    shift: Array = np.eye(4)
    shift[:3, 3] = low[::-1]
    grid = Grid((high[0] - low[0], high[1] - low[1], high[2] - low[2]), labels.grid.ras_from_ijk @ shift)
    box = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
    return Volume(labels.data[box].contiguous(), grid)


def _outer(labels: Volume, contrast: Contrast, seed: int) -> torch.Tensor:
    """(D, H, W): intensity of what lies around the brain; 0 in air."""
    level, random = _INTENSITY[contrast], random_stream(seed, f"head {contrast} levels")
    image = torch.zeros(labels.grid.shape)
    for name, numbers in HEAD_LABELS.items():
        where = torch.isin(labels.data[0], torch.tensor(numbers, dtype=labels.data.dtype))
        factor = float(np.exp(0.12 * random.standard_normal()))
        if name == "soft":
            fat = smooth_noise(labels.grid.shape, (3.0, 3.0, 3.0), random_stream(seed, "head fat"))
            share = torch.sigmoid(3 * fat)
            value = level["muscle"] + (level["fat"] - level["muscle"]) * share
            image = torch.where(where, factor * value, image)
        else:
            image = torch.where(where, torch.tensor(factor * level[name]), image)
    return image
