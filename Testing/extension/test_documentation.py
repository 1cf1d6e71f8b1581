"""The documentation: links lead somewhere, no page is lost, no figure was left to be filled in, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from synthseg_slicer import cli as segmenting
from synthseg_training import cli as training

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("SynthSeg*/**/*.md"),
        *ROOT.glob("Testing/**/*.md"),
        *ROOT.glob("docs/**/*.md"),
    ]
    if ".venv" not in path.parts
)
PROGRAMS = {"synthseg-slicer": segmenting.main, "synthseg-train": training.main}
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ +(.*?) *$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_and_nothing_is_left_to_be_filled_in(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"@@\w*@@|\b(?:TODO|FIXME|NUMBERS|TBD)\b", text)
    for target, anchor in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{target} does not exist"
        assert there.is_relative_to(ROOT), f"{target} lies outside of the repository"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{target} has no heading {anchor}"


def test_the_index_leads_to_every_page():
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target, _ in LINK.findall(index.read_text(encoding="utf-8"))}
    assert {page for page in PAGES if page.is_relative_to(index.parent)} - {index} <= linked


@pytest.mark.parametrize("name", PROGRAMS)
def test_commands_of_the_documentation_exist(name, capsys):
    used: dict[str, set[str]] = {}
    for page in PAGES:
        for command, rest in re.findall(
            rf"{name} ((?:experiment )?[a-z][\w-]*)((?:\\\n|[^\n`|;&#])*)", page.read_text(encoding="utf-8")
        ):
            used.setdefault(command, set()).update(re.findall(r"(?<!\S)--[a-z][a-z_-]*", rest))
    assert len(used) > 3
    for command, options in used.items():
        with pytest.raises(SystemExit) as end:
            PROGRAMS[name]([*command.split(), "--help"])
        assert end.value.code == 0, f"{name} has no command {command}"
        known = set(re.findall(r"--[a-z][a-z_-]*", capsys.readouterr().out))
        assert options <= known, f"{name} {command} has no {', '.join(options - known)}"


def test_the_page_of_tissue_priors_says_what_the_code_draws():
    from synthseg_training.physics import CHANGES, LABEL_TISSUES, TISSUES

    text = (ROOT / "docs" / "reference" / "tissue-priors.md").read_text(encoding="utf-8")
    maps, changes, labels = re.split(r"^## .*$", text, flags=re.MULTILINE)
    number = r"([\d.]+)"
    for part, tissues in ((maps, TISSUES), (changes, CHANGES)):
        shown = {}
        for name, cells in re.findall(r"^\| `(\w+)` \|[^|]*\|((?:[^|]*\|){5})", part, re.MULTILINE):
            values = re.findall(rf"{number} ± {number} \({number}\)", cells)
            shown[name] = [tuple(map(float, three)) for three in values]
        drawn = {
            name: [pytest.approx((one.mean, one.mean_spread, one.std), rel=1e-3) for one in tissue.priors]
            for name, tissue in tissues.items()
            if name != "air"
        }
        assert shown == drawn
    listed = {
        name: [int(one) for one in ids.split(", ")]
        for name, ids in re.findall(r"^\| `(\w+)` \| ([\d, ]+) \|", labels, re.MULTILINE)
    }
    assert {label: name for name, ids in listed.items() for label in ids} == LABEL_TISSUES
