"""Dense correlation: the cost of every displacement at every voxel, a part of the grid at a time."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F

# Half-width of two 3³ averages in a row.
SMOOTHING_MARGIN = 2

# Products summed at once on a CPU: few enough for a core's cache, enough to share out to threads.
_CPU_BLOCK = 2**17

Part = tuple[slice, slice, slice]


def displacement_candidates(half_width: int, device: torch.device | None = None) -> torch.Tensor:
    """(K, 3), K = (2·half_width + 1)³: every displacement (d, h, w) in grid steps, w fastest."""
    steps = range(-half_width, half_width + 1)
    return torch.tensor(list(product(steps, repeat=3)), dtype=torch.float32, device=device)


def matching_terms(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    fixed_weight: torch.Tensor | None = None,
    moving_weight: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the sum of squared differences as a dot product, keeping only what depends on the displacement.

    With weights w (foreground) the cost of displacement u at x is
    ``w_f(x) · w_m(x+u) · (SSD(x, x+u) − neutral)``: a voxel outside the fixed mask prefers nothing, and a displacement
    that leaves the moving mask is neither better nor worse than an average one.

    Parameters
    ----------
    fixed, moving : Tensor, (1, C, D, H, W)
        Features.
    fixed_weight, moving_weight : Tensor, (1, 1, D, H, W), optional
        In [0, 1]; None counts every voxel, and those outside the image as zero features, as published.

    Returns
    -------
    fixed_terms, moving_terms : Tensor, (C + 1 or C + 2, D, H, W)
    """
    fixed_square = fixed.square().sum(dim=1, keepdim=True)
    moving_square = moving.square().sum(dim=1, keepdim=True)
    if fixed_weight is None and moving_weight is None:
        return torch.cat([fixed, torch.ones_like(fixed_square)], 1)[0], torch.cat([-2 * moving, moving_square], 1)[0]
    weight_f = torch.ones_like(fixed_square) if fixed_weight is None else fixed_weight
    weight_m = torch.ones_like(moving_square) if moving_weight is None else moving_weight
    neutral = _mean_cost(fixed, moving, fixed_square, moving_square, weight_f, weight_m)
    fixed_terms = weight_f * torch.cat([fixed, torch.ones_like(weight_f), fixed_square - neutral], 1)
    moving_terms = weight_m * torch.cat([-2 * moving, moving_square, torch.ones_like(weight_m)], 1)
    return fixed_terms[0], moving_terms[0]


def _mean_cost(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    fixed_square: torch.Tensor,
    moving_square: torch.Tensor,
    weight_f: torch.Tensor,
    weight_m: torch.Tensor,
) -> torch.Tensor:
    """Mean SSD of a random pair of masked voxels."""
    share_f = weight_f / weight_f.sum().clamp(min=1e-12)
    share_m = weight_m / weight_m.sum().clamp(min=1e-12)
    mean_f = (fixed * share_f).sum(dim=(2, 3, 4))
    mean_m = (moving * share_m).sum(dim=(2, 3, 4))
    return (fixed_square * share_f).sum() + (moving_square * share_m).sum() - 2 * (mean_f * mean_m).sum()


def cost_volume(
    fixed_terms: torch.Tensor,
    moving_terms: torch.Tensor,
    part: Part,
    half_width: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """(K, d, h, w): smoothed cost of every displacement for a part of the grid, after two 3³ averages.

    Up to a constant per voxel, in the order of :func:`displacement_candidates`.

    Parameters
    ----------
    fixed_terms, moving_terms : Tensor, (C, D, H, W)
        From :func:`matching_terms`; zero outside the image.
    part : tuple of slice
        The voxels (d, h, w) wanted; parts computed one by one equal the whole.
    half_width : int
        Largest displacement per axis in voxels.
    out : Tensor, (K, d, h, w), float32, optional
        Where to write the result, which need not be contiguous.
    """
    margin = SMOOTHING_MARGIN
    fixed = _crop(fixed_terms, part, margin)
    # The two averages below are sums, so the scale goes in here.
    moving = _crop(moving_terms, part, margin + half_width) / 27**2
    shape = tuple(fixed.shape[1:])
    width = 2 * half_width + 1
    if out is None:
        out = fixed.new_empty((width**3, *(n - 2 * margin for n in shape)))
    # (C, width, D, H, W): moving as seen at every displacement along w, without a copy.
    windows = moving.unfold(3, shape[2], 1).movedim(3, 1)
    total = fixed.new_empty((width, *shape))
    for line, (d, h) in enumerate(product(range(width), repeat=2)):
        _correlate_into(total, fixed, windows[:, :, d : d + shape[0], h : h + shape[1]])
        for w in range(width):
            _smooth_into(out[line * width + w], total[w])
    return out


def _correlate_into(total: torch.Tensor, fixed: torch.Tensor, shifted: torch.Tensor) -> None:
    """Write the sums over the channels of (C, D, H, W) times (C, width, D, H, W)."""
    depth = fixed.shape[1]
    thick = max(_CPU_BLOCK // total[:, 0].numel(), 1) if fixed.device.type == "cpu" else depth
    # All displacements along w together, a few slices at a time: features are fetched once for all of them.
    for here in (slice(start, start + thick) for start in range(0, depth, thick)):
        products = torch.mul(fixed[0, here], shifted[0, :, here], out=total[:, here])
        for channel in range(1, len(fixed)):
            products.addcmul_(fixed[channel, here], shifted[channel, :, here])


def _smooth_into(out: torch.Tensor, volume: torch.Tensor) -> None:
    """Write the sum over a 3³ box of sums over 3³ boxes: (D, H, W) loses 4 voxels per axis."""
    for axis in (2, 2, 1, 1, 0):
        size = volume.shape[axis] - 2
        total = volume.narrow(axis, 0, size) + volume.narrow(axis, 1, size)
        volume = total.add_(volume.narrow(axis, 2, size))
    size = len(out)
    torch.add(volume[:size], volume[1 : size + 1], out=out).add_(volume[2 : size + 2])


def _crop(terms: torch.Tensor, part: Part, margin: int) -> torch.Tensor:
    """The part with ``margin`` around it, zeros outside the image; contiguous."""
    inside = [slice(None)]
    padding: list[int] = []
    for place, size in zip(part, terms.shape[1:], strict=True):
        low, high = place.start - margin, place.stop + margin
        inside.append(slice(max(low, 0), min(high, size)))
        padding = [max(-low, 0), max(high - size, 0), *padding]
    return F.pad(terms[tuple(inside)], padding).contiguous()
