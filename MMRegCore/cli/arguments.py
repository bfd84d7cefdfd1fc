"""The verbs of ``mmreg`` and their options; imports nothing heavy, so that help is instant."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn, TypeAlias

from MMRegCore.cli import features, pictures, serve, training, verbs
from MMRegCore.config import DEFAULT_PRESET
from MMRegCore.similarity import descriptor_names
from MMRegCore.version import __version__

_ABOUT = """Registers preoperative MR to intraoperative ultrasound. Research software, not a medical device.
Exit codes: 0 done, 1 internal error, 2 bad input, 3 cancelled."""
_LANDMARKS = ".fcsv, .mrk.json, .csv or .tag"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line, as every other bad input does."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Make the parser; every verb leaves its function in ``run`` and takes ``--verbose``."""
    parser = _Parser(prog="mmreg", description=_ABOUT, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"mmreg {__version__}")
    verb = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=_Parser)
    adders = (_add_register, _add_apply, _add_tre, _add_qa, _add_presets, _add_doctor, _add_demo, _add_simulate)
    for add in (*adders, _add_augment, _add_fuse, _add_train, _add_features, _add_serve):
        added = add(verb)
        added.add_argument("--verbose", action="store_true", help="show the log, and where an error came from")
    return parser


_Verbs: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _add_register(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Register one or several MR images to an ultrasound volume."
    parser = verbs_of.add_parser("register", help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=verbs.register)
    _add_images(parser)
    parser.add_argument("--initial-transform", type=Path, metavar="T", help="fixed to moving, any ITK transform")
    parser.add_argument(
        "--preset", default=DEFAULT_PRESET, metavar="NAME", help=f"settings to start from (default: {DEFAULT_PRESET})"
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change settings of the preset"
    )
    _add_computer(parser)
    parser.add_argument("--transform-only", action="store_true", help="write only transform.h5 and result.json")
    _add_output(parser)
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fixed", required=True, type=Path, metavar="US", help="ultrasound: file or DICOM folder")
    parser.add_argument(
        "--moving",
        required=True,
        nargs="+",
        action="extend",
        type=Path,
        metavar="MR",
        help="MR, one or several (may be repeated): file or DICOM folder",
    )
    parser.add_argument("--fixed-mask", type=Path, metavar="M", help="foreground of the ultrasound (nonzero)")
    parser.add_argument(
        "--moving-mask",
        nargs="+",
        action="extend",
        default=[],
        metavar="M",
        help="masks of the MR in the order of --moving; 'none' for one without",
    )


def _add_computer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--memory-gb", type=float, metavar="X", help="memory that the computation may take")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: one per core)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="makes a run repeatable (default: 0)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the result")
    parser.add_argument("--json-progress", action="store_true", help="report progress as JSON lines on stdout")


def _add_apply(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Apply a transform to a volume, a label map or landmarks: from moving (MR) to fixed (ultrasound) space."
    more = (
        "Landmarks are moving landmarks, pushed to where they lie in the ultrasound. Volumes are resampled on the grid "
        "of --reference, or on their own; outside of them the result is 0."
    )
    parser = verbs_of.add_parser("apply", help=text, description=f"{text} {more}", allow_abbrev=False)
    parser.set_defaults(run=verbs.apply)
    parser.add_argument(
        "--transform", required=True, type=Path, metavar="T", help="fixed to moving, as register writes"
    )
    parser.add_argument("--moving", required=True, type=Path, metavar="X", help=f"volume, or landmarks ({_LANDMARKS})")
    parser.add_argument("--reference", type=Path, metavar="R", help="volume whose grid the result takes")
    parser.add_argument(
        "--interpolation",
        choices=("linear", "nearest", "bspline"),
        help="linear (default); nearest, for label maps, keeps the type of the voxels",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="Y", help="file to write")
    return parser


def _add_tre(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Print the target registration error on landmarks, before and after, as JSON."
    parser = verbs_of.add_parser("tre", help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=verbs.tre)
    parser.add_argument("--transform", required=True, type=Path, metavar="T", help="fixed to moving")
    parser.add_argument("--initial-transform", type=Path, metavar="T", help="what 'before' is measured with")
    parser.add_argument("--fixed-landmarks", type=Path, metavar="A", help=f"in the ultrasound ({_LANDMARKS})")
    parser.add_argument("--moving-landmarks", type=Path, metavar="B", help=f"in the MR ({_LANDMARKS})")
    parser.add_argument(
        "--landmarks", type=Path, metavar="PAIRS", help="both in one .csv (mr_x,mr_y,mr_z,us_x,us_y,us_z) or .tag"
    )
    return parser


def _add_qa(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Assess any transform, ours or another tool's: qa.json and report.html."
    parser = verbs_of.add_parser("qa", help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=verbs.qa)
    _add_images(parser)
    parser.add_argument("--transform", required=True, type=Path, metavar="T", help="fixed to moving")
    parser.add_argument("--initial-transform", type=Path, metavar="T", help="what 'before' is shown with")
    _add_output(parser)
    return parser


def _add_presets(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "List the presets, or the settings of one."
    parser = verbs_of.add_parser("presets", help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=verbs.presets)
    parser.add_argument("--show", metavar="NAME", help="list the settings of this preset, what they mean, their ranges")
    parser.add_argument("--json", action="store_true", help="print what a form is built from, as JSON")
    return parser


def _add_doctor(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Tell versions, devices and memory, and try a small registration (about 10 seconds)."
    parser = verbs_of.add_parser("doctor", help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=verbs.doctor)
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_demo(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Register the MNI152 brain to a simulated ultrasound of it, with a brain shift that is known."
    parser = verbs_of.add_parser("demo", help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=verbs.demo)
    _add_computer(parser)
    _add_output(parser)
    return parser


def _add_simulate(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Simulate an ultrasound of an MR after a brain shift, with the true transform and landmarks."
    more = "The MR may be skull-stripped or not; the size of the shift is drawn from statistics of real landmarks."
    parser = verbs_of.add_parser("simulate", help=text, description=f"{text} {more}", allow_abbrev=False)
    parser.set_defaults(run=verbs.simulate)
    parser.add_argument(
        "--mr",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="MR",
        help="aligned MR, one or several; the first is segmented into tissues (default: the MNI152 brain of nilearn)",
    )
    contrasts = ("t1", "t1c", "t2", "flair")
    parser.add_argument("--contrast", choices=contrasts, help="of the first MR (default: t1)")
    parser.add_argument(
        "--render", nargs="+", choices=contrasts, default=[], help="contrasts to add, rendered from the tissue maps"
    )
    parser.add_argument("--tumour-mask", type=Path, metavar="M", help="tumour in the first MR (nonzero)")
    parser.add_argument(
        "--mean-shift-mm", type=float, metavar="X", help="mean displacement in the field of view (default: drawn)"
    )
    parser.add_argument("--cavity", action="store_true", help="resect the tumour, or tissue under the craniotomy")
    parser.add_argument(
        "--entry",
        nargs=3,
        type=float,
        metavar=("R", "A", "S"),
        help="RAS direction from the brain's centre to the craniotomy",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: one per core)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed of the case (default: 0)")
    _add_output(parser)
    return parser


def _add_augment(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Deform a labelled image as anatomies differ: copies to train a segmentation with."
    parser = verbs_of.add_parser("augment", help=text, description=text, allow_abbrev=False)
    pictures.add_augment(parser)
    return parser


def _add_fuse(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Make one picture of two registered images, for viewing."
    parser = verbs_of.add_parser("fuse", help=text, description=text, allow_abbrev=False)
    pictures.add_fuse(parser)
    return parser


def _add_train(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Train a network on your own images; several GPUs through torchrun."
    parser = verbs_of.add_parser("train", help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=training.train)
    parser.add_argument("name", metavar="NAME", help="what to train; --show tells its settings")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in JSON (default: those of --show)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change settings")
    parser.add_argument("--show", action="store_true", help="list the settings and what they mean, and train nothing")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="subjects by folder, or with a dataset.json as Learn2Reg has it"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for checkpoint, curves and weights")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --output")
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--json-progress", action="store_true", help="report progress as JSON lines on stdout")
    return parser


def _add_features(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Write the descriptors of an image: a volume of several values per voxel that depend on structure only."
    parser = verbs_of.add_parser("features", help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=features.features)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="file or DICOM folder")
    parser.add_argument("--mask", type=Path, metavar="M", help="where the image counts (nonzero)")
    parser.add_argument(
        "--kind", choices=descriptor_names(), default="dns", help="which descriptor (default: dns, of MASR-Net)"
    )
    parser.add_argument(
        "--weights", default="masrnet", metavar="W", help="of MASR-Net, by name (default: masrnet) or as a file"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help=".nii.gz, .nii, .nrrd or .mha")
    parser.add_argument("--json-progress", action="store_true", help="report progress as JSON lines on stdout")
    return parser


def _add_serve(verbs_of: _Verbs) -> argparse.ArgumentParser:
    text = "Stay, with everything imported, and run a command for every line of stdin, for another program."
    more = 'A line is {"arguments": ["register", …]}; ends when stdin closes.'
    parser = verbs_of.add_parser("serve", help=text, description=f"{text} {more}", allow_abbrev=False)
    parser.set_defaults(run=serve.serve)
    parser.add_argument(
        "--idle-minutes", type=float, default=30.0, metavar="X", help="end after so long without a line (default: 30)"
    )
    return parser
