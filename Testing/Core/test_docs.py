"""README and docs: their Python runs, their commands parse, their links lead somewhere."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from MMRegCore.cli.arguments import build_parser
from MMRegCore.config import DEFAULT_PRESET, load_preset, preset_names
from MMRegCore.geometry import Grid
from MMRegCore.io.volumes import write_volume
from MMRegCore.volume import Volume

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("mmreg ")]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name) if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


@pytest.mark.parametrize(
    ("page", "command"), [(page.name, command) for page in PAGES for command in commands(page)], ids=str
)
def test_commands_are_ones_that_mmreg_knows(page, command):
    arguments = build_parser().parse_args(shlex.split(command, comments=True)[1:])
    assert arguments.run


def test_the_commands_were_found():
    assert len(commands(ROOT / "README.md")) >= 6


def test_readme_names_every_preset():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}`" in text for name in preset_names())


def test_make_targets_in_the_pages_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"\bmake (\w+)", "\n".join(blocks(page, "sh"))):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


@pytest.mark.parametrize(
    ("page", "number"), [(page.name, number) for page in PAGES for number in range(len(blocks(page, "python")))]
)
def test_python_runs(page, number, tmp_path, monkeypatch):
    source = next(found for found in PAGES if found.name == page)
    monkeypatch.chdir(tmp_path)
    random = torch.Generator().manual_seed(0)
    grid = Grid((24, 26, 28), np.eye(4))
    for name in ("us", "t1", "flair"):
        write_volume(Volume(torch.rand(1, *grid.shape, generator=random), grid), f"{name}.nii.gz")
    exec(compile(blocks(source, "python")[number], f"{page}[{number}]", "exec"), {})


def test_reach_in_the_readme_is_the_default_one():
    reach_mm = load_preset(DEFAULT_PRESET).lc2.reach_mm
    assert f"translations of up to {reach_mm:g} mm" in (ROOT / "README.md").read_text(encoding="utf-8")
