import numpy as np
import pytest
import torch

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.volume import Channel, Volume, distinctly_named

GRID = Grid((2, 3, 4), np.eye(4))


def test_data_becomes_float_and_mask_bool():
    volume = Volume(torch.ones(1, 2, 3, 4, dtype=torch.int16), GRID, torch.ones(2, 3, 4, dtype=torch.uint8))
    assert volume.data.dtype == torch.float32
    assert volume.mask is not None
    assert volume.mask.dtype == torch.bool


@pytest.mark.parametrize(
    ("shape", "error"), [((2, 3, 4), InputError), ((1, 4, 3, 2), GeometryError), ((1, 1, 2, 3, 4), InputError)]
)
def test_wrong_shapes_are_refused(shape, error):
    with pytest.raises(error, match="expected 'us'"):
        Volume(torch.zeros(shape), GRID, name="us")


def test_mask_must_fill_the_grid():
    with pytest.raises(GeometryError, match="mask of 'us'"):
        Volume(torch.zeros(1, 2, 3, 4), GRID, torch.ones(4, 3, 2), name="us")


def test_copies_leave_the_original_alone():
    volume = Volume(torch.zeros(1, 2, 3, 4), GRID, name="us")
    other = volume.with_mask(torch.ones(2, 3, 4)).with_data(torch.ones(1, 2, 3, 4))
    assert volume.mask is None
    assert float(volume.data.sum()) == 0
    assert other.name == "us"
    assert other.mask is not None
    assert float(other.data.sum()) == 24


def test_names_become_distinct() -> None:
    grid = Grid((2, 2, 2), np.eye(4))
    volumes = [Volume(torch.zeros(1, 2, 2, 2), grid, name=name) for name in ("t1", "T1", "t1_2", "flair", "t1")]
    assert [v.name for v in distinctly_named(volumes)] == ["t1", "T1_2", "t1_2_2", "flair", "t1_3"]


def test_the_foreground_is_what_is_finite_and_in_the_mask():
    data = torch.ones(2, 2, 3, 4)
    data[0, 0, 0, 0], data[1, 0, 0, 1] = torch.nan, torch.inf
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[1] = False
    volume = Volume(data, GRID)
    assert int((~volume.foreground).sum()) == 2
    assert volume.with_mask(mask).foreground.nonzero().shape == (10, 3)
    assert not volume.with_mask(mask).foreground[1].any()


def test_a_channel_goes_to_a_device_whole():
    channel = Channel(torch.ones(1, 1, 2, 3, 4), torch.ones(1, 1, 2, 3, 4)).to(torch.device("meta"))
    assert channel.image.device.type == channel.weight.device.type == "meta"
