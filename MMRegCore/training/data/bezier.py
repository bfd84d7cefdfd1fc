"""Random non-linear changes of intensity along Bézier curves (Mok et al. 2024, Eqs. 2 and 3)."""

from __future__ import annotations

import torch

# Straight pieces that a curve is made of.
_PIECES = 256


def random_bezier(image: torch.Tensor, generator: torch.Generator, inversion: float = 0.5) -> torch.Tensor:
    """Change intensities along a monotone cubic Bézier curve with random control points, inverted or not.

    An image in [0, 1], of any shape, becomes ``B(I)`` or, as often as ``inversion`` says (δ of Eq. 3), ``B(1 - I)``.
    Equal voxels stay equal, and brighter ones stay brighter, or darker where inverted.
    """
    points = torch.rand(2, 4, generator=generator)
    inverted = float(torch.rand((), generator=generator)) <= inversion
    return bezier(1 - image if inverted else image, points)


def bezier(intensity: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The height of a Bézier curve above each intensity: in [0, 1], any shape.

    Control points (2, n + 1) are (x, y) in [0, 1].  Each row is sorted, which makes the curve monotone, and x is
    stretched to reach from 0 to 1, so that the curve has one height above every intensity.
    """
    points = points.to(intensity.device, torch.float64).sort(dim=1).values
    curve = _bernstein(points.shape[1] - 1, points.device) @ points.T
    x = (curve[:, 0] - curve[0, 0]) / (curve[-1, 0] - curve[0, 0]).clamp(min=1e-12)
    y = curve[:, 1]
    values = intensity.double().clamp(0, 1).contiguous()
    piece = torch.searchsorted(x, values).clamp(1, len(x) - 1)
    fraction = (values - x[piece - 1]) / (x[piece] - x[piece - 1]).clamp(min=1e-12)
    return torch.lerp(y[piece - 1], y[piece], fraction.clamp(0, 1)).to(intensity.dtype)


def _bernstein(degree: int, device: torch.device) -> torch.Tensor:
    """(pieces + 1, degree + 1): the Bernstein polynomials at even steps of t from 0 to 1."""
    t = torch.linspace(0, 1, _PIECES + 1, dtype=torch.float64, device=device)[:, None]
    index = torch.arange(degree + 1, dtype=torch.float64, device=device)
    ways = torch.lgamma(torch.tensor(degree + 1.0)) - torch.lgamma(index + 1) - torch.lgamma(degree - index + 1)
    return ways.exp() * t**index * (1 - t) ** (degree - index)
