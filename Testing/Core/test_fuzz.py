"""A short fuzzing of every reader; ``python -m benchmarks fuzz`` is the long one."""

import pytest

from benchmarks.fuzz import Hunt
from benchmarks.fuzz_inputs import readers

NAMES = (
    "nifti",
    "nrrd",
    "metaimage",
    "other images",
    "dicom",
    "hdf5 transforms",
    "matlab transforms",
    "text transforms",
    "displacement fields",
    "landmarks",
    "landmark pairs",
    "markups",
    "segmentations",
)


def test_all_readers_are_hunted(tmp_path):
    assert tuple(readers(tmp_path)) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_refused_in_one_line(tmp_path, name):
    (tmp_path / "samples").mkdir()
    (tmp_path / "damaged").mkdir()
    hunt = Hunt(readers(tmp_path / "samples")[name], tmp_path / "damaged")
    hunt.run(5 if name == "hdf5 transforms" else 40)
    assert hunt.findings == {}
    assert 0 < hunt.read < hunt.inputs
