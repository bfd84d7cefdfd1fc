"""``result.json``: its schema describes it, key by key, and it is read back with its types."""

import copy
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import get_args, get_type_hints

import jsonschema
import numpy as np
import pytest
import torch

from MMRegCore import register
from MMRegCore.assessment.quality import Quality
from MMRegCore.config import RegistrationSettings, with_changes
from MMRegCore.provenance import Provenance
from MMRegCore.records import from_json
from MMRegCore.result import SCHEMA_VERSION, RegistrationResult
from quick import QUICK, QUICK_MCBO
from scenes import box, scene, translation

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "result.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FIXED = scene(box((20, 22, 24)), translation((1.0, -1.0, 0.5)).apply, name="US")
MOVING = scene(box((26, 28, 30)), inverted=True, name="T1")


def run(**options: object) -> RegistrationResult:
    return register(FIXED, options.pop("moving", MOVING), **{"settings": QUICK, "device": "cpu", **options})


def masked() -> RegistrationResult:
    """With masks, two moving images and an initial transform."""
    mask = torch.zeros(FIXED.grid.shape, dtype=torch.bool)
    mask[3:-3, 3:-3, 3:-3] = True
    other = MOVING.with_mask(torch.ones(MOVING.grid.shape, dtype=torch.bool))
    options = {"settings": QUICK, "initial_transform": translation((0.5, 0.0, 0.0)), "device": "cpu"}
    return register(FIXED.with_mask(mask), [MOVING, other], **options)


RUNS = {
    "default": run,
    "mcbo": lambda: run(settings=QUICK_MCBO),
    "without model selection": lambda: run(settings=with_changes(QUICK, {"model_selection.enabled": False})),
    "masks and initial transform": masked,
    "landmarks": lambda: run(landmarks=(np.diag([5.0, 6, 7]), np.diag([5.5, 6, 7]))),
}


@pytest.fixture(scope="module", params=RUNS)
def result(request: pytest.FixtureRequest) -> RegistrationResult:
    return RUNS[request.param]()


@pytest.fixture(scope="module")
def content(result: RegistrationResult) -> dict:
    """What the file holds."""
    return json.loads(json.dumps(result.to_json(), allow_nan=False))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION


def test_results_are_valid(content: dict) -> None:
    VALIDATOR.validate(content)


def test_results_are_read_back_as_they_were(result: RegistrationResult, content: dict) -> None:
    assert from_json(Quality, content["quality"]) == result.assessment.quality
    provenance = from_json(Provenance, content["provenance"])
    assert provenance == result.provenance
    # The settings in it repeat the registration.
    assert RegistrationSettings.from_dict(provenance.settings).to_dict() == result.provenance.settings


def records(kind: type) -> set[type]:
    """A dataclass and all that it holds."""
    found = {kind}
    for hint in get_type_hints(kind).values():
        for each in (hint, *get_args(hint)):
            if isinstance(each, type) and is_dataclass(each):
                found |= records(each)
    return found


@pytest.mark.parametrize("kind", sorted(records(Quality) | records(Provenance), key=lambda kind: kind.__name__))
def test_every_key_is_described_and_required(kind: type) -> None:
    described = SCHEMA["$defs"][kind.__name__]
    assert list(described["properties"]) == [field.name for field in fields(kind)]
    assert described["required"] == list(described["properties"])
    assert described["description"]
    assert all(about.get("description") for about in described["properties"].values())


@pytest.mark.parametrize("kind", sorted(records(Quality) | records(Provenance), key=lambda kind: kind.__name__))
def test_what_may_be_absent_may_be_null_and_nothing_else(kind: type) -> None:
    for name, hint in get_type_hints(kind).items():
        schema = {**SCHEMA, "$ref": f"#/$defs/{kind.__name__}/properties/{name}"}
        for key in ("type", "required", "properties"):
            schema.pop(key)
        accepts_null = jsonschema.Draft202012Validator(schema).is_valid(None)
        assert accepts_null == (NoneType in get_args(hint) or name == "second_search"), name


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema_version",), SCHEMA_VERSION + 1),
        (("provenance", "second_search"), "maybe"),
        (("provenance", "fixed", "sha256_of_voxels"), "none"),
        (("quality", "verdict", "level"), "fine"),
        (("quality", "region", "share_of_grid"), 1.5),
        (("quality", "maps", 0, "limits"), [1.0]),
        (("quality", "moving", 0, "nmi_before"), "1.2"),
    ],
)
def test_what_is_wrong_is_not_valid(content: dict, place: tuple, value: object) -> None:
    wrong = copy.deepcopy(content)
    inner = wrong
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert not VALIDATOR.is_valid(wrong)
