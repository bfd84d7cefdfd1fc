"""The quality report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from MMRegCore.errors import MMRegError
from MMRegCore.io import atomic_path
from MMRegCore.io.files import PathLike
from MMRegCore.qa.metrics import Assessment
from MMRegCore.volume import Volume

if TYPE_CHECKING:
    from MMRegCore.qa.figures import Strip

_STYLE = """
:root { color-scheme: dark }
body { margin: 0 auto; max-width: 1240px; padding: 0 20px 60px; background: #0f1318; color: #e8eaed;
  font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 24px 0 4px } h2 { margin: 44px 0 8px } p { margin: 6px 0 }
.warning { background: #4a3708; border-left: 5px solid #ff9d1e; padding: 8px 14px; margin: 10px 0 }
.verdict { border-left: 10px solid; border-radius: 8px; padding: 10px 18px; margin: 14px 0; background: #1a2129 }
.verdict b { font-size: 26px } .accept { border-color: #35c26b } .review { border-color: #ff9d1e }
.reject { border-color: #ff5a4f }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0 }
.card { flex: 1 1 190px; background: #1a2129; border-radius: 8px; padding: 12px 16px }
.card b { display: block; font-size: 26px; line-height: 1.25 }
.card span, .hint { color: #a9b4c0 }
img { display: block; width: 100%; margin: 0 0 8px }
.view input { accent-color: #ff9d1e } .view label { margin: 0 18px 0 4px }
.strips { margin-top: 8px }
.pick-ultrasound:checked ~ .strips > :not(.ultrasound), .pick-before:checked ~ .strips > :not(.before),
.pick-after:checked ~ .strips > :not(.after) { display: none }
table { border-collapse: collapse; margin: 8px 0 18px } caption { text-align: left; color: #a9b4c0; padding: 4px 0 }
td, th { border-bottom: 1px solid #2c3640; padding: 4px 18px 4px 0; text-align: left; vertical-align: top;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
summary { cursor: pointer; padding: 6px 0 }
"""

_WARNING = "Research software, not a medical device. It must not guide the treatment of a patient."
_HOW_TO_READ = (
    "The orange outlines are bright structures of the ultrasound, the same in every picture. The MR fits where "
    "its own structures follow them. Choose one picture, then press the arrow keys to flick between them. Images are "
    "held as radiologists hold them: R is the patient's right. Dimmed: outside of the ultrasound."
)
# A sign beside the word: colour alone is lost on some.
_SIGNS = {"accept": "✓ Accept", "review": "! Review", "reject": "✗ Reject"}
_CHOICES = {"all": "side by side", "ultrasound": "ultrasound", "before": "before", "after": "after"}


def write_report(
    path: PathLike, fixed: Volume, assessment: Assessment, provenance: Mapping[str, Any], *, title: str
) -> None:
    """Write one self-contained HTML file: headline, pictures, numbers and provenance.

    Parameters
    ----------
    path : path
        The file to write; it appears only when it is complete.
    fixed : Volume
        The image that ``assessment`` was made on.
    assessment : Assessment
    provenance : mapping
        JSON-able: inputs, settings, versions, timings.  Shown as it is.
    title : str

    Raises
    ------
    InputError
        When the file cannot be written.

    Notes
    -----
    Without matplotlib the report says what to install in place of the pictures.
    """
    body = [
        f"<header><h1>{escape(title)}</h1><p class='warning'><strong>{_WARNING}</strong></p></header>",
        _verdict(assessment.numbers["verdict"]),
        _headline(assessment),
        *_pictures(fixed, assessment),
        _tables(assessment.numbers),
        _provenance(provenance),
    ]
    page = (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _verdict(verdict: Mapping[str, Any]) -> str:
    level = verdict["level"]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict["reasons"])
    return f"<section class='verdict {level}'><b>{_SIGNS[level]}</b><ul>{reasons}</ul></section>"


def _headline(assessment: Assessment) -> str:
    numbers = assessment.numbers
    total, rigid, local = numbers["displacement_mm"], numbers["rigid"], numbers["deformation_mm"]
    folding = numbers["jacobian_determinant"]["folding_voxels"]
    cards = [
        (f"{total['mean']:.1f} mm", f"average movement inside the ultrasound, at most {total['max']:.1f} mm"),
        (f"{rigid['translation_mm']:.1f} mm, {rigid['rotation_degrees']:.1f}°", "shift and turn of the MR as a whole"),
        (f"{local['mean']:.1f} mm", f"average local deformation, at most {local['max']:.1f} mm"),
        (str(folding) if folding else "none", "folded voxels (tissue turned inside out)"),
    ]
    cards += [_moving_card(moving) for moving in numbers["moving"]]
    shown = "".join(f"<div class='card'><b>{escape(big)}</b><span>{escape(text)}</span></div>" for big, text in cards)
    notes = "".join(f"<li>{escape(note)}</li>" for note in assessment.notes)
    return f"<section><div class='cards'>{shown}</div><ul>{notes}</ul></section>"


def _moving_card(moving: Mapping[str, Any]) -> tuple[str, str]:
    covered = f"covers {100 * moving['coverage_share_after']:.0f} % of the ultrasound"
    before, after = moving["mind_distance_before"], moving["mind_distance_after"]
    if not before or after is None:
        return "not compared", f"{moving['name']}: too little in common with the ultrasound; {covered}"
    change = f"{100 * (after - before) / before:+.0f} %".replace("-", "−")
    return change, f"structural mismatch of {moving['name']} (less is better); {covered}"


def _pictures(fixed: Volume, assessment: Assessment) -> list[str]:
    try:
        from MMRegCore.qa.figures import Pictures
    except MMRegError as error:
        return [f"<section><h2>Pictures</h2><p>There are no pictures: {escape(str(error))}</p></section>"]
    pictures = Pictures(fixed, assessment)
    sections = []
    for index, moving in enumerate(assessment.after):
        name = escape(moving.name)
        views = _view(f"alignment-{index}", pictures.alignment(index))
        sections.append(
            f"<section><h2>Does {name} line up with the ultrasound?</h2><p class='hint'>{_HOW_TO_READ}</p>{views}"
        )
        views = _view(f"tiles-{index}", pictures.checkerboard(index))
        hint = "Structures should go on without a step from tile to tile."
        sections[-1] += f"<h2>{name} and ultrasound in tiles</h2><p class='hint'>{hint}</p>{views}</section>"
    maps = "".join(_image(strip) for strip in pictures.maps())
    sections.append(f"<section><h2>How the MR was moved</h2>{maps}</section>")
    return sections


def _view(group: str, strips: Sequence[Strip]) -> str:
    """Pictures under each other, or one at a time in the same place; a radio group does it without a script."""
    choices = ""
    for key in ("all", *(strip.key for strip in strips)):
        checked = " checked" if key == "all" else ""
        choices += (
            f"<input type='radio' name='{group}' id='{group}-{key}' class='pick-{key}'{checked}>"
            f"<label for='{group}-{key}'>{_CHOICES[key]}</label>"
        )
    return f"<div class='view'>{choices}<div class='strips'>{''.join(_image(strip) for strip in strips)}</div></div>"


def _image(strip: Strip) -> str:
    data = base64.b64encode(strip.png).decode("ascii")
    return f"<img class='{escape(strip.key)}' alt='{escape(strip.title)}' src='data:image/png;base64,{data}'>"


def _tables(numbers: Mapping[str, Any]) -> str:
    lengths = {"displacement_mm": numbers["displacement_mm"], "deformation_mm": numbers["deformation_mm"]}
    lengths.update(numbers["extra"])
    columns = {"mean": "Mean", "p95": "95th percentile", "max": "Maximum"}
    rows = [[_plain(name), *(_value(summary[key]) for key in columns)] for name, summary in lengths.items()]
    moving_rows = [[_plain(key), *(_value(m[key]) for m in numbers["moving"])] for key in _moving_keys(numbers)]
    names = [moving["name"] for moving in numbers["moving"]]
    return (
        "<section><h2>Numbers</h2>"
        + _table("Inside the ultrasound's field of view", ["", *columns.values()], rows)
        + _table("Rigid part, at the middle of the ultrasound (RAS)", [], _flat(numbers["rigid"]))
        + _table("Volume change (Jacobian determinant)", [], _flat(numbers["jacobian_determinant"]))
        + _table("Moving images, where both states cover the ultrasound", ["", *names], moving_rows)
        + _choice(numbers["choice"])
        + _table("Region", [], _flat(numbers["region"]))
        + "</section>"
    )


def _choice(choice: Mapping[str, Any] | None) -> str:
    if choice is None:
        return ""
    columns = [key for key in choice["candidates"][0] if key != "name"]
    rows = [[row["name"], *(_value(row[key]) for key in columns)] for row in choice["candidates"]]
    title = f"What competed (chosen: {choice['chosen']}; {choice['reason']})"
    return _table(title, ["", *(_plain(key) for key in columns)], rows)


def _moving_keys(numbers: Mapping[str, Any]) -> list[str]:
    return [key for key in numbers["moving"][0] if key != "name"] if numbers["moving"] else []


def _provenance(provenance: Mapping[str, Any]) -> str:
    single = [(key, value) for key, value in provenance.items() if not isinstance(value, Mapping)]
    parts = [_table("", [], [[_plain(key), _value(value)] for key, value in single])] if single else []
    for key, value in provenance.items():
        if isinstance(value, Mapping):
            parts.append(f"<details><summary>{escape(_plain(key))}</summary>{_table('', [], _flat(value))}</details>")
    return f"<section><h2>How this was made</h2>{''.join(parts)}</section>"


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>" if header else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}{head}{body}</table>"


def _flat(tree: Mapping[str, Any], above: str = "") -> list[list[str]]:
    """Rows (name, value) of a nested mapping."""
    rows: list[list[str]] = []
    for key, value in tree.items():
        name = f"{above}{_plain(key)}"
        rows += _flat(value, f"{name}, ") if isinstance(value, Mapping) else [[name, _value(value)]]
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
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    return json.dumps(value, default=str)
