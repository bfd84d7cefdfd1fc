"""What a set of measured rows comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu, spearmanr

# More than this is worse than the start; more than that is a failure.
WORSE_MM, FAILURE_MM = 0.1, 3.0
LEVELS = {"accept": 0, "review": 1, "reject": 2}

Row = Mapping[str, Any]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Errors (the mean of each case, mm) over the cases of a method, and what they cost."""
    ended = np.array([row["mean_mm"] for row in rows])
    started = np.array([row["start_mm"] for row in rows])
    return {
        "cases": len(rows),
        "mean": round(float(ended.mean()), 2),
        "median": round(float(np.median(ended)), 2),
        "95 %": round(float(np.percentile(ended, 95)), 2),
        "worst": round(float(ended.max()), 2),
        "cut %": round(100 * (1 - float(ended.mean() / started.mean())), 1),
        "worse %": round(100 * float((ended > started + WORSE_MM).mean()), 1),
        "≤ 1.8 mm": int((ended <= 1.8).sum()),
        "within case 95 %": round(float(np.mean([row["p95_mm"] for row in rows])), 2),
        "folds": sum(row["folds"] for row in rows),
        **costs(rows),
    }


def costs(rows: Sequence[Row]) -> dict[str, Any]:
    """Medians of time and the largest peak of memory; nothing where nothing was run."""
    if any(row.get("seconds") is None for row in rows):
        return {}
    return {
        "seconds": round(float(np.median([row["seconds"] for row in rows])), 1),
        "CPU seconds": round(float(np.median([row["cpu_seconds"] for row in rows])), 1),
        "peak GB": round(max(row["peak_gb"] for row in rows), 2),
    }


def confidence(rows: Sequence[Row]) -> dict[str, Any]:
    """How well the expected error and the verdict of a method tell its true error; only what its rows hold."""
    found: dict[str, Any] = {}
    sampled = [row["expected_and_true_mm"] for row in rows if row.get("expected_and_true_mm")]
    if sampled:
        within = [rank_correlation(*np.transpose(pairs)) for pairs in sampled]
        pooled = rank_correlation(*np.transpose(np.concatenate(sampled)))
        found["Spearman, all voxels"] = _rounded(pooled)
        known = [value for value in within if value is not None]
        found["Spearman, within a case (median)"] = _rounded(float(np.median(known)) if known else None)
    failed = np.array([row["mean_mm"] > FAILURE_MM for row in rows])
    found["failures"] = int(failed.sum())
    expected = [row.get("expected_mm") for row in rows]
    if all(value is not None for value in expected):
        ended = [row["mean_mm"] for row in rows]
        found["Spearman, cases"] = _rounded(rank_correlation(np.array(expected), np.array(ended)))
        found["AUC of the expected error"] = _rounded(area_under_curve(np.array(expected), failed))
    levels = [LEVELS.get(str(row.get("verdict"))) for row in rows]
    if all(level is not None for level in levels):
        found["AUC of the verdict"] = _rounded(area_under_curve(np.array(levels, dtype=float), failed))
        for name, level in LEVELS.items():
            these = failed[np.array(levels) == level]
            found[f"{name}: failures of cases"] = f"{int(these.sum())} of {len(these)}"
    return found


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's correlation; None where one of the two is constant or has fewer than three values."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)


def area_under_curve(score: np.ndarray, positive: np.ndarray) -> float | None:
    """Chance that a positive has the larger score, equal ones counted half; None without positives or negatives."""
    if positive.all() or not positive.any():
        return None
    statistic = mannwhitneyu(score[positive], score[~positive]).statistic
    return float(statistic) / (int(positive.sum()) * int((~positive).sum()))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
