"""Pieces of HTML, colours and pictures that pages are made of."""

from __future__ import annotations

import base64
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from synthseg_slicer.labels import BRAIN
from synthseg_slicer.pages.colors import luminance, visible
from synthseg_slicer.pages.document import document
from synthseg_slicer.pages.markup import Markup, escape, tag
from synthseg_slicer.pages.png import data_uri
from synthseg_slicer.pages.tables import cell, column_table
from synthseg_slicer.table import Column


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf", "Cn"))))
def test_any_text_comes_out_as_it_went_in(text):
    element = ElementTree.fromstring(tag("p", text, title=text))
    assert "".join(element.itertext()) == text and element.get("title") == text


@given(st.text())
def test_whatever_a_file_is_called_the_markup_is_well_formed(text):
    element = ElementTree.fromstring(tag("p", text, title=text))
    assert len(element) == 0
    tag("p", text).encode("utf-8")


def test_undecodable_bytes_and_reversed_writing_are_made_visible():
    assert "\ufffd" in escape(b"a\xff.nii".decode("utf-8", "surrogateescape"))
    assert escape("safe\u202egnp.nii") == "safe\ufffdgnp.nii"


def test_attributes_and_children():
    assert tag("input", checked=True, disabled=False, id=None, data_at="1 2") == '<input checked="" data-at="1 2"/>'
    assert tag("label", "a", ["b", None, (Markup("<i>c</i>"), 4)], for_="x") == '<label for="x">ab<i>c</i>4</label>'
    assert tag("p") == "<p></p>" and tag("path", tag("title", "<")) == "<path><title>&lt;</title></path>"


def test_a_page_without_scripts_allows_none():
    assert "script-src 'none'" in document("t").replace("&#x27;", "'")


def test_every_structure_can_be_seen_on_black():
    for label in BRAIN:
        color = visible(label.color)
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (luminance(rgb) + 0.05) / 0.05 >= 4.5
        assert min(np.subtract(rgb, label.color)) >= 0  # mixed with white only
    assert visible((205, 62, 255)) == "#cd3eff"  # bright enough already
    assert luminance((255, 255, 255)) == pytest.approx(1) and luminance((255, 0, 0)) == pytest.approx(0.2126)


def test_a_picture_comes_back_from_its_address(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (7, 5), dtype=np.uint8)
    kind, _, data = data_uri(grey).partition(",")
    assert kind == "data:image/png;base64"
    (tmp_path / "a.png").write_bytes(base64.b64decode(data, validate=True))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.png"))), grey)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1536849, "1\u202f536\u202f849"), (4531, "4531"), ("-30.73", "\u221230.73"), ("", "–"), (0.5, "0.5"), ("x", "x")],
)
def test_numbers_as_people_write_them(value, text):
    assert cell(value) == text


def test_columns_of_numbers_align_and_the_first_column_names_the_rows():
    columns = [Column("n", "Name", "", "what", ["a", "b"]), Column("v", "Value (%)", "%", "how much", [12.5, 0.125])]
    table = ElementTree.fromstring(column_table("All", columns, total=True)).find("table")
    assert [head.get("scope") for head in table.iter("th")] == ["col", "col", "row", "row"]
    assert [one.text for one in table.iter("td")] == ["12.500", "0.125"]
    assert table.find("caption").text == "All"
    assert [row.get("class") for row in table.find("tbody")] == [None, "total"]
