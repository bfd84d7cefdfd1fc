"""The verb ``mmreg features``."""

from __future__ import annotations

import argparse

from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import Screen
from MMRegCore.monitor import Monitor


def features(arguments: argparse.Namespace, screen: Screen) -> None:
    """Write the descriptors of an image: a volume of several values per voxel that depend on structure only."""
    from MMRegCore.similarity.settings import DescriptorSettings

    settings = DescriptorSettings(name=arguments.kind, dns_weights=arguments.weights)
    import torch

    from MMRegCore.io.volumes import read_volume, write_volume
    from MMRegCore.prepare import check_image
    from MMRegCore.runtime import resolve_device
    from MMRegCore.similarity import make_descriptor
    from MMRegCore.volume import Volume

    image = read_volume(arguments.image, mask_path=arguments.mask)
    check_image(image)
    device = resolve_device(arguments.device)
    descriptor = make_descriptor(settings)
    with cancel_on_signals(Monitor(screen)) as monitor:
        monitor.report("descriptors", 0.0)
        values = torch.nan_to_num(image.data, nan=0.0, posinf=0.0, neginf=0.0)[None].to(device)
        described = descriptor.encode_moving(values, image.foreground[None, None].float().to(device))
        monitor.report("writing the descriptors", 0.9)
        write_volume(Volume(described[0].cpu(), image.grid, name="descriptors"), arguments.output)
    screen.done(arguments.output)
