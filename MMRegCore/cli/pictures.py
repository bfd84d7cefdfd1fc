"""The verbs ``mmreg augment`` and ``mmreg fuse``."""

from __future__ import annotations

import argparse

from MMRegCore.cli.inputs import check_output_folder
from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import Screen
from MMRegCore.monitor import Monitor


def augment(arguments: argparse.Namespace, screen: Screen) -> None:
    """Deform a labelled image as anatomies differ: copies to train a segmentation with."""
    check_output_folder(arguments.output)
    from MMRegCore.io.files import staged_folder
    from MMRegCore.io.volumes import read_volume, write_volume
    from MMRegCore.training.augmentation import augment as deformed

    image = read_volume(arguments.image)
    labels = read_volume(arguments.labels) if arguments.labels else None
    towards = read_volume(arguments.towards) if arguments.towards else image
    with cancel_on_signals(Monitor(screen)) as monitor, staged_folder(arguments.output) as folder:
        copies = deformed(
            image,
            labels,
            towards,
            count=arguments.count,
            weights=arguments.weights,
            strength=arguments.strength,
            seed=arguments.seed,
        )
        for number, copy in enumerate(copies):
            monitor.report(f"copy {number + 1} of {arguments.count}", number / arguments.count)
            write_volume(copy.image, folder / f"{number:04d}_image.nii.gz")
            if copy.labels is not None:
                write_volume(copy.labels, folder / f"{number:04d}_labels.nii.gz", dtype="int32")
    screen.done(arguments.output)


def fuse(arguments: argparse.Namespace, screen: Screen) -> None:
    """Make one picture of two registered images, for viewing."""
    del screen  # it takes no time worth showing
    from MMRegCore.apply import resample_image
    from MMRegCore.io.transforms import read_transform
    from MMRegCore.io.volumes import itk_image, read_volume, volume_from_itk, write_volume
    from MMRegCore.report.blend import blend
    from MMRegCore.transform import SpatialTransform

    fixed, moving = read_volume(arguments.fixed), read_volume(arguments.moving)
    transform = read_transform(arguments.transform) if arguments.transform else SpatialTransform.identity()
    resampled = resample_image(itk_image(moving), transform, reference=fixed.grid)
    fused = blend(fixed, volume_from_itk(resampled, moving.name), method=arguments.method, weight=arguments.weight)
    write_volume(fused, arguments.output)
