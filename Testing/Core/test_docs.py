"""README and docs: their Python runs, commands parse, links lead somewhere, settings, files and functions exist."""

import argparse
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from MMRegCore import Grid, Volume, write_volume
from MMRegCore.cli.arguments import build_parser
from MMRegCore.cli.inputs import changes_from
from MMRegCore.config import DEFAULT_PRESET, describe, load_preset, preset_names, with_changes
from MMRegCore.training.recipes import read_settings, recipes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
DOCS = {
    "reports",
    "architecture",
    "conventions",
    "extending",
    "glossary",
    "how-to",
    "index",
    "methods",
    "results",
    "simulator",
    "training",
    "user-guide",
}
# Its examples exist only in a copy of the package, where test_extending runs them.
OF_TEST_EXTENDING = ROOT / "docs" / "extending.md"
RUN_HERE = [page for page in PAGES if page != OF_TEST_EXTENDING]
# Lists settings under the names that they had.
NOW = [page for page in PAGES if page.name != "CHANGELOG.md"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("mmreg ")]


def parsed(command: str) -> argparse.Namespace:
    return build_parser().parse_args(shlex.split(command, comments=True)[1:])


def code_words(page: Path) -> list[str]:
    """What stands in backticks outside of code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(word.split()) for word in re.findall(r"`([^`]+)`", text)]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def each(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


def test_the_pages_are_those_of_the_index():
    assert {page.stem for page in ROOT.glob("docs/*.md")} == DOCS
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert all(f"]({name}.md)" in index for name in DOCS - {"index"})


@each(PAGES)
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
    assert parsed(command).run


@pytest.mark.parametrize("command", [command for page in RUN_HERE for command in commands(page)], ids=str)
def test_commands_set_settings_that_exist(command):
    arguments = parsed(command)
    changes = changes_from(getattr(arguments, "set", []))
    if hasattr(arguments, "preset"):
        with_changes(load_preset(arguments.preset), changes)
    elif hasattr(arguments, "config"):
        config = arguments.config if arguments.config is None else ROOT / arguments.config
        settings = read_settings(recipes()[arguments.name], config if config and config.exists() else None)
        with_changes(settings, changes)


def test_the_commands_were_found():
    assert len(commands(ROOT / "README.md")) == 1
    assert len(commands(ROOT / "docs" / "how-to.md")) >= 15
    assert len(commands(ROOT / "docs" / "training.md")) >= 10


def known_settings() -> set[str]:
    settings = [load_preset(name) for name in preset_names()]
    settings += [recipe.settings_class() for recipe in recipes().values()]
    return {about.key for one in settings for about in describe(one)}


@each(NOW)
def test_settings_that_are_named_exist(page):
    keys = known_settings()
    groups = {".".join(key.split(".")[:n]) for key in keys for n in range(1, key.count(".") + 1)}
    for word in code_words(page):
        key, *_ = word.split("=")
        is_file = key.endswith((".csv", ".json", ".py"))
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", key) and key.partition(".")[0] in groups and not is_file:
            assert key in keys | groups, f"{page.name}: {word}"


@each(NOW)
def test_files_and_functions_that_are_named_exist(page):
    for word in code_words(page):
        if found := re.fullmatch(r"([\w./-]+\.py)(?:: (\w+))?", word):
            places = [base / found[1] for base in (ROOT, ROOT / "MMRegCore")]
            existing = [place for place in places if place.is_file()]
            assert existing or "NAME" in found[1], f"{page.name}: {word}"
            if found[2]:
                assert re.search(rf"\b(def|class) {found[2]}\b", existing[0].read_text("utf-8")), f"{page.name}: {word}"


def test_the_specification_names_its_functions():
    words = code_words(ROOT / "docs" / "methods.md")
    assert len([word for word in words if re.fullmatch(r"[\w/]+\.py: \w+", word)]) >= 20


def test_readme_names_every_preset():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}`" in text for name in preset_names())


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


def test_make_targets_in_the_pages_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"\bmake (\w+)", "\n".join(blocks(page, "sh"))):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


@pytest.mark.parametrize(
    ("page", "number"), [(page.name, number) for page in RUN_HERE for number in range(len(blocks(page, "python")))]
)
def test_python_runs(page, number, tmp_path, monkeypatch):
    source = next(found for found in PAGES if found.name == page)
    monkeypatch.chdir(tmp_path)
    random = torch.Generator().manual_seed(0)
    grid = Grid((16, 17, 18), np.eye(4))
    for name in ("us", "t1", "flair"):
        write_volume(Volume(torch.rand(1, *grid.shape, generator=random), grid), f"{name}.nii.gz")
    exec(compile(blocks(source, "python")[number], f"{page}[{number}]", "exec"), {})


def test_search_range_in_the_readme_is_the_default_one():
    range_mm = load_preset(DEFAULT_PRESET).options.search.range_mm
    assert f"translations of up to {range_mm:g} mm" in (ROOT / "README.md").read_text(encoding="utf-8")
