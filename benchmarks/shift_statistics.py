"""How large the shift between MR and ultrasound is in the landmarks of RESECT, and in simulated cases beside them.

Every landmark displacement is taken apart into a translation and a rotation of the whole case and a rest; the rest is
modelled as a smooth random field, correlated as exp(-d² / 2r²), plus the error of setting a landmark. Their sizes and r
maximise the restricted likelihood over all cases, from which the rigid part is projected out.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from benchmarks import record
from MMRegCore.geometry import Array
from MMRegCore.io.landmarks import read_landmark_pairs
from MMRegCore.simulate import BrainShiftSettings, Cone, ConeSettings, Probe, draw_brain_shift

SIMULATED_CASES = 100
LANDMARKS_PER_CASE = 15
# Steps of the search for the most likely model; all mm.
SMOOTH_MM = np.arange(0.0, 1.45, 0.1)
LENGTH_MM = np.array([4, 6, 8, 10, 13, 16, 20, 24, 28, 32, 36, 40, 50], dtype=np.float64)
SETTING_MM = np.arange(0.3, 0.95, 0.05)


def main() -> None:
    """Fit, and write ``results/shift-statistics``."""
    real = [
        (fixed.points_ras, moving.points_ras - fixed.points_ras)
        for fixed, moving in map(read_landmark_pairs, sorted(record.data_folder("resect").glob("*_landmarks_ras.csv")))
    ]
    rows = [statistics("RESECT, before the dura was opened", real)]
    # A landmark cannot be set better in a simulated case than in a real one.
    rows.append(statistics("simulated, with this error of setting", simulated(float(rows[0]["setting mm"]))))
    record.write(
        "shift-statistics",
        rows,
        "Rigid part by least squares on each case's landmarks. The rest: standard deviations per axis and correlation "
        "length by restricted maximum likelihood over all cases; log-likelihood gained over a rest without any "
        "smooth part. Depth: rank correlation of the rest's size with the depth of the landmark below the outermost.",
    )


def simulated(setting_mm: float) -> list[tuple[Array, Array]]:
    """Landmarks (N, 3) and displacements (N, 3) of default shifts, with an error of setting them."""
    settings = BrainShiftSettings()
    # The probe on the right side of a head whose middle is the origin, looking left.
    probe = Probe(np.array([60.0, 0.0, 20.0]), np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]]))
    cases = []
    for seed in range(SIMULATED_CASES):
        random = np.random.default_rng(seed)
        shift = draw_brain_shift(Cone(probe, ConeSettings(), seed), settings, seed=seed)
        cone = Cone(shift.tracked_probe, ConeSettings(), seed)
        points = cone.points_ras(random.uniform(cone.low, cone.high, size=(LANDMARKS_PER_CASE, 3)))
        field = shift.field(cone.grid(3.0))
        index = np.rint((points - field.grid.ras_from_ijk[:3, 3]) @ np.linalg.inv(field.grid.ras_from_ijk[:3, :3]).T)
        i, j, k = index.astype(int).T
        displacement = field.displacement_mm[k, j, i].double().numpy()
        cases.append((points, displacement + setting_mm * random.standard_normal(displacement.shape)))
    return cases


def statistics(name: str, cases: list[tuple[Array, Array]]) -> dict[str, Any]:
    """Take the displacements (N, 3) of landmarks (N, 3) of all cases apart."""
    rigid = [_rigid_fit(points, displacement) for points, displacement in cases]
    translation = np.log([np.linalg.norm(shift) for shift, _, _ in rigid])
    turn_deg = np.degrees([angle for _, angle, _ in rigid])
    likelihood, smooth_mm, length_mm, setting_mm = _most_likely([points for points, _ in cases], rigid)
    depth = np.concatenate([_depth(points) for points, _ in cases])
    rest = np.concatenate([np.linalg.norm(left, axis=1) for _, _, left in rigid])
    mean = [np.linalg.norm(displacement, axis=1).mean() for _, displacement in cases]
    return {
        "cases": f"{name} ({len(cases)})",
        "mean mm": round(float(np.mean(mean)), 2),
        "median of means mm": round(float(np.median(mean)), 2),
        "largest mean mm": round(float(np.max(mean)), 1),
        "translation median mm": round(float(np.exp(translation.mean())), 2),
        "log std": round(float(translation.std(ddof=1)), 2),
        "rotation ° per axis": round(float(np.sqrt((turn_deg**2).mean() / 3)), 2),
        "left after rigid mm": round(float(rest.mean()), 2),
        "smooth mm": round(smooth_mm, 2),
        "length mm": round(length_mm, 1),
        "setting mm": round(setting_mm, 2),
        "log-likelihood gained": round(likelihood, 1),
        "depth": round(_rank_correlation(depth, rest), 2),
    }


def _rigid_fit(points: Array, displacement: Array) -> tuple[Array, float, Array]:
    """Translation (3,) at the centroid, angle in rad, and what is left (N, 3), turned back to the points' frame."""
    a = points - points.mean(axis=0)
    b = a + displacement - displacement.mean(axis=0)
    u, _, vt = np.linalg.svd(a.T @ b)
    rotation = vt.T @ np.diag([1, 1, np.linalg.det(vt.T @ u.T)]) @ u.T
    angle = float(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))
    return displacement.mean(axis=0), angle, b @ rotation - a


def _most_likely(points: list[Array], rigid: list[tuple[Array, float, Array]]) -> tuple[float, float, float, float]:
    """Gain in log-likelihood, standard deviation of the smooth part, its length, that of setting a landmark."""
    cases = [(_distances(p), _rigid_complement(p), left) for p, (_, _, left) in zip(points, rigid, strict=True)]
    totals = {}
    for length in LENGTH_MM:
        # In the eigenvectors of the projected correlation every pair of sizes costs a sum only.
        spectra = [_spectrum(np.exp(-0.5 * (d / length) ** 2), k, left) for d, k, left in cases]
        values, squares = (np.concatenate(part) for part in zip(*spectra, strict=True))
        for smooth, setting in product(SMOOTH_MM, SETTING_MM):
            variance = smooth**2 * values + setting**2
            totals[smooth, length, setting] = -0.5 * float((squares / variance + np.log(variance)).sum())
    best = max(totals, key=totals.__getitem__)
    without = max(value for (smooth, _, _), value in totals.items() if smooth == 0)
    return totals[best] - without, float(best[0]), float(best[1]), float(best[2])


def _spectrum(correlation: Array, complement: Array, left: Array) -> tuple[Array, Array]:
    values, vectors = np.linalg.eigh(complement @ np.kron(correlation, np.eye(3)) @ complement.T)
    return np.maximum(values, 0), (vectors.T @ complement @ left.reshape(-1)) ** 2


def _rigid_complement(points: Array) -> Array:
    """(3N - 6, 3N): an orthonormal basis of all displacements that no small rigid motion explains."""
    from_middle = points - points.mean(axis=0)
    motions = [np.broadcast_to(axis, points.shape) for axis in np.eye(3)]
    motions += [np.cross(axis, from_middle) for axis in np.eye(3)]
    basis, _ = np.linalg.qr(np.stack([m.reshape(-1) for m in motions], axis=1), mode="complete")
    return np.asarray(basis[:, 6:].T)


def _distances(points: Array) -> Array:
    return np.asarray(np.linalg.norm(points[:, None] - points[None], axis=-1))


def _depth(points: Array) -> Array:
    """(N,), mm below the outermost landmark, towards the origin of the MR, which lies within the head."""
    outward = points.mean(axis=0) / np.linalg.norm(points.mean(axis=0))
    return np.asarray((points @ outward).max() - points @ outward)


def _rank_correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])
