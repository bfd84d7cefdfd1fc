"""The quality report: one HTML file that needs nothing else; its words and layout are in report.html.j2."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from MMRegCore.assessment.assess import Assessment
from MMRegCore.errors import MMRegError
from MMRegCore.io.files import PathLike, atomic_path
from MMRegCore.records import to_json
from MMRegCore.volume import Volume

if TYPE_CHECKING:
    from MMRegCore.report.figures import Strip


@dataclass(frozen=True)
class _Comparison:
    """The pictures of one moving image."""

    name: str
    alignment: Sequence[Strip]
    checkerboard: Sequence[Strip]


def write_report(
    path: PathLike, fixed: Volume, assessment: Assessment, provenance: Mapping[str, Any], *, title: str
) -> None:
    """Write one self-contained HTML file: verdict, headline, pictures, numbers and provenance.

    ``fixed`` is the image that ``assessment`` was made on; ``provenance`` (inputs, settings, versions, timings as JSON
    holds them) is shown as it is.  Without matplotlib the report says what to install in place of the pictures.  The
    file appears only when it is complete; `InputError` when it cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("MMRegCore.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"plain": _plain, "value": _value, "rows": _rows, "change": _change, "png": _png}
    comparisons, maps, problem = _pictures(fixed, assessment)
    page = environment.get_template("report.html.j2").render(
        title=title,
        quality=assessment.quality,
        comparisons=comparisons,
        maps=maps,
        problem=problem,
        numbers=to_json(assessment.quality),
        provenance=provenance,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _pictures(fixed: Volume, assessment: Assessment) -> tuple[list[_Comparison], list[Strip], str]:
    """The comparisons, the maps, and why there are none."""
    try:
        from MMRegCore.report.figures import Pictures
    except MMRegError as error:
        return [], [], str(error)
    pictures = Pictures(fixed, assessment)
    comparisons = [
        _Comparison(moving.name, pictures.alignment(index), pictures.checkerboard(index))
        for index, moving in enumerate(assessment.after)
    ]
    return comparisons, pictures.maps(), ""


def _png(strip: Strip) -> str:
    return f"data:image/png;base64,{base64.b64encode(strip.png).decode('ascii')}"


def _change(before: float, after: float) -> str:
    """By how many per cent a number changed."""
    return f"{100 * (after - before) / before:+.0f} %".replace("-", "−")


def _rows(tree: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Name and value of everything in a nested mapping."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{above}{_plain(key)}"
        rows += _rows(value, f"{name}, ") if isinstance(value, Mapping) else [(name, _value(value))]
    return rows


def _plain(key: object) -> str:
    return str(key).replace("_", " ")


def _value(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool | int | str):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple) and not any(isinstance(item, Mapping) for item in value):
        return ", ".join(_value(item) for item in value)
    return json.dumps(value, default=str)
