"""The recipes of docs/extending.md: each adds as many files as it says, to a copy of MMRegCore, and they work."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILES_PER_RECIPE = {"A similarity measure": 1, "A method": 2, "A network": 3, "A quality map": 1}

USE = {
    "A similarity measure": """
        from MMRegCore.config import load_preset, with_changes
        from MMRegCore.similarity import patch_similarity, similarity_names
        assert "toy" in similarity_names()
        image = torch.rand(1, 1, 8, 8, 8)
        assert float(patch_similarity("toy", 2).loss(image, image)) == 0
        with_changes(load_preset("lc2"), {"lc2.search.similarity": "toy", "model_selection.similarity": "toy"})
    """,
    "A method": """
        from MMRegCore.config import load_preset, with_changes
        assert with_changes(load_preset("toy"), {"toy.fraction": "0.5"}).options.fraction == 0.5
    """,
    "A network": """
        from MMRegCore.config import load_preset
        from MMRegCore.networks import find_network
        from MMRegCore.training.recipes import find_recipe
        assert load_preset("toy-network").options.architecture == "toy"
        network = find_network("toy")(find_network("toy").settings_class())
        assert network(torch.rand(1, 1, 8, 8, 8), torch.rand(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)
        assert find_recipe("toy").settings_class().smoothness == 1.0
    """,
    "A quality map": """
        import numpy as np
        from MMRegCore import Grid, SpatialTransform, Volume
        from MMRegCore.assessment.assess import assess
        grid = Grid((12, 12, 12), np.eye(4))
        image = Volume(torch.rand(1, 12, 12, 12), grid)
        matrix = np.eye(4)
        matrix[2, 3] = 3.0
        maps = {m.summary.name: m for m in assess(image, [image], SpatialTransform.from_matrix(matrix)).maps}
        assert abs(maps["toy"].summary.inside.mean - 3) < 1e-5 and maps["toy"].summary.file == "toy.nii.gz"
    """,
}


def sections() -> dict[str, list[tuple[str, str, str]]]:
    """Heading → code blocks (language, title, text)."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {heading: BLOCK.findall(body) for heading, body in zip(parts[::2], parts[1::2], strict=True)}


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A checkout with all the files of the page."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "MMRegCore", checkout / "MMRegCore", ignore=shutil.ignore_patterns("__pycache__"))
    for blocks in sections().values():
        for _, title, code in blocks:
            if title:
                assert not (checkout / title).exists()
                (checkout / title).write_text(code, encoding="utf-8")
    return checkout


def run(checkout: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("heading", "count"), FILES_PER_RECIPE.items())
def test_a_recipe_adds_as_many_files_as_promised(heading, count):
    assert len([title for _, title, _ in sections()[heading] if title]) == count


@pytest.mark.parametrize("heading", FILES_PER_RECIPE)
def test_the_page_works(extended, heading):
    code = "import torch\n" + re.sub(r"^ {8}", "", USE[heading], flags=re.MULTILINE)
    snippets = [text for language, title, text in sections()[heading] if language == "python" and not title]
    code = "\n".join([code.rstrip(), *snippets])
    run(extended, "-c", code)


def test_what_was_added_is_listed_for_users(extended):
    presets = json.loads(run(extended, "-m", "MMRegCore", "presets", "--json"))["presets"]
    toy = next(preset for preset in presets if preset["name"] == "toy")
    assert "toy.fraction" in [setting["key"] for setting in toy["settings"]]
    assert "smoothness" in run(extended, "-m", "MMRegCore", "train", "toy", "--show")
