"""The verbs of ``mmreg`` and their options; imports nothing heavy, so that help is instant."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from MMRegCore.cli import brain, cohort, features, pictures, serve, training, verbs
from MMRegCore.config import DEFAULT_PRESET
from MMRegCore.similarity import descriptor_names
from MMRegCore.version import __version__

_ABOUT = """Registers preoperative MR to intraoperative ultrasound. Research software, not a medical device.
Exit codes: 0 done, 1 internal error, 2 bad input, 3 cancelled."""
_LANDMARKS = ".fcsv, .mrk.json, .csv or .tag"
# Of an option that takes one or several values and may be repeated.
_SEVERAL: dict[str, Any] = {"nargs": "+", "action": "extend"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line, as every other bad input does."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def add_path(self, flag: str, metavar: str, text: str, **more: Any) -> None:  # noqa: ANN401 - as add_argument
        """Add an option that takes a path."""
        self.add_argument(flag, type=Path, metavar=metavar, help=text, **more)


def build_parser() -> argparse.ArgumentParser:
    """Make the parser; every verb leaves its function in ``run``, is called as it and has its docstring for help."""
    parser = _Parser(prog="mmreg", description=_ABOUT, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"mmreg {__version__}")
    verbs_of = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=_Parser)
    for run, add_options in _OPTIONS.items():
        about = inspect.getdoc(run) or ""
        verb = verbs_of.add_parser(run.__name__, help=about.split("\n")[0], description=about, allow_abbrev=False)
        verb.set_defaults(run=run)
        add_options(verb)
        verb.add_argument("--verbose", action="store_true", help="show the log, and where an error came from")
    return parser


def _add_register(parser: _Parser) -> None:
    _add_images(parser)
    parser.add_path("--initial-transform", "T", "fixed to moving, any ITK transform")
    _add_landmarks(parser)
    text = "standard deviation of the landmarks along each axis (default: 2)"
    parser.add_argument("--landmark-error-mm", type=float, metavar="X", help=text)
    parser.add_argument(
        "--preset", default=DEFAULT_PRESET, metavar="NAME", help=f"settings to start from (default: {DEFAULT_PRESET})"
    )
    parser.add_argument("--set", default=[], metavar="KEY=VALUE", help="change settings of the preset", **_SEVERAL)
    text = "use all of the MR (default: the brain, which is found where there is no --moving-mask)"
    parser.add_argument("--no-brain-mask", action="store_true", help=text)
    _add_computer(parser)
    parser.add_argument("--transform-only", action="store_true", help="write only transform.h5 and result.json")
    _add_output(parser)


def _add_images(parser: _Parser) -> None:
    parser.add_path("--fixed", "US", "ultrasound: file or DICOM folder", required=True)
    text = "MR, one or several (may be repeated): file or DICOM folder"
    parser.add_path("--moving", "MR", text, required=True, **_SEVERAL)
    parser.add_path("--fixed-mask", "M", "foreground of the ultrasound (nonzero)")
    text = "masks of the MR in the order of --moving; 'none' for one without"
    parser.add_argument("--moving-mask", default=[], metavar="M", help=text, **_SEVERAL)


def _add_device(parser: _Parser) -> None:
    parser.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu, cuda or cuda:N")


def _add_computer(parser: _Parser) -> None:
    _add_device(parser)
    parser.add_argument("--memory-gb", type=float, metavar="X", help="memory that the computation may take")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: one per core)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="makes a run repeatable (default: 0)")


def _add_output(parser: _Parser) -> None:
    parser.add_path("--output", "DIR", "folder for the result", required=True)
    _add_progress(parser)


def _add_progress(parser: _Parser) -> None:
    parser.add_argument("--json-progress", action="store_true", help="report progress as JSON lines on stdout")


def _add_apply(parser: _Parser) -> None:
    parser.add_path("--transform", "T", "fixed to moving, as register writes", required=True)
    parser.add_path("--moving", "X", f"volume, or landmarks ({_LANDMARKS})", required=True)
    parser.add_path("--reference", "R", "volume whose grid the result takes")
    text = "linear (default); nearest, for label maps, keeps the type of the voxels"
    parser.add_argument("--interpolation", choices=("linear", "nearest", "bspline"), help=text)
    parser.add_path("--output", "Y", "file to write", required=True)


def _add_tre(parser: _Parser) -> None:
    parser.add_path("--transform", "T", "fixed to moving", required=True)
    parser.add_path("--initial-transform", "T", "what 'before' is measured with")
    _add_landmarks(parser)


def _add_landmarks(parser: _Parser) -> None:
    parser.add_path("--fixed-landmarks", "A", f"in the ultrasound ({_LANDMARKS})")
    parser.add_path("--moving-landmarks", "B", f"in the MR ({_LANDMARKS})")
    parser.add_path("--landmarks", "PAIRS", "both in one .csv (mr_x,mr_y,mr_z,us_x,us_y,us_z) or .tag")


def _add_qa(parser: _Parser) -> None:
    _add_images(parser)
    parser.add_path("--transform", "T", "fixed to moving", required=True)
    parser.add_path("--initial-transform", "T", "what 'before' is shown with")
    _add_output(parser)


def _add_presets(parser: _Parser) -> None:
    parser.add_argument("--show", metavar="NAME", help="list the settings of this preset, what they mean, their ranges")
    parser.add_argument("--json", action="store_true", help="print what a form is built from, as JSON")


def _add_doctor(parser: _Parser) -> None:
    _add_device(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_demo(parser: _Parser) -> None:
    _add_computer(parser)
    _add_output(parser)


def _add_simulate(parser: _Parser) -> None:
    text = "aligned MR, one or several; the first is segmented into tissues (default: the MNI152 brain of nilearn)"
    parser.add_path("--mr", "MR", text, default=[], **_SEVERAL)
    contrasts = ("t1", "t1c", "t2", "flair")
    parser.add_argument("--contrast", choices=contrasts, help="of the first MR (default: t1)")
    text = "contrasts to add, rendered from the tissue maps"
    parser.add_argument("--render", nargs="+", choices=contrasts, default=[], help=text)
    parser.add_path("--tumour-mask", "M", "tumour in the first MR (nonzero)")
    text = "mean displacement in the field of view (default: drawn)"
    parser.add_argument("--mean-shift-mm", type=float, metavar="X", help=text)
    parser.add_argument("--cavity", action="store_true", help="resect the tumour, or tissue under the craniotomy")
    text = "RAS direction from the brain's centre to the craniotomy"
    parser.add_argument("--entry", nargs=3, type=float, metavar=("R", "A", "S"), help=text)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed of the case (default: 0)")
    _add_output(parser)


def _add_augment(parser: _Parser) -> None:
    parser.add_path("--image", "A", "image to deform", required=True)
    parser.add_path("--labels", "L", "its labels, on its grid")
    parser.add_path("--towards", "B", "image that it is deformed towards (default: A)")
    parser.add_argument("--count", type=int, default=10, metavar="N", help="how many copies (default: 10)")
    parser.add_argument("--weights", required=True, metavar="W", help="of MultiPropReg: .safetensors of mmreg train")
    parser.add_argument("--strength", type=float, default=1.0, metavar="X", help="standard deviations (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides the copies (default: 0)")
    parser.add_path("--output", "DIR", "folder for the copies", required=True)
    _add_progress(parser)


def _add_fuse(parser: _Parser) -> None:
    parser.add_path("--fixed", "A", "image whose grid the picture takes", required=True)
    parser.add_path("--moving", "B", "the other image", required=True)
    parser.add_path("--transform", "T", "fixed to moving, as register writes")
    text = "wavelet (default): the stronger detail"
    parser.add_argument("--method", choices=("wavelet", "weighted"), default="wavelet", help=text)
    parser.add_argument("--weight", type=float, default=0.5, metavar="X", help="share of A (default: 0.5)")
    parser.add_path("--output", "Y", "file to write", required=True)


def _add_train(parser: _Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="what to train; --show prints its settings")
    parser.add_path("--config", "FILE", "settings in JSON (default: those of --show)")
    parser.add_argument("--set", default=[], metavar="KEY=VALUE", help="change settings", **_SEVERAL)
    parser.add_argument("--show", action="store_true", help="list the settings and what they mean, and train nothing")
    parser.add_path("--data", "DIR", "subjects by folder, or with a dataset.json as Learn2Reg has it")
    parser.add_path("--output", "DIR", "folder for checkpoint, curves and weights")
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoint in --output")
    _add_device(parser)
    _add_progress(parser)


def _add_features(parser: _Parser) -> None:
    parser.add_path("image", "IMAGE", "file or DICOM folder")
    parser.add_path("--mask", "M", "where the image counts (nonzero)")
    text = "which descriptor (default: dns, of MASR-Net)"
    parser.add_argument("--kind", choices=descriptor_names(), default="dns", help=text)
    text = "of MASR-Net, by name (default: masrnet) or as a file"
    parser.add_argument("--weights", default="masrnet", metavar="W", help=text)
    _add_device(parser)
    parser.add_path("--output", "FILE", ".nii.gz, .nii, .nrrd or .mha", required=True)
    _add_progress(parser)


def _add_brain(parser: _Parser) -> None:
    text = "MR of one head, one or several, whole or a part: file or DICOM folder"
    parser.add_path("images", "MR", text, nargs="+")
    text = "how far around the brain the mask reaches (default: 0)"
    parser.add_argument("--margin-mm", type=float, default=0.0, metavar="X", help=text)
    parser.add_path("--output", "M", "mask to write, on the grid of the first MR", required=True)
    _add_progress(parser)


def _add_batch(parser: _Parser) -> None:
    parser.add_path("cases", "CASES", ".csv with columns by name, or Learn2Reg's dataset.json")
    text = f"settings to start from (default: {DEFAULT_PRESET})"
    parser.add_argument("--preset", default=DEFAULT_PRESET, metavar="NAME", help=text)
    parser.add_argument("--set", default=[], metavar="KEY=VALUE", help="change settings of the preset", **_SEVERAL)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="cases at once, through Dask (default: 1)")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="Dask scheduler to use in place of workers on this machine"
    )
    _add_computer(parser)
    parser.add_argument("--transform-only", action="store_true", help="no images, maps, reports and pictures")
    text = "learn2reg: write disp_*.nii.gz too, in the folder learn2reg"
    parser.add_argument("--format", choices=("mmreg", "learn2reg"), default="mmreg", help=text)
    _add_output(parser)


def _add_evaluate(parser: _Parser) -> None:
    parser.add_path("folder", "DIR", "what batch wrote, or a folder of transforms or fields")
    parser.add_path("--cases", "CASES", "as of batch, with landmarks or labels", required=True)
    parser.add_path("--output", "OUT", "folder for a table (default: only JSON on stdout)")
    _add_progress(parser)


def _add_replay(parser: _Parser) -> None:
    parser.add_path("result", "RESULT", "result.json, with transform.h5 beside it")
    text = "where to look for the inputs: files and folders (default: around RESULT)"
    parser.add_path("--inputs", "X", text, default=[], **_SEVERAL)
    parser.add_argument("--device", metavar="D", help="auto, cpu, cuda or cuda:N (default: that of RESULT)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: as RESULT)")
    parser.add_path("--output", "DIR", "folder for the new result (default: it is not kept)")
    _add_progress(parser)


def _add_serve(parser: _Parser) -> None:
    text = "end after so long without a line (default: 30)"
    parser.add_argument("--idle-minutes", type=float, default=30.0, metavar="X", help=text)


# Every verb's function, and what adds its options.
_OPTIONS: dict[Callable[..., int | None], Callable[[_Parser], None]] = {
    verbs.register: _add_register,
    verbs.apply: _add_apply,
    verbs.tre: _add_tre,
    verbs.qa: _add_qa,
    verbs.presets: _add_presets,
    verbs.doctor: _add_doctor,
    verbs.demo: _add_demo,
    verbs.simulate: _add_simulate,
    pictures.augment: _add_augment,
    pictures.fuse: _add_fuse,
    training.train: _add_train,
    features.features: _add_features,
    brain.brain: _add_brain,
    cohort.batch: _add_batch,
    cohort.evaluate: _add_evaluate,
    cohort.replay: _add_replay,
    serve.serve: _add_serve,
}
