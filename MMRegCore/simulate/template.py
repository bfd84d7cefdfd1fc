"""Real anatomy without a download: the MNI152 template in the PyPI package ``nilearn``.

ICBM 152 non-linear symmetric 2009a (Fonov et al., NeuroImage 54, 2011): an average of 152 heads at 1 mm.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from MMRegCore.errors import InputError
from MMRegCore.io.volumes import read_volume
from MMRegCore.simulate.anatomy import Anatomy, anatomy_from_maps, cropped
from MMRegCore.volume import Volume

_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


def load_template() -> Anatomy:
    """The MNI152 T1 image (skull-stripped, 1 mm, RAS mm) and its tissue maps.

    Raises `InputError` when ``nilearn`` is not installed or no longer carries the files.
    """
    t1, grey, white = cropped([_read(name) for name in ("t1", "gm", "wm")])
    brain = (t1.data > 0).float()
    scaled = [volume.with_data(brain * volume.data / 255) for volume in (grey, white)]
    # Normalise where rounding or overlap makes the sum of the maps larger than 1.
    total = (scaled[0].data + scaled[1].data).clamp(min=1)
    grey, white = (volume.with_data(volume.data / total) for volume in scaled)
    csf = Volume((brain - grey.data - white.data).clamp(min=0), t1.grid, name="csf")
    return anatomy_from_maps([t1], white, grey, csf)


def _read(name: str) -> Volume:
    path = _data_folder() / _FILE.format(name)
    if not path.is_file():
        raise InputError(
            f"expected the package nilearn to carry {path.name}; got none in {path.parent}; "
            "reinstall it with: pip install 'mmreg[demo]'"
        )
    return read_volume(path, name=name.upper())


def _data_folder() -> Path:
    # Only located, never imported: importing nilearn takes seconds and needs scikit-learn.
    found = importlib.util.find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "expected the package nilearn, which carries the demo's anatomy; install: pip install 'mmreg[demo]'"
        )
    return Path(found.submodule_search_locations[0]) / "datasets" / "data"
