"""``mmreg features``: descriptors on disk are those of the library, on the image's own grid."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore.cli import main
from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings
from MMRegCore.ops import gaussian_blur
from MMRegCore.similarity.descriptors.dns import dns
from MMRegCore.similarity.descriptors.mind import mind_ssc
from MMRegCore.training.engine.checkpoint import write_weights

SHAPE = (14, 12, 16)


@pytest.fixture
def image():
    return gaussian_blur(torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0)), 1.0)


@pytest.fixture
def path(image, tmp_path):
    written = sitk.GetImageFromArray(image[0, 0].numpy())
    written.SetSpacing((1.0, 1.5, 2.0))
    written.SetOrigin((3.0, -4.0, 5.0))
    sitk.WriteImage(written, str(tmp_path / "mr.nrrd"))
    return tmp_path / "mr.nrrd"


def read(path):
    found = sitk.ReadImage(str(path))
    return found, torch.from_numpy(np.moveaxis(sitk.GetArrayFromImage(found), -1, 0))[None]


def test_mind_has_twelve_values_per_voxel(image, path, tmp_path):
    output = tmp_path / "mind.nrrd"
    assert main(["features", str(path), "--kind", "mind", "--output", str(output)]) == 0
    found, values = read(output)
    assert found.GetSpacing() == (1.0, 1.5, 2.0)
    assert found.GetOrigin() == (3.0, -4.0, 5.0)
    torch.testing.assert_close(values, mind_ssc(image))


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_dns_of_a_masked_image(image, path, tmp_path, suffix):
    torch.manual_seed(0)
    network = MasrNet(MasrNetSettings(channels=(2, 2, 2, 2))).eval()
    weights = tmp_path / "w.safetensors"
    write_weights(network, weights)
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[2:-2, 2:-2, 3:-3] = True
    shape = sitk.GetImageFromArray(mask.numpy().astype(np.uint8))
    shape.CopyInformation(sitk.ReadImage(str(path)))
    sitk.WriteImage(shape, str(tmp_path / "mask.nrrd"))
    output = tmp_path / f"dns{suffix}"
    arguments = ["--weights", str(weights), "--mask", str(tmp_path / "mask.nrrd"), "--device", "cpu"]
    assert main(["features", str(path), *arguments, "--output", str(output)]) == 0
    found, values = read(output)
    assert found.GetNumberOfComponentsPerPixel() == 24
    torch.testing.assert_close(values, dns(image, network, mask=mask))


def test_weights_that_are_not_there_are_one_line_and_write_nothing(path, tmp_path, capsys):
    output = tmp_path / "dns.nrrd"
    assert main(["features", str(path), "--weights", "masrnett", "--output", str(output)]) == 2
    assert "masrnett" in capsys.readouterr().err
    assert not output.exists()
