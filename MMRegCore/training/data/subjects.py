"""Training data from disk: a folder for each subject, or the layout of Learn2Reg with its ``dataset.json``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.files import stem_of
from MMRegCore.io.volumes import WRITABLE_SUFFIXES, read_volume
from MMRegCore.networks.intensity import unit_range
from MMRegCore.records import read_json
from MMRegCore.runtime import memory_budget_bytes

DATASET_FILE = "dataset.json"
LABELS = "labels"
SPLITS = ("training", "validation")


@dataclass(frozen=True, eq=False)
class Subject:
    """One subject of a training: aligned images, labels, or both."""

    name: str
    grid: Grid
    # (1, D, H, W) each: one or several contrasts by name, scaled to [0, 1]; may be empty where there are labels.
    images: Mapping[str, torch.Tensor]
    labels: torch.Tensor | None = None  # (D, H, W), int16

    @property
    def size_bytes(self) -> int:
        """Memory that its tensors take."""
        tensors = [*self.images.values(), *([] if self.labels is None else [self.labels])]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True)
class SubjectFiles:
    """Where the images and labels of one subject lie."""

    name: str
    images: Mapping[str, Path]
    labels: Path | None = None

    def read(self) -> Subject:
        """Read them; `InputError` or `GeometryError` when one cannot be used or they lie on different grids."""
        volumes = {name: read_volume(path) for name, path in self.images.items()}
        labels = read_volume(self.labels) if self.labels else None
        grids = [volume.grid for volume in (*volumes.values(), *([labels] if labels else []))]
        if not all(grid.matches(grids[0]) for grid in grids[1:]):
            shapes = ", ".join(str(grid.shape) for grid in grids)
            raise GeometryError(f"expected the images and labels of '{self.name}' on one grid; got {shapes}")
        images = {name: unit_range(torch.nan_to_num(volume.data)) for name, volume in volumes.items()}
        return Subject(self.name, grids[0], images, None if labels is None else labels.data[0].round().short())


class LruCache:
    """Subjects by their number, made when they are first asked for; the least recently used ones are dropped.

    They may take ``budget_bytes`` of memory together, though one always stays; what a run may plan with when None.
    """

    def __init__(self, make: Callable[[int], Subject], budget_bytes: int | None = None) -> None:
        self._make = make
        self._budget = budget_bytes if budget_bytes is not None else memory_budget_bytes(torch.device("cpu"))
        self._items: OrderedDict[int, Subject] = OrderedDict()

    def __getitem__(self, number: int) -> Subject:
        if number not in self._items:
            self._items[number] = self._make(number)
            while len(self._items) > 1 and sum(item.size_bytes for item in self._items.values()) > self._budget:
                self._items.popitem(last=False)
        self._items.move_to_end(number)
        return self._items[number]


class Subjects(Sequence[Subject]):
    """Subjects that are read when they are first asked for, and cached as far as memory goes."""

    def __init__(self, files: Sequence[SubjectFiles], budget_bytes: int | None = None) -> None:
        self._files, self._budget = tuple(files), budget_bytes
        self._cache = LruCache(lambda number: self._files[number].read(), budget_bytes)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - an overload for slices would say nothing more
        """The subject at ``index``; raises as `SubjectFiles.read`."""
        if isinstance(index, slice):
            return Subjects(self._files[index], self._budget)
        return self._cache[range(len(self._files))[index]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the subjects; reads no image."""
        return tuple(files.name for files in self._files)

    def draw(self, generator: torch.Generator) -> Subject:
        """One of them, all equally likely."""
        drawn: Subject = self[int(torch.randint(len(self), (), generator=generator))]
        return drawn


@dataclass(frozen=True)
class TrainingData:
    """The two splits of a data set."""

    training: Subjects
    validation: Subjects
    name: str = "data"


def read_training_data(folder: Path) -> TrainingData:
    """Find the subjects in a folder; images are read later, when they are needed.

    It has either the layout of Learn2Reg: ``dataset.json`` lists files named ``NAME_CASE_CONTRAST.nii.gz``; the cases
    in ``registration_val`` are the validation split.  Or the folders ``training`` and ``validation``, each with one
    folder for each subject: the images of a subject carry the names of their contrasts, its labels are called
    ``labels``.  Raises `InputError` when it holds neither, names files that are not there, or a split is empty.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder with training data; got {folder}, which is none")
    splits = _learn2reg(folder) if (folder / DATASET_FILE).is_file() else _by_folder(folder)
    for name, files in zip(SPLITS, splits, strict=True):
        if not files:
            raise InputError(f"expected subjects for {name}; got none in {folder}")
    return TrainingData(Subjects(splits[0]), Subjects(splits[1]), folder.resolve().name)


def _by_folder(folder: Path) -> tuple[list[SubjectFiles], list[SubjectFiles]]:
    missing = [name for name in SPLITS if not (folder / name).is_dir()]
    if missing:
        raise InputError(f"expected {DATASET_FILE}, or the folders {' and '.join(SPLITS)}; got {folder} without")
    training, validation = ([_subject_in(path) for path in _visible(folder / name) if path.is_dir()] for name in SPLITS)
    return training, validation


def _subject_in(folder: Path) -> SubjectFiles:
    files = {stem_of(path): path for path in _visible(folder) if path.name.lower().endswith(WRITABLE_SUFFIXES)}
    if not files:
        raise InputError(f"expected images ({', '.join(WRITABLE_SUFFIXES)}); got none in {folder}")
    labels = files.pop(LABELS, None)
    return SubjectFiles(folder.name, files, labels)


def _visible(folder: Path) -> list[Path]:
    """Content of a folder but for hidden names: files that are being written, and what macOS leaves on disks."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _learn2reg(folder: Path) -> tuple[list[SubjectFiles], list[SubjectFiles]]:
    content = read_json(folder / DATASET_FILE, f"a {DATASET_FILE} of Learn2Reg")
    contrasts = content.get("modality", {})
    images: dict[str, dict[str, Path]] = {}
    labels: dict[str, Path] = {}
    for entry in _list_of(content, "training"):
        path = _file(folder, entry, "image")
        case, contrast = _case_and_contrast(path)
        images.setdefault(case, {})[str(contrasts.get(str(int(contrast)), contrast))] = path
        if "label" in entry:
            labels.setdefault(case, _file(folder, entry, "label"))
    validation = {
        _case_and_contrast(Path(str(pair[side])))[0]
        for pair in _list_of(content, "registration_val")
        for side in ("fixed", "moving")
        if side in pair
    }
    if unknown := sorted(validation - set(images)):
        raise InputError(f"expected the cases of registration_val among those of training; got {unknown[0]}")
    found = [SubjectFiles(case, images[case], labels.get(case)) for case in sorted(images)]
    return [f for f in found if f.name not in validation], [f for f in found if f.name in validation]


def _list_of(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"expected '{key}' in {DATASET_FILE} to be a list of objects; got {entries!r:.60}")
    return entries


def _file(folder: Path, entry: dict[str, Any], key: str) -> Path:
    name = entry.get(key)
    if not isinstance(name, str) or not (folder / name).is_file():
        raise InputError(f"expected '{key}' in {DATASET_FILE} to name a file in {folder}; got {name!r}")
    return folder / name


def _case_and_contrast(path: Path) -> tuple[str, str]:
    case, _, contrast = stem_of(path).rpartition("_")
    if not case or not contrast.isdigit():
        raise InputError(f"expected a name as NAME_CASE_CONTRAST, such as Brain_0001_0000.nii.gz; got {path.name}")
    return case, contrast
