"""The numbers under the tables of ``benchmarks``, by hand."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from benchmarks import scores


def row(start_mm, mean_mm, **more):
    return {"start_mm": start_mm, "mean_mm": mean_mm, "p95_mm": 2 * mean_mm, "folds": 1, **more}


def test_summary_by_hand():
    rows = [row(5.0, 1.0), row(5.0, 2.0), row(2.0, 2.05), row(4.0, 6.0)]
    found = scores.summary(rows)
    assert found["mean"] == pytest.approx(11.05 / 4, abs=0.01)
    # Errors of 1, 2, 2.05 and 6: 95 % lies 0.85 of the way from the third to the fourth.
    assert found["95 %"] == pytest.approx(2.05 + 0.85 * 3.95, abs=0.01)
    assert found["worst"] == 6.0
    assert found["cut %"] == pytest.approx(100 * (1 - 11.05 / 16), abs=0.05)
    # 2.05 mm is not 0.1 mm above 2 mm.
    assert found["worse %"] == 25.0
    assert found["≤ 1.8 mm"] == 1
    assert found["folds"] == 4
    assert "seconds" not in found


def test_costs_are_medians_and_the_largest_peak():
    rows = [row(1, 1, seconds=s, cpu_seconds=2 * s, peak_gb=s / 10) for s in (1.0, 2.0, 9.0)]
    assert scores.costs(rows) == {"seconds": 2.0, "CPU seconds": 4.0, "peak GB": 0.9}


def test_area_under_curve_counts_pairs():
    score = np.array([0.1, 0.4, 0.4, 0.9])
    positive = np.array([False, False, True, True])
    # Of four pairs three are ordered rightly and one is a tie.
    assert scores.area_under_curve(score, positive) == pytest.approx(3.5 / 4)
    assert scores.area_under_curve(score, np.zeros(4, dtype=bool)) is None


def test_rank_correlation_sees_order_only():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert scores.rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert scores.rank_correlation(values, -values) == pytest.approx(-1)
    assert scores.rank_correlation(values, np.ones(4)) is None


def test_confidence_pools_voxels_and_judges_verdicts():
    # Within each case the expected error falls as the true one grows; over both cases it grows with it.
    near = [[0.3, 0.1], [0.2, 0.2], [0.1, 0.3]]
    far = [[5.3, 5.1], [5.2, 5.2], [5.1, 5.3]]
    rows = [
        row(5, 0.2, verdict="accept", expected_mm=0.2, expected_and_true_mm=near),
        row(5, 5.2, verdict="reject", expected_mm=5.2, expected_and_true_mm=far),
        row(5, 4.0, verdict="review", expected_mm=4.0, expected_and_true_mm=far),
    ]
    found = scores.confidence(rows)
    assert found["Spearman, within a case (median)"] == -1
    assert found["Spearman, all voxels"] > 0.3
    assert found["AUC of the expected error"] == 1
    assert found["AUC of the verdict"] == 1
    assert found["failures"] == 2
    assert found["accept: failures of cases"] == "0 of 1"


def test_confidence_says_nothing_of_what_rows_do_not_hold():
    assert scores.confidence([row(5, 1), row(5, 4)]) == {"failures": 1}
