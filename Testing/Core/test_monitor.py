import threading

import pytest

from MMRegCore.errors import Cancelled
from MMRegCore.monitor import Monitor


def test_parts_map_onto_their_share_and_carry_their_label():
    reported: list[tuple[str, float]] = []
    monitor = Monitor(lambda stage, fraction: reported.append((stage, fraction)))
    part = monitor.part(0.2, 0.6, "T1")
    part.report("levels", 0.5)
    part.part(0.5, 1.0, "Adam").report("step", 1.0)
    monitor.part(0.6, 1.0).report("report", 0.0)
    assert reported == [
        ("T1: levels", pytest.approx(0.4)),
        ("T1: Adam: step", pytest.approx(0.6)),
        ("report", pytest.approx(0.6)),
    ]


def test_fractions_stay_between_zero_and_one():
    reported: list[float] = []
    monitor = Monitor(lambda _, fraction: reported.append(fraction))
    monitor.report("a", -1)
    monitor.report("b", 7)
    monitor.part(0.0, 0.5).report("c", 3)
    assert reported == [0.0, 1.0, 0.5]


def test_without_a_listener_it_is_silent():
    Monitor().report("anything", 0.3)


def test_cancel_stops_at_the_next_report_wherever_it_is_called():
    for canceller in (lambda m, p: m.cancel(), lambda m, p: p.cancel()):
        monitor = Monitor()
        part = monitor.part(0, 1)
        part.report("before", 0.1)
        thread = threading.Thread(target=canceller, args=(monitor, part))
        thread.start()
        thread.join()
        with pytest.raises(Cancelled):
            part.report("after", 0.2)
        with pytest.raises(Cancelled):
            monitor.report("after", 0.2)
