"""What the extensions index checks of an entry, and that all places which describe the project agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
from PIL import Image

# The entry's format in version 1.0.2, as Slicer publishes it: these keys, no other, three of them required.
ENTRY = {
    "type": "object",
    "additionalProperties": False,
    "required": ["$schema", "category", "scm_url"],
    "properties": {
        "$schema": {"type": "string", "pattern": r"/slicer-extension-catalog-entry-schema-v1\.0\.2\.json#?$"},
        "category": {"type": "string"},
        "scm_url": {"type": "string", "pattern": "^(https|git)://"},
        "scm_revision": {"type": "string"},
        "scm_type": {"enum": ["git", "local"]},
        "build_dependencies": {"type": "array", "items": {"type": "string"}},
        "build_subdirectory": {"type": "string"},
        "dicom_support_rule": {"type": "string"},
        "enabled": {"type": "boolean"},
        "tier": {"type": "integer", "minimum": 1, "maximum": 5},
    },
}
NAME = "SynthSegSlicer"
ICON_BYTES = 20_000


@pytest.fixture(scope="session")
def entry(root: Path) -> dict:
    """The entry for the extensions index."""
    return json.loads((root / f"{NAME}.json").read_text(encoding="utf-8"))


def pyproject(root: Path) -> dict:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def local_file(url: str, entry: dict, root: Path) -> Path:
    """Return the file in the tree that a raw.githubusercontent.com address of the repository shows."""
    prefix = f"https://raw.githubusercontent.com{urlsplit(entry['scm_url']).path}/{entry['scm_revision']}/"
    assert url.startswith(prefix)
    return root / url.removeprefix(prefix)


def test_the_entry_is_valid(entry):
    jsonschema.validate(entry, ENTRY)


@pytest.mark.parametrize("change", [{"tier": 0}, {"scmurl": "https://x"}, {"category": None}, {"scm_type": "svn"}])
def test_a_wrong_entry_is_not_valid(entry, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**entry, **change}, ENTRY)


@pytest.mark.parametrize("file", [f"{NAME}.json", "CMakeLists.txt", f"{NAME}/CMakeLists.txt"])
def test_lines_end_with_lf(root, file):
    content = (root / file).read_bytes()
    assert b"\r" not in content and content.endswith(b"\n")


def test_names_follow_the_rules_of_the_index(root, entry):
    text = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.findall(r"project\s*\(\s*([^\s)]+)", text)[0] == NAME
    assert not NAME.lower().startswith("slicer")
    assert "slicer" in urlsplit(entry["scm_url"]).path.rsplit("/", 1)[-1].lower()


def test_every_variable_of_the_description_is_one_line(root, description):
    text = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    assert len(re.findall("EXTENSION_", text.replace("Slicer_EXTENSION_", ""))) == len(description)
    assert description.keys() == {
        *("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS")
    }


def test_the_description_agrees_with_the_entry(entry, description):
    assert description["HOMEPAGE"] == entry["scm_url"]
    assert description["CATEGORY"] == entry["category"]
    assert description["DEPENDS"].split() == entry["build_dependencies"] == ["PyTorch"]


def test_the_description_agrees_with_the_package_and_the_citation(root, description):
    project = pyproject(root)
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    assert description["CONTRIBUTORS"] == ", ".join(author["name"] for author in project["authors"])
    assert f"\n  - name: {description['CONTRIBUTORS']}\n" in citation
    assert f"\ntitle: {NAME}\n" in citation
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    for file in ("pyproject.toml", "CITATION.cff", "README.md"):  # where one names the repository, it is this one
        addresses = re.findall(rf"https://github\.com/([\w.-]+/{NAME})\b", (root / file).read_text(encoding="utf-8"))
        assert {f"https://github.com/{address}" for address in addresses} <= {description["HOMEPAGE"]}


def test_the_licence_and_the_readme_lie_in_the_root(root):
    assert "Apache License" in (root / "LICENSE.txt").read_text(encoding="utf-8")
    assert NAME in (root / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", [f"{NAME}.png", f"{NAME}/Resources/Icons/{NAME}.png"])
def test_an_icon_is_small_square_and_has_transparent_corners(root, file):
    with Image.open(root / file) as icon:
        assert icon.format == "PNG" and icon.size == (128, 128)
        assert icon.convert("RGBA").getpixel((0, 0))[3] == 0
        assert icon.convert("RGBA").getpixel((64, 64))[3] == 255
    assert (root / file).stat().st_size < ICON_BYTES


def test_addresses_of_pictures_lead_to_pictures_in_the_tree(root, entry, description):
    assert local_file(description["ICONURL"], entry, root) == root / f"{NAME}.png"
    for url in description["SCREENSHOTURLS"].split():
        with Image.open(local_file(url, entry, root)) as picture:
            picture.verify()
