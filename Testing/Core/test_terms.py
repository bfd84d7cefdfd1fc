"""Terms that were given up for those of the field do not come back: identifiers, settings, labels, sentences.

Only what cannot mean anything else is listed; docs/glossary.md has the terms that are used.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("MMRegCore", "MMRegSlicer", "Resources", "benchmarks", "docs")
FILES = ("README.md", "CONTRIBUTING.md", "CITATION.cff", "CMakeLists.txt", "Makefile", "pyproject.toml")
SUFFIXES = {".cff", ".j2", ".json", ".md", ".py", ".toml", ".txt", ".ui"}
# Measurements are kept as they were recorded. (CHANGELOG.md lists the renames, and is not read either.)
RECORDS = ROOT / "benchmarks" / "results"
# Each with the reason why it stays.
EXCEPTIONS = {
    'random_stream(seed, "tremor")': "the name of a random stream decides its numbers, and with them every case",
}

IDENTIFIERS = [
    "_as_known",
    "_unlike",
    "Agreement",
    "around_evidence",
    "belongings",
    "ChoiceSettings",
    "companions",
    "coverage_share_after",
    "coverage_share_before",
    "lattice_mm",
    "LearnedSettings",
    "longest_gradient",
    "nearly_constant",
    "own_echoes",
    "reach_mm",
    "rest_length_mm",
    "rest_mm",
    "rotation_degrees",
    "stretch_percent",
    "take_keys",
    "told_terms",
    "tremor",
    "tremor_mm",
    "unseen_sulci",
    "upright",
    "why_not",
    "wide_reach_mm",
    "with_channels_together",
]
CALLS = ["anyone", "described", "doubled", "halved", "leaky", "precise", "still"]
CLASSES = ["Kept", "Place", "Seen"]
SETTINGS = [
    "bilevel.begin",
    "choice.compete",
    "choice.least_improvement",
    "choice.significance",
    "dns.features",
    "dns.form",
    "dns.start",
    "lc2.evidence",
    "lc2.lattice_mm",
    "lc2.motion",
    "lc2.radius",
    "lc2.reach_mm",
    "lc2.wide_reach_mm",
    "learned.instance",
    "learned.precision",
    "learned.refine",
    "learned.weights",
    "mcbo.features",
    "mcbo.masked",
    "network.describer",
    "pairs.known",
    "qa.choice",
    "views.crop_voxel",
    "views.synthetic",
    "views.ultrasound",
    "views.zoom",
]
SENTENCES = (
    r"\bbring(s|ing)?\b.{0,60}\binto place\b",
    r"\bcarried on\b",
    r"\bdrawn back\b",
    r"\bdo not use this result:",
    r"\bgo to the worst\b",
    r"\blook at the images before you believe it\b",
    r"\bmoved as a whole\b",
    r"\bnothing agreed clearly better\b",
    r"\bnothing speaks against this result\b",
    r"\bput under the transform\b",
    r"\breview this result with care\b",
    r"\bthe deformation folds in\b",
    r"\bwhat competed\b",
    r"\bwhere the images lie\b",
    r"\bwhere the (MR|ultrasound) is evidence\b",
    r"\bback to the preset\b",
    r"\bchoose what moves along\b",
    r"\bharden what lies under the transform\b",
)
PATTERNS = [
    *(rf"\b{word}\b" for word in IDENTIFIERS),
    *(rf"(?<![\w.]){re.escape(key)}(?!\w)" for key in SETTINGS),
    *(rf"(?<!\w){word}\(" for word in CALLS),
    *(rf"\bclass {word}\b" for word in CLASSES),
    *SENTENCES,
]


def paths() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    found = [path for path in found if path.suffix in SUFFIXES and RECORDS not in path.parents]
    return [*found, *(ROOT / name for name in FILES)]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Each file in one line, without the exceptions."""
    read = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths()}
    for exception in EXCEPTIONS:
        assert any(exception in text for text in read.values()), f"no longer an exception: {exception}"
        read = {name: text.replace(exception, "") for name, text in read.items()}
    return {name: " ".join(text.split()) for name, text in read.items()}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_term_is_gone(texts, pattern):
    found = {
        name: match.group()
        for name, text in texts.items()
        if (match := re.search(pattern, text, re.IGNORECASE if pattern in SENTENCES else 0))
    }
    assert found == {}


def test_the_files_were_read(texts):
    assert len(texts) > 200
    assert {"README.md", "docs/methods.md", "MMRegSlicer/Resources/UI/MMRegSlicer.ui"} <= set(texts)
    assert "MMRegCore/presets/lc2.json" in texts
