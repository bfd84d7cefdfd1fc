"""The entry for ExtensionsIndex and what the Extensions Manager shows: both agree, and every file exists."""

import json
import re
import struct
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENTRY = ROOT / "Resources" / "MMReg.json"
# slicer-extension-catalog-entry-schema-v1.0.1.json of Slicer's folder Schemas: nothing else is allowed.
REQUIRED = {"$schema", "category", "scm_url"}
OPTIONAL = {
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "enabled": bool,
}
TIERS = {1, 3, 5}


def extension() -> dict[str, str]:
    """The variables of the extension's CMakeLists.txt, as text: so ExtensionsIndex reads them."""
    text = (ROOT / "CMakeLists.txt").read_text("utf-8")
    return dict(re.findall(r'^set\((EXTENSION_\w+) "([^"]*)"', text, re.MULTILINE))


def test_the_entry_fits_the_schema():
    entry = json.loads(ENTRY.read_text("utf-8"))
    assert REQUIRED <= set(entry) <= {*REQUIRED, *OPTIONAL, "tier"}
    assert all(isinstance(entry[name], str) and entry[name] for name in REQUIRED)
    assert all(isinstance(entry[name], OPTIONAL[name]) for name in set(entry) & set(OPTIONAL))
    assert entry["tier"] in TIERS
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.1.json#")


def test_the_entry_and_the_extension_agree():
    entry, variables = json.loads(ENTRY.read_text("utf-8")), extension()
    assert f"\nproject({ENTRY.stem})\n" in (ROOT / "CMakeLists.txt").read_text("utf-8")
    assert entry["category"] == variables["EXTENSION_CATEGORY"]
    assert entry["build_dependencies"] == variables["EXTENSION_DEPENDS"].split()
    repository = entry["scm_url"].removeprefix("https://github.com/").removesuffix(".git")
    raw = f"https://raw.githubusercontent.com/{repository}/main/"
    assert variables["EXTENSION_HOMEPAGE"].startswith(f"https://github.com/{repository}/blob/main/")
    assert all(address.startswith(raw) for address in addresses(variables))


def addresses(variables: dict[str, str]) -> list[str]:
    """Of the icon and of the screenshots."""
    return [variables["EXTENSION_ICONURL"], *variables["EXTENSION_SCREENSHOTURLS"].split()]


def test_the_files_of_all_addresses_are_in_the_repository():
    variables = extension()
    pictures = [ROOT / address.partition("/main/")[2] for address in addresses(variables)]
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG"), picture
    assert (ROOT / variables["EXTENSION_HOMEPAGE"].partition("/blob/main/")[2]).is_file()
    assert struct.unpack(">II", pictures[0].read_bytes()[16:24]) == (128, 128)
    assert "not a medical device" in variables["EXTENSION_DESCRIPTION"]
    assert variables["EXTENSION_CONTRIBUTORS"]


def test_the_addresses_are_literal():
    assert not any("$" in value for value in extension().values())
    assert len(addresses(extension())) >= 2
    assert all(address.startswith("https://") for address in addresses(extension()))
