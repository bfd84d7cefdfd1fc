"""Two figures of the paper, remade: where a descriptor finds its match, and how the cost rises with a rotation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks import record
from benchmarks.dns_descriptors import methods, subject_pair
from benchmarks.subjects import subjects
from MMRegCore.ops import identity_positions, rotation_matrix, sample
from MMRegCore.prepare import Prepared
from MMRegCore.similarity.nmi import Nmi
from MMRegCore.volume import Channel

ANGLES_DEG = (-20.0, -15.0, -10.0, -6.0, -3.0, 0.0, 3.0, 6.0, 10.0, 15.0, 20.0)
AXES = {"left-right": (1.0, 0.0, 0.0), "down-up": (0.0, 0.0, 1.0)}
_DPI = 110


def similarity() -> None:
    """``docs/dns-similarity.png``: similarity of every point of a T2 to one point of the T1 (the paper's Fig. 4)."""
    subject = subjects("test")[0]
    prepared = subject_pair(subject, subject, ("t1", "t2"))
    d, h, w = point = _middle_of(subject.labels.data[0], 17)
    images = [
        ("T1, the point", prepared.fixed.image[0, 0, d], "gray"),
        ("T2", prepared.moving[0].image[0, 0, d], "gray"),
    ]
    for name, kind in methods().items():
        one, two = kind.smoothed(prepared.fixed), kind.smoothed(prepared.moving[0])
        here = one[(slice(None), slice(None), *point)][..., None, None]
        like = torch.nn.functional.cosine_similarity(here, two[:, :, d], dim=1)[0]
        if not kind.unit:  # MIND is compared by distance
            like = -(here - two[:, :, d]).square().sum(dim=1)[0]
        images.append((name, like, "inferno"))
    brain = (subject.labels.data[0, d] > 0).numpy()
    figure = Figure(figsize=(2.2 * len(images), 2.9), layout="constrained")
    for axes, (title, values, colours) in zip(figure.subplots(1, len(images)), images, strict=True):
        shown = np.where(brain, values.numpy(), np.nan)
        axes.imshow(shown, origin="lower", cmap=colours, vmin=np.nanpercentile(shown, 5), vmax=np.nanmax(shown))
        axes.plot(w, h, "o", markersize=9, markerfacecolor="none", markeredgecolor="cyan", markeredgewidth=1.5)
        axes.set_title(title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("black")
    figure.savefig(record.ROOT / "docs" / "dns-similarity.png", dpi=_DPI)


def landscape() -> None:
    """``docs/dns-landscape.png`` and ``results/dns-landscape``: cost of a T2 turned over its T1 (paper, Fig. 13)."""
    subject = subjects("test")[0]
    prepared = subject_pair(subject, subject, ("t1", "t2"))
    inside = (subject.labels.data[None] > 0).expand_as(prepared.fixed.image)
    costs = _costs(prepared, inside)
    rows, curves = [], {}
    for axis, direction in AXES.items():
        turned = {angle: _turned(prepared.moving[0].image, direction, angle) for angle in ANGLES_DEG}
        for name, cost in costs.items():
            values = np.array([cost(image) for image in turned.values()])
            curves[axis, name] = (values - values.min()) / (values.max() - values.min())
            rows.append({"axis": axis, "cost": name, **_judged(values)})
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, axis in zip(figure.subplots(1, len(AXES), sharey=True), AXES, strict=True):
        for name in costs:
            axes.plot(ANGLES_DEG, curves[axis, name], "o-", markersize=3, label=name)
        axes.set_xlabel(f"rotation about the axis {axis} [°]")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("cost, from its least to its largest")
    figure.axes[0].legend()
    figure.savefig(record.ROOT / "docs" / "dns-landscape.png", dpi=_DPI)
    record.write(
        "dns-landscape",
        rows,
        f"Cost of a T2 turned by {', '.join(f'{a:g}' for a in ANGLES_DEG)}° over the T1 of the same subject, over the "
        "brain: minus normalised mutual information; squared difference of MIND-SSC; negated cosine similarity of the "
        "descriptors. 'monotone': rising with every step away from 0° on both sides; 'rise at 3°': of the whole rise.",
        "dns landscape",
    )


def _costs(prepared: Prepared, inside: torch.Tensor) -> dict[str, Callable[[torch.Tensor], float]]:
    found: dict[str, Callable[[torch.Tensor], float]] = {
        "NMI": lambda image: -float(Nmi(window_bins=0).mean(prepared.fixed.image, image, inside))
    }
    everywhere = torch.ones_like(prepared.fixed.image)
    for name, kind in methods().items():
        if name not in ("MIND", "DNS"):
            continue
        # Compared as a whole image is: the edge of the brain counts on both sides.
        fixed = kind.smoothed(Channel(prepared.fixed.image, everywhere))

        def cost(image: torch.Tensor, kind=kind, fixed=fixed) -> float:  # noqa: ANN001
            moving = kind.smoothed(Channel(image, everywhere))
            if kind.unit:
                return -float(torch.nn.functional.cosine_similarity(fixed, moving, dim=1)[inside[:, 0]].mean())
            return float((fixed - moving).square().sum(dim=1)[inside[:, 0]].mean())

        found[name] = cost
    return found


def _turned(image: torch.Tensor, direction: tuple[float, float, float], degrees: float) -> torch.Tensor:
    """An image about its middle; the grid's axes (d, h, w) run along S, A and R."""
    shape = tuple(image.shape[2:])
    middle = ((torch.tensor(shape) - 1) / 2).reshape(3, 1, 1, 1)
    matrix = torch.from_numpy(rotation_matrix(np.radians(degrees) * np.array(direction))).float().flip(0, 1)
    centred = identity_positions(shape) - middle
    return sample(image, torch.einsum("ij,bjdhw->bidhw", matrix, centred) + middle, padding_mode="zeros")


def _judged(values: np.ndarray) -> dict[str, object]:
    middle = int(np.argmin(np.abs(ANGLES_DEG)))
    left, right = values[middle::-1], values[middle:]
    rise = (values[middle - 1] + values[middle + 1]) / 2 - values[middle]
    return {
        "least at [°]": ANGLES_DEG[int(values.argmin())],
        "monotone": "yes" if bool((np.diff(left) > 0).all() and (np.diff(right) > 0).all()) else "no",
        "rise at 3° [%]": round(100 * float(rise / (values.max() - values.min())), 1),
    }


def _middle_of(labels: torch.Tensor, number: int) -> tuple[int, int, int]:
    """The voxel of a structure nearest to its middle."""
    index = (labels == number).nonzero()
    nearest = index[(index - index.float().mean(dim=0)).norm(dim=1).argmin()]
    d, h, w = nearest.tolist()
    return d, h, w
