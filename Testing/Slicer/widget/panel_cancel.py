"""Cancel at ten random moments: while Python starts, while torch is imported, while it computes, while it writes."""

import random
import time

import pytest

MOMENTS_S = [random.Random(seed).uniform(0, 3) for seed in range(10)]


@pytest.mark.parametrize("moment_s", MOMENTS_S)
def test_cancel_at_any_moment_leaves_nothing(opened, case, moment_s):
    run = opened.register()
    end = time.monotonic() + moment_s
    opened.wait(lambda: time.monotonic() > end or not run.is_running)
    if run.is_running:
        began = time.monotonic()
        opened.ui.cancelButton.click()
        assert time.monotonic() - began < 1
        assert opened.ui.statusLabel.text() == "Registration cancelled. The scene was not changed."
        opened.assert_nothing_left()
        assert case.unchanged()
        assert opened.ui.registerButton.isVisible()
    else:
        assert opened.ui.resultSection.isVisible()
