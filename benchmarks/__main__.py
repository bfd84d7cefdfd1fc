"""Run benchmarks by name; without names, all of them.

``accuracy``, ``calibration``, ``discriminability``, ``dns``, ``fuzz``, ``speed`` and ``house`` take options; ``fuzz``
feeds damaged files to every reader and ``house`` compares two checkouts, both on request only, as ``gpu``, which needs
one.  ``status`` lists the results that are older than the code that they measure.
``train-masr-net`` and ``train-brain-unet`` make the weights that the package comes with.
"""

import sys
from collections.abc import Callable

from benchmarks import (
    accuracy,
    bilevel,
    brain,
    brain_training,
    calibration,
    case24,
    discriminability,
    dns,
    fusion,
    fuzz,
    gpu,
    house,
    known_truth,
    landmarks,
    learned,
    patients,
    representation,
    retrieval,
    shift_statistics,
    simulator,
    sizes,
    speed,
    stages,
    status,
)

BENCHMARKS: dict[str, Callable[[], None]] = {
    "accuracy": accuracy.main,
    "case24": case24.main,
    "bilevel": bilevel.main,
    "brain": brain.main,
    "calibration": calibration.main,
    "discriminability": discriminability.main,
    "dns": dns.main,
    "fusion": fusion.main,
    "known-truth": known_truth.main,
    "landmarks": landmarks.main,
    "learned": learned.main,
    "patients": patients.main,
    "retrieval": retrieval.main,
    "shift-statistics": shift_statistics.main,
    "simulator": simulator.main,
    "sizes": sizes.main,
    "speed": speed.main,
    "stages": stages.main,
}


def main() -> int:
    """Run what is named on the command line."""
    with_options = {
        "accuracy": accuracy.main,
        "calibration": calibration.main,
        "discriminability": discriminability.main,
        "dns": dns.main,
        "fuzz": fuzz.main,
        "house": house.main,
        "speed": speed.main,
    }
    if sys.argv[1:2] and sys.argv[1] in with_options:
        with_options[sys.argv[1]](sys.argv[2:])
        return 0
    if sys.argv[1:] == ["status"]:
        return status.main()
    if sys.argv[1:] == ["train-masr-net"]:  # an hour, and no benchmark: only on request
        representation.train_masr_net()
        return 0
    if sys.argv[1:] == ["train-brain-unet"]:  # likewise
        brain_training.train_brain_unet()
        return 0
    if sys.argv[1:] == ["gpu"]:
        return gpu.main()
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"expected names among {', '.join(BENCHMARKS)}; got {', '.join(unknown)}", file=sys.stderr)
        return 2
    for name in names:
        print(f"== {name}", flush=True)
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
