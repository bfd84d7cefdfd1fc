"""The verbs ``mmreg augment`` and ``mmreg fuse``."""

from __future__ import annotations

import argparse
from pathlib import Path

from MMRegCore.cli.inputs import check_output_folder
from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import Screen
from MMRegCore.monitor import Monitor


def augment(arguments: argparse.Namespace, screen: Screen) -> None:
    """Write deformed copies of an image and of its labels."""
    check_output_folder(arguments.output)
    from MMRegCore.io.files import staged_folder
    from MMRegCore.io.volumes import read_volume, write_volume
    from MMRegCore.training.augmentation import augment as deformed

    image = read_volume(arguments.image)
    labels = read_volume(arguments.labels) if arguments.labels else None
    towards = read_volume(arguments.towards) if arguments.towards else image
    monitor = Monitor(screen)
    with cancel_on_signals(monitor), staged_folder(arguments.output) as folder:
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
    """Write one picture of two registered images."""
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


def add_augment(parser: argparse.ArgumentParser) -> None:
    """Options of ``mmreg augment``."""
    parser.set_defaults(run=augment)
    parser.add_argument("--image", required=True, type=Path, metavar="A", help="image to deform")
    parser.add_argument("--labels", type=Path, metavar="L", help="its labels, on its grid")
    parser.add_argument("--towards", type=Path, metavar="B", help="image that it is deformed towards (default: A)")
    parser.add_argument("--count", type=int, default=10, metavar="N", help="how many copies (default: 10)")
    parser.add_argument("--weights", required=True, metavar="W", help="of MultiPropReg: .safetensors of mmreg train")
    parser.add_argument("--strength", type=float, default=1.0, metavar="X", help="standard deviations (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides the copies (default: 0)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the copies")
    parser.add_argument("--json-progress", action="store_true", help="report progress as JSON lines on stdout")


def add_fuse(parser: argparse.ArgumentParser) -> None:
    """Options of ``mmreg fuse``."""
    parser.set_defaults(run=fuse)
    parser.add_argument("--fixed", required=True, type=Path, metavar="A", help="image whose grid the picture takes")
    parser.add_argument("--moving", required=True, type=Path, metavar="B", help="the other image")
    parser.add_argument("--transform", type=Path, metavar="T", help="fixed to moving, as register writes")
    parser.add_argument(
        "--method", choices=("wavelet", "weighted"), default="wavelet", help="wavelet (default): the stronger detail"
    )
    parser.add_argument("--weight", type=float, default=0.5, metavar="X", help="share of A (default: 0.5)")
    parser.add_argument("--output", required=True, type=Path, metavar="Y", help="file to write")
