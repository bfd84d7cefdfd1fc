"""How like real intraoperative ultrasound the simulated one is: 15 volumes of RESECT beside cases of several brains.

Measured in the cone of every volume, at 0.5 mm: quantiles of the intensity, share of the variance in bands of spatial
frequency, strength of the gradient; and LC² with the MR, at half resolution, patches of 9³: at the true pose and at the
start, where an MR lies on the ultrasound.  Simulated slices and the curves of both go into ``docs/simulator.png``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import record
from MMRegCore import read_volume
from MMRegCore.ops import box_mean, warp
from MMRegCore.resampling import resample
from MMRegCore.similarity.lc2 import Lc2, explained_variance
from MMRegCore.simulate import BrainShiftSettings, SimulatedCase, anatomy_from_mr, load_template, simulate
from MMRegCore.volume import Volume

SPACING_MM = 0.5
MEAN_SHIFT_MM = 5.0
# From the middle of the brain to the craniotomy, RAS; the tumour says where it is in a patient who has one.
SITES: dict[str, list[tuple[float, float, float] | None]] = {
    "MNI152": [(0.95, 0.2, 0.1), (-0.6, 0.4, 0.7)],
    "open_ms 07": [(0.9, 0.2, 0.3), (-0.5, -0.5, 0.8)],
    "open_ms 19": [(0.7, 0.5, 0.5), (-0.9, 0.1, 0.3)],
    "tcga_fg6692": [None, None],
}
# Lower ends of the bands of spatial frequency, cycles per mm; the last one ends where 0.5 mm voxels do.
BANDS_PER_MM = (0.03, 0.1, 0.2, 0.4)
HIGHEST_PER_MM = 1.0
PICTURE = record.ROOT / "docs" / "simulator.png"


def main() -> None:
    """Measure, and write ``results/simulator`` and the picture of the documentation."""
    real = [(f"real {path.name.split('_')[0]}", read_volume(path)) for path in _real_paths()]
    simulated = list(cases())
    rows = [_row(name, volume) for name, volume in real]
    rows[0] |= {f"LC² {name}": value for name, value in _case24_lc2(real[0][1]).items()}
    for name, case in simulated:
        t1 = resample(case.moving[0], case.fixed.grid)[None]
        at_truth = warp(t1, case.truth.to_voxel())
        scores = {"LC² truth": _explained(case.fixed, at_truth), "LC² start": _explained(case.fixed, t1)}
        rows.append(_row(f"simulated {name}", case.fixed) | scores)
    rows += [_mean(kind, rows) for kind in ("real", "simulated")]
    record.write(
        "simulator",
        rows,
        f"Cone at {SPACING_MM} mm. Intensity quantiles 0 to 255; bands: share of the variance by spatial frequency in "
        "cycles per mm; gradient: mean length over the standard deviation, per mm; kurtosis of the gradient's "
        "component. LC² with T1 at half resolution, 9³ patches; simulated cases have a mean shift of "
        f"{MEAN_SHIFT_MM:g} mm; Case 24 lies where its MR was put by the tracking, 1.1 mm from the landmarks.",
    )
    draw([volume for _, volume in real], simulated)


def cases() -> Iterator[tuple[str, SimulatedCase]]:
    """Simulated cases with default settings and one mean shift."""
    open_ms, tcga = record.data_folder("open_ms"), record.data_folder("tcga_fg6692")
    anatomies = {
        "MNI152": load_template(),
        "open_ms 07": anatomy_from_mr([read_volume(open_ms / "patient07_T1.nii.gz")]),
        "open_ms 19": anatomy_from_mr([read_volume(open_ms / "patient19_T1.nii.gz")]),
        "tcga_fg6692": anatomy_from_mr(
            [read_volume(tcga / "t1.nii.gz")], tumour=read_volume(tcga / "tumour_auto.nii.gz")
        ),
    }
    shift = BrainShiftSettings(mean_mm=MEAN_SHIFT_MM)
    pairs = [(brain, site) for brain, sites in SITES.items() for site in sites]
    for seed, (brain, site) in enumerate(pairs):
        case = simulate(anatomies[brain], entry_direction_ras=site, spacing_mm=SPACING_MM, shift=shift, seed=seed)
        yield f"{brain}, seed {seed}", case


def _real_paths() -> list[Any]:
    paths = record.data_folder("resect").glob("Case*_US_0.5mm.nii.gz")
    number = {path: int(path.name.split("_")[0].removeprefix("Case")) for path in paths}
    # Case 24, the one with an MR, first.
    return sorted(number, key=lambda path: (number[path] != 24, number[path]))


def _case24_lc2(ultrasound: Volume) -> dict[str, float]:
    t1 = read_volume(record.data_folder("resect") / "Case24_T1_0.5mm.nii.gz")
    return {"start": _explained(ultrasound, resample(t1, ultrasound.grid)[None])}


def _explained(fixed: Volume, moving: torch.Tensor) -> float:
    """LC² as published: the explained fraction, averaged with each patch's standard deviation for weight."""
    mask = (F.avg_pool3d((fixed.data > 0).float()[None], 2) > 0.99).float()
    measure = Lc2(half_width=4, stride=1)
    image = measure.encode_fixed(F.avg_pool3d(fixed.data[None], 2), mask)
    regressors = measure.encode_moving(F.avg_pool3d(moving, 2), mask)
    fraction, support = explained_variance(image, regressors, mask, half_width=4)
    mean, square = (box_mean(mask * power, 4) / support.clamp(min=1e-6) for power in (image, image.square()))
    weight = (square - mean.square()).clamp(min=0).sqrt() * support
    return round(float((fraction * weight).sum() / weight.sum()), 3)


def _row(name: str, volume: Volume) -> dict[str, Any]:
    values = volume.data[0]
    inside = values > 0
    quantiles = np.percentile(values[inside].numpy(), [5, 50, 95, 99])
    deep = F.avg_pool3d(inside.float()[None, None], 3, 1, 1)[0, 0] > 0.999
    slopes = torch.stack(torch.gradient(values))[:, deep] / SPACING_MM
    frequency, power = spectrum(values, inside)
    edges = (*BANDS_PER_MM, HIGHEST_PER_MM)
    energy = power * frequency**2
    shares = [energy[(frequency >= a) & (frequency < b)].sum() / energy.sum() for a, b in pairwise(edges)]
    return {
        "volume": name,
        **{f"{q} %": round(float(v)) for q, v in zip((5, 50, 95, 99), quantiles, strict=True)},
        **{f"{a:g}–{b:g}": round(float(share), 2) for (a, b), share in zip(pairwise(edges), shares, strict=True)},
        "gradient": round(float(slopes.norm(dim=0).mean() / values[inside].std()), 2),
        "kurtosis": round(float((slopes**4).mean() / (slopes**2).mean() ** 2), 1),
    }


def spectrum(values: torch.Tensor, inside: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Frequency in cycles per mm and mean power in shells of it, of an image in a cone with a soft edge."""
    window = F.avg_pool3d(inside.float()[None, None], 9, 1, 4)[0, 0] * inside
    centred = (values - values[inside].mean()) * window
    power = torch.fft.fftn(centred).abs().square() / window.square().sum()
    radius = torch.stack(torch.meshgrid(*(torch.fft.fftfreq(n, SPACING_MM) for n in values.shape), indexing="ij")).norm(
        dim=0
    )
    edges = np.arange(BANDS_PER_MM[0], HIGHEST_PER_MM, 0.02)
    shell = torch.bucketize(radius, torch.from_numpy(edges).float())
    total = torch.bincount(shell.flatten(), power.flatten().double())
    count = torch.bincount(shell.flatten()).clamp(min=1)
    return (edges[:-1] + edges[1:]) / 2, (total / count)[1 : len(edges)].numpy()


def _mean(kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    chosen = [row for row in rows if row["volume"].startswith(kind)]
    columns = [key for row in chosen for key in row if key != "volume"]
    values = {key: [row[key] for row in chosen if key in row] for key in dict.fromkeys(columns)}
    return {"volume": f"mean of {kind}"} | {key: round(float(np.mean(found)), 2) for key, found in values.items()}


def draw(real: list[Volume], simulated: list[tuple[str, SimulatedCase]]) -> None:
    """Simulated slices above the histograms and spectra of both kinds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(10, 7.2))
    for column, (name, case) in enumerate(simulated[::2]):
        for row, axis in enumerate((0, 2)):
            panel = figure.add_subplot(3, 4, 1 + column + 4 * row)
            values = case.fixed.data[0].numpy()
            panel.imshow(np.take(values, values.shape[axis] // 2, axis=axis), cmap="gray", vmin=0, vmax=130)
            panel.axis("off")
            if row == 0:
                panel.set_title(f"simulated\n{name}", fontsize=8)
    histogram, power = figure.add_subplot(3, 2, 5), figure.add_subplot(3, 2, 6)
    volumes = [("C0", "real", v) for v in real] + [("C3", "simulated", case.fixed) for _, case in simulated]
    labelled = set()
    for colour, kind, volume in volumes:
        values = volume.data[0]
        label = None if kind in labelled else kind
        labelled.add(kind)
        # Bins two wide, so that each holds as many of the whole numbers.
        counts, edges = np.histogram(values[values > 0].numpy(), bins=80, range=(0, 160), density=True)
        histogram.plot(edges[:-1], counts, colour, lw=0.7, label=label)
        frequency, shells = spectrum(values, values > 0)
        power.loglog(frequency, shells / shells.sum(), colour, lw=0.7)
    histogram.set(xlabel="intensity in the cone", yticks=[])
    power.set(xlabel="spatial frequency, cycles per mm", ylabel="relative power")
    histogram.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=72)
    plt.close(figure)
