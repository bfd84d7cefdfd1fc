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
    """The variables of the extension's CMakeLists.txt, with those that they refer to put in."""
    found: dict[str, str] = {}
    for name, value in re.findall(r'^set\((\w+) "([^"]*)"', (ROOT / "CMakeLists.txt").read_text("utf-8"), re.MULTILINE):
        found[name] = re.sub(r"\$\{(\w+)\}", lambda match: found[match[1]], value)
    return found


def test_the_entry_fits_the_schema():
    entry = json.loads(ENTRY.read_text("utf-8"))
    assert REQUIRED <= set(entry) <= {*REQUIRED, *OPTIONAL, "tier"}
    assert all(isinstance(entry[name], str) and entry[name] for name in REQUIRED)
    assert all(isinstance(entry[name], OPTIONAL[name]) for name in set(entry) & set(OPTIONAL))
    assert entry["tier"] in TIERS
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.1.json#")


def test_the_entry_and_the_extension_agree():
    entry, variables = json.loads(ENTRY.read_text("utf-8")), extension()
    assert f"project({ENTRY.stem} " in (ROOT / "CMakeLists.txt").read_text("utf-8")
    assert entry["category"] == variables["EXTENSION_CATEGORY"]
    assert entry["build_dependencies"] == variables["EXTENSION_DEPENDS"].split()
    assert entry["scm_url"] == f"https://github.com/{variables['MMReg_REPOSITORY']}.git"


def test_the_files_of_all_addresses_are_in_the_repository():
    variables = extension()
    addresses = [variables["EXTENSION_ICONURL"], *variables["EXTENSION_SCREENSHOTURLS"].split()]
    pictures = [ROOT / address.removeprefix(f"{variables['MMReg_RAW']}/") for address in addresses]
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG"), picture
    assert (ROOT / variables["EXTENSION_HOMEPAGE"].partition("/blob/main/")[2]).is_file()
    assert struct.unpack(">II", pictures[0].read_bytes()[16:24]) == (128, 128)
    assert "not a medical device" in variables["EXTENSION_DESCRIPTION"]
    assert variables["EXTENSION_CONTRIBUTORS"]
