"""The page of a cohort: counts, failures, outliers, distributions, links."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from synthseg_slicer.errors import OutputError
from synthseg_slicer.pages import CohortEntry, write_cohort_page
from synthseg_slicer.pages.charts import MOST_DOTS, WIDTH, distribution

NAMES = ("Left-Hippocampus", "Right-Hippocampus", "Brain-Stem")


def cohort(count: int = 12, seed: int = 0) -> list[CohortEntry]:
    """Return an even cohort."""
    random = np.random.default_rng(seed)
    entries = []
    for index in range(count):
        volumes = {name: float(volume) for name, volume in zip(NAMES, random.uniform(3800, 4200, 3))}
        name = f"sub-{index:02d}"
        entries.append(
            CohortEntry(
                name,
                "done",
                volumes=volumes,
                quality=float(random.uniform(0.78, 0.82)),
                page=f"{name}/report 1.html",
                intracranial=float(random.uniform(1.3e6, 1.4e6)),
            )
        )
    return entries


def changed(entry: CohortEntry, **values) -> CohortEntry:
    return CohortEntry(**{**vars(entry), **values})


def written(path, entries, **options) -> ElementTree.Element:
    write_cohort_page(path, entries, **options)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    text = path.read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>\n")
    return ElementTree.fromstring(re.sub(r"(<(style|script)>).*?(</\2>)", r"\1\3", text, flags=re.S))


def rows(page: ElementTree.Element, title: str) -> list[list[str]]:
    """Return the cells of the table in a section, or nothing if it has none."""
    section = next(one for one in page.iter("section") if one.findtext("h2") == title)
    return [["".join(cell.itertext()) for cell in row] for row in section.findall(".//tbody/tr")]


def counts(page: ElementTree.Element) -> dict[str, int]:
    return {row[0].text: int(row[1].text) for row in page.find("body/main/header/table/tbody")}


def test_every_scan_is_counted_and_every_failure_has_its_reason(tmp_path):
    entries = cohort()
    entries[3] = changed(entries[3], warnings=["The brain reaches the border of the scan."])
    entries += [CohortEntry("bad & worse", "failed", "no head <at all>"), CohortEntry("sub-99", "failed")]
    page = written(tmp_path / "c.html", entries, title="Study 7")
    assert counts(page) == {"Scans": 14, "Segmented": 12, "Failed": 2, "With warnings": 1, "Outliers": 0}
    assert rows(page, "Failures") == [["bad & worse", "no head <at all>"], ["sub-99", "not known"]]
    listed = {row[0]: row for row in rows(page, "All scans")}
    assert list(listed) == [entry.name for entry in entries]
    assert listed["sub-03"][1:] == [
        "done",
        f"{entries[3].quality:.2f}",
        f"{entries[3].intracranial / 1000:.0f}",
        "–",
        "The brain reaches the border of the scan.",
    ]
    assert listed["bad & worse"][1:] == ["failed", "–", "–", "–", "no head <at all>"]
    assert page.findtext("head/title") == page.findtext("body/main/header/h1") == "Study 7"


def test_outliers_are_listed_the_farthest_first_with_what_stands_out(tmp_path):
    entries = cohort()
    entries[1] = changed(entries[1], volumes={**entries[1].volumes, "Brain-Stem": 9000.0})
    entries[5] = changed(entries[5], quality=0.41)
    entries[8] = changed(entries[8], volumes={**entries[8].volumes, "Left-Hippocampus": 0.0})
    page = written(tmp_path / "c.html", entries)
    listed = rows(page, "Outliers")
    assert {row[0] for row in listed[:2]} == {"sub-05", "sub-08"} and listed[2][0] == "sub-01" and len(listed) == 3
    said = {row[0]: row[2] for row in listed}
    assert re.match(r"quality 0\.41, median 0\.(79|80|81) \(z −\d+\.\d\)", said["sub-05"])
    assert said["sub-08"].startswith("Left-Hippocampus is missing")
    assert re.search(r"Brain-Stem 9\.00 ml, median [34]\.\d\d ml \(z \d+\.\d\)", said["sub-01"])
    assert re.search(r"Brain-Stem 0\.6\d+ % of intracranial, median 0\.\d+ %", said["sub-01"])
    assert float(listed[2][1]) > 3.5 and counts(page)["Outliers"] == 3
    diamonds = [path.findtext("title") for path in page.iter("path") if path.get("class") == "far"]
    assert any(title.startswith("sub-01: 9.00 ml, z ") for title in diamonds)
    assert any(title.startswith("sub-05: 0.41") for title in diamonds)


def test_the_rule_is_said_and_few_scans_are_not_compared(tmp_path):
    page = written(tmp_path / "c.html", cohort(3))
    text = " ".join("".join(page.itertext()).split())
    assert "modified z-score beyond ±3.5" in text and "below 0.6" in text
    assert "With fewer than 8 segmented scans no z-scores are computed." in text
    assert "No scan failed." in text and "No scan is listed." in text
    assert "fewer than" not in "".join(written(tmp_path / "c.html", cohort()).itertext())


def test_links_are_relative_and_cannot_become_another_scheme(tmp_path):
    entries = [changed(entry, page=page) for entry, page in zip(cohort(2), ("../a b/c#1.html", "javascript:alert(1)"))]
    page = written(tmp_path / "c.html", entries)
    assert {link.get("href") for link in page.iter("a")} == {"../a%20b/c%231.html", "javascript%3Aalert%281%29"}
    with pytest.raises(ValueError, match="relative"):
        changed(entries[0], page="/etc/passwd")
    with pytest.raises(ValueError, match="relative"):
        changed(entries[0], page="a\\b.html")
    with pytest.raises(ValueError, match="done or failed"):
        changed(entries[0], status="fine")


def test_distributions_show_each_scan_in_its_place_and_say_the_same_in_numbers(tmp_path):
    entries = cohort()
    page = written(tmp_path / "c.html", entries)
    listed = rows(page, "Distributions")
    assert [row[0] for row in listed] == ["Quality", "Total-Intracranial", *NAMES]
    volumes = [entry.volumes["Brain-Stem"] for entry in entries]
    expected = [f"{value / 1000:.2f} ml" for value in (min(volumes), np.median(volumes), max(volumes))]
    assert listed[-1][2:5] == expected
    table = next(one for one in page.iter("table") if one.findtext("caption", "").startswith("Distribution"))
    volume, share = table.find("tbody")[-1].iter("svg")
    assert expected[1] in volume.get("aria-label") and "12 values" in share.get("aria-label")
    dots = {dot.findtext("title").split(":")[0]: float(dot.get("cx")) for dot in volume.iter("circle")}
    assert len(dots) == 12
    order = np.argsort(volumes)
    assert sorted(dots, key=dots.get) == [entries[index].name for index in order]


def test_many_values_are_bars_and_outliers_stay_apart():
    values = np.concatenate([np.random.default_rng(0).normal(5, 0.3, 1000), [9.0]])
    far = values > 8
    svg = ElementTree.fromstring(distribution(values, [str(i) for i in range(len(values))], far, "text"))
    bars = [one for one in svg.iter("rect") if one.get("class") == "bar"]
    assert 5 < len(bars) < 60 and not list(svg.iter("circle"))
    (dot,) = svg.iter("path")
    assert dot.findtext("title") == "1000" and float(re.match(r"M([\d.]+)", dot.get("d"))[1]) > 0.9 * WIDTH
    tallest = max(bars, key=lambda bar: float(bar.get("height")))
    assert 0.1 * WIDTH < float(tallest.get("x")) < 0.5 * WIDTH
    every = ElementTree.fromstring(distribution(values, ["x"] * len(values), np.ones(len(values), bool), "text"))
    assert len(list(every.iter("path"))) == MOST_DOTS


def test_the_box_holds_the_middle_half():
    svg = ElementTree.fromstring(distribution(np.arange(101.0), [""] * 101, np.zeros(101, bool), "text"))
    dots = sorted(float(dot.get("cx")) for dot in svg.iter("circle"))
    box = svg.find("rect")
    assert float(box.get("x")) == pytest.approx(dots[25], abs=0.2)
    assert float(box.get("x")) + float(box.get("width")) == pytest.approx(dots[75], abs=0.2)
    whisker, median = svg.findall("line")
    assert float(median.get("x1")) == pytest.approx(dots[50], abs=0.2)
    assert (float(whisker.get("x1")), float(whisker.get("x2"))) == (dots[0], dots[100])
    same = ElementTree.fromstring(distribution(np.full(5, 3.0), [""] * 5, np.zeros(5, bool), "text"))
    assert {float(dot.get("cx")) for dot in same.iter("circle")} == {WIDTH / 2}


def test_gaps_and_strange_names_do_no_harm(tmp_path):
    nameless = CohortEntry("\udcff\u202e<b>", "done", volumes={"Odd": float("nan")}, quality=float("nan"))
    page = written(tmp_path / "c.html", [nameless, *cohort(9)])
    assert rows(page, "All scans")[0] == ["\ufffd\ufffd\ufffd\ufffd<b>", "done", "–", "–", "–", "–"]
    assert rows(page, "Distributions")[2][:2] == ["Odd", "–"]
    assert counts(written(tmp_path / "c.html", []))["Scans"] == 0


def test_two_runs_give_the_same_page(tmp_path):
    write_cohort_page(tmp_path / "a.html", cohort())
    write_cohort_page(tmp_path / "b.html", cohort())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_bad_targets_are_refused(tmp_path):
    with pytest.raises(OutputError, match="unknown suffix"):
        write_cohort_page(tmp_path / "a.txt", cohort())
