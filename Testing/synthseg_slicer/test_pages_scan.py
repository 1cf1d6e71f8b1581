"""The page of one scan: what it says, shows and refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk
from reports import AFFINE, GREY, head_labels, head_lesions, head_scan, head_segmentation
from svg_paths import filled

from synthseg_slicer import segment
from synthseg_slicer.cli import main
from synthseg_slicer.errors import OutputError
from synthseg_slicer.pages import write_scan_page
from synthseg_slicer.scan import Scan
from synthseg_slicer.stroke import segment_lesions
from synthseg_slicer.table import columns

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>window.hacked = 1</script>"><img src=x onerror="window.hacked = 2">'
PLANES = ("axial", "coronal", "sagittal")


def parsed(text: str) -> ElementTree.Element:
    """Return the page as a tree, which it can only become if it is well-formed; style and script are text in HTML."""
    assert text.startswith("<!DOCTYPE html>\n")
    body = text.removeprefix("<!DOCTYPE html>\n")
    return ElementTree.fromstring(re.sub(r"(<(style|script)>).*?(</\2>)", r"\1\3", body, flags=re.S))


def written(path, *arguments, **options) -> tuple[str, ElementTree.Element]:
    write_scan_page(path, *arguments, **options)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    text = path.read_text(encoding="utf-8")
    return text, parsed(text)


def table_of(page: ElementTree.Element, caption: str) -> list[list[str]]:
    table = next(one for one in page.iter("table") if one.findtext("caption") == caption)
    return [["".join(cell.itertext()) for cell in row] for row in table.find("tbody")]


def pixels(figure: ElementTree.Element, folder) -> np.ndarray:
    """Return the grey picture of a slice, [row, column]."""
    data = figure.find("svg/image").get("href").removeprefix("data:image/png;base64,")
    (folder / "slice.png").write_bytes(base64.b64decode(data))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "slice.png")))


def figures(page: ElementTree.Element, plane: str) -> list[ElementTree.Element]:
    section = next(one for one in page.iter("section") if one.get("aria-labelledby") == f"{plane}-title")
    return list(section.iter("figure"))


@pytest.fixture
def scan() -> Scan:
    return head_scan(name="head of June")


def test_the_page_says_what_was_measured(scan, tmp_path):
    result = head_segmentation(scan)
    _, page = written(tmp_path / "a.html", scan, result)
    rows = table_of(page, "Volumes of the structures")
    assert [row[0] for row in rows] == [row.name for row in result.rows]
    names = [column.title for column in columns(result.rows)]
    (left,) = (dict(zip(names, row)) for row in rows if row[0] == "Left-Hippocampus")
    expected = next(row for row in result.rows if row.name == "Left-Hippocampus")
    assert left["Volume (mm³)"] == str(round(expected.volume)) and left["Quality"] == "0.800"
    assert left["From (mm³)"] == str(round(expected.volume / 1.1)) and left["To (mm³)"] == str(
        round(expected.low * 1.21)
    )
    assert left["Asymmetry (%)"].replace("\u2212", "-") == f"{expected.asymmetry:.2f}"
    text = " ".join("".join(page.itertext()).split())
    for fact in ("0.81 of 1", "no sign of failure", "52 × 60 × 48 voxels of 1.5 × 1.5 × 2 mm", "No warnings"):
        assert fact in text
    for fact in ("brain 1.2.3", "b" * 64, "a" * 64, "9.8.7", "predict 20.2", "fast: no", "Somebody et al."):
        assert fact in text
    assert f"{result.intracranial / 1000:.0f} ml" in text


def test_warnings_come_in_full_and_name_the_file_but_no_folder(scan, tmp_path):
    path = tmp_path / "Jane Doe 1970" / "t1.nii.gz"
    scan = Scan(scan.data, scan.affine, path)
    result = head_segmentation(scan, (f"{path}: 3 voxels were replaced.", "The result is probably wrong."))
    (tmp_path / "out").mkdir()
    text, page = written(tmp_path / "out" / "a.html", scan, result)
    items = ["".join(item.itertext()) for item in page.iter("li")]
    assert items == ["Warning: t1.nii.gz: 3 voxels were replaced.", "Warning: The result is probably wrong."]
    assert "Jane" not in text and str(tmp_path) not in text
    lesions = head_lesions(scan)
    other = path.with_name("flair.nii.gz")
    inputs = [{"name": str(one), "sha256": None} for one in (path, other)]
    lesions.provenance.update(inputs=inputs, warnings=[f"{other}: 3 voxels were replaced."])
    text, page = written(tmp_path / "out" / "a.html", scan, lesions)
    assert "".join(page.find(".//li").itertext()) == "Warning: flair.nii.gz: 3 voxels were replaced."
    assert "Jane" not in text and "t1.nii.gz, SHA-256 not known" in "".join(page.itertext())
    assert page.findtext("head/title") == "t1.nii.gz – segmentation"


def test_names_are_text_whatever_they_look_like(tmp_path):
    scan = head_scan(name=EVIL)
    _, page = written(tmp_path / "a.html", scan, head_segmentation(scan, (EVIL,)))
    assert "".join(page.find("body/main/header/h1").itertext()) == f"Segmentation of {EVIL}"
    assert len(list(page.iter("script"))) == 1 and not list(page.iter("img"))


def test_nothing_is_loaded_and_only_the_pages_own_script_may_run(scan, tmp_path):
    text, page = written(tmp_path / "a.html", scan, head_segmentation(scan))
    policy = next(meta.get("content") for meta in page.iter("meta") if meta.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for kind in ("style", "script"):
        (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for element in page.iter():
        for name in ("href", "src", "srcset", "action", "style"):
            assert (element.get(name) or "data:").startswith("data:")
        assert not [name for name in element.keys() if name.startswith("on")]
    assert "@import" not in text and "url(" not in text


@pytest.mark.parametrize("native", [True, False])
def test_outlines_lie_on_the_anatomy_they_name_in_radiological_view(native, tmp_path):
    """Pictures are compared with labels that were looked up by their world coordinates."""
    scan, labels = head_scan(), head_labels()
    if not native:  # any order and direction of axes
        labels, affine = labels.transpose(2, 0, 1)[::-1], AFFINE[:, [2, 0, 1, 3]].copy()
        affine[:3, 3] += affine[:3, 0] * (labels.shape[0] - 1)
        affine[:3, 0] *= -1
        result = head_segmentation(scan)
        result = type(result)(**{**vars(result), "labels": labels, "affine": affine})
        scan = Scan(scan.data.transpose(2, 0, 1)[::-1], affine)
    else:
        result = head_segmentation(scan)
    _, page = written(tmp_path / "a.html", scan, result)
    size = {"axial": (1.5, 1.5), "coronal": (1.5, 2.0), "sagittal": (1.5, 2.0)}
    right_at_left = 0
    for plane in PLANES:
        for figure in figures(page, plane):
            grey = pixels(figure, tmp_path)
            svg = figure.find("svg")
            width, height = map(float, svg.get("viewBox").split()[2:])
            assert (width, height) == pytest.approx(np.multiply(grey.shape[::-1], size[plane]))
            group = svg.find("g[@class='structures']")
            assert group.get("transform") == "scale({:.6g} {:.6g})".format(*(one / 2 for one in size[plane]))
            masks = {path.get("class"): filled(path.get("d"), grey.shape) for path in group}
            for label in (2, 3, 16, 41, 42):
                inside = grey[masks.get(f"structures-{label}", np.zeros(grey.shape, bool))]
                level = GREY[label] / 185 * 0.85 * 255
                assert (np.abs(inside - level) < 20).all(), (plane, label)  # other tissue is farther away
            if plane != "sagittal" and {"structures-17", "structures-53"} <= masks.keys():
                left, right = (np.argwhere(masks[f"structures-{label}"])[:, 1].mean() for label in (17, 53))
                assert right < left
                right_at_left += 1
            if plane != "axial" and {"structures-16", "structures-2"} <= masks.keys():
                stem, white = (np.argwhere(masks[f"structures-{label}"])[:, 0].mean() for label in (16, 2))
                assert stem > white  # below
    assert right_at_left > 4


def test_places_are_world_coordinates(scan, tmp_path):
    _, page = written(tmp_path / "a.html", scan, head_segmentation(scan))
    counts = []
    for plane, ways in zip(PLANES, ("IS", "PA", "LR")):
        places = []
        for figure in figures(page, plane):
            text = figure.findtext("figcaption")
            way, number = re.fullmatch(rf"([{ways}]) (\d+) mm", text).groups()
            places.append(int(number) * (1 if way == ways[1] else -1))
            assert (
                figure.find("svg")
                .get("aria-label")
                .startswith(f"{plane.capitalize()} slice at {text} with outlines of ")
            )
            areas = {path.get("class"): path for path in figure.find("svg/g")}
            counts.append(("structures-16" in areas, plane, places[-1]))
        assert places == sorted(places) and 10 <= len(places) <= 36
    # the brain stem's ellipsoid lies at (0, -15, -12), with radii of 8, 8 and 14 mm
    seen = {plane: [place for there, of, place in counts if there and of == plane] for plane in PLANES}
    assert -26 <= min(seen["axial"]) and max(seen["axial"]) <= 2
    assert -23 <= min(seen["coronal"]) <= max(seen["coronal"]) <= -7
    assert -8 <= min(seen["sagittal"]) <= max(seen["sagittal"]) <= 8


def test_every_picture_has_a_text_and_every_control_a_label(scan, tmp_path):
    _, page = written(tmp_path / "a.html", scan, head_segmentation(scan))
    assert page.get("lang") == "en"
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in page.iter("svg"))
    named = {label.get("for") for label in page.iter("label")}
    assert {one.get("id") for kind in ("input", "select") for one in page.iter(kind)} <= named
    levels = [int(element.tag[1]) for element in page.iter() if re.fullmatch(r"h\d", element.tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and max(np.diff(levels)) <= 1
    assert all(head.get("scope") in ("col", "row") for head in page.iter("th"))
    for figure in figures(page, "axial"):
        for path in figure.find("svg/g"):
            assert path.findtext("title")


def test_finding_a_structure_leads_to_the_slice_that_shows_most_of_it(scan, tmp_path):
    _, page = written(tmp_path / "a.html", scan, head_segmentation(scan))
    options = {option.get("value"): option for option in page.iter("option")}
    assert options["structures-53"].text == "Right-Hippocampus" and "structures-4" not in options
    for plane, number in zip(PLANES, map(int, options["structures-53"].get("data-at").split())):
        sizes = [
            sum(filled(p.get("d"), (60, 60)).sum() for p in one.find("svg/g") if p.get("class") == "structures-53")
            for one in figures(page, plane)
        ]
        assert sizes[number] == max(sizes) > 0


def test_some_slices_of_each_plane_are_for_paper(scan, tmp_path):
    _, page = written(tmp_path / "a.html", scan, head_segmentation(scan))
    for plane in PLANES:
        assert sum(figure.get("class") == "printed" for figure in figures(page, plane)) == 6


def test_finer_scans_have_fewer_slices(scan, tmp_path, monkeypatch):
    counts = {}
    for most in (10**9, 40_000, 1):
        monkeypatch.setattr("synthseg_slicer.pages.slices.SIZE", most)
        write_scan_page(tmp_path / "a.html", scan, head_segmentation(scan))
        page = parsed((tmp_path / "a.html").read_text(encoding="utf-8"))
        counts[most] = [len(figures(page, plane)) for plane in PLANES]
    assert counts[10**9] == [36, 36, 36] and counts[1] == [10, 10, 10]
    assert all(10 < count < 36 for count in counts[40_000])


def test_fine_voxels_are_averaged_in_the_picture_but_not_in_the_outlines(scan, tmp_path):
    """The same head with voxels of a quarter: the picture's pixels stay, outlines have four times the steps."""
    result = head_segmentation(scan)
    quarter = np.diag([0.25, 0.25, 0.25, 1])
    quarter[:3, 3] = -0.375  # middle of the first small voxel in large ones
    fine = AFFINE @ quarter
    labels, image = (one.repeat(4, 0).repeat(4, 1).repeat(4, 2) for one in (result.labels, scan.data))
    _, page = written(
        tmp_path / "a.html", scan, type(result)(**{**vars(result), "labels": labels, "affine": fine}), image=image
    )
    figure = figures(page, "axial")[18]
    svg, grey = figure.find("svg"), pixels(figure, tmp_path)
    picture, box = svg.find("image"), [float(one) for one in svg.get("viewBox").split()[2:]]
    size = [float(picture.get(one)) for one in ("width", "height")]
    np.testing.assert_allclose(np.divide(size, grey.shape[::-1]), 0.75)  # two voxels of 0.375 mm
    assert all(0 <= whole - shown < 0.75 for whole, shown in zip(size, box))
    (path,) = (one for one in svg.find("g") if one.get("class") == "structures-2")
    mask = filled(path.get("d"), [round(one / 0.375) for one in box[::-1]])
    white = mask[: 2 * grey.shape[0] : 2, : 2 * grey.shape[1] : 2][: grey.shape[0], : grey.shape[1]]
    assert np.median(grey[: white.shape[0], : white.shape[1]][white]) == pytest.approx(180 / 185 * 0.85 * 255, abs=12)


def test_weights_without_calibration_are_called_so(scan, tmp_path):
    text, _ = written(tmp_path / "a.html", scan, head_segmentation(scan, scores=False))
    assert "these weights have no calibration" in text


def test_an_empty_result_shows_the_whole_scan(scan, tmp_path):
    result = head_segmentation(scan)
    empty = type(result)(**{**vars(result), "labels": np.zeros_like(result.labels)})
    _, page = written(tmp_path / "a.html", scan, empty)
    assert pixels(figures(page, "axial")[0], tmp_path).shape == (60, 52)
    assert not list(page.iter("path"))


def test_lesions_are_drawn_and_listed(scan, tmp_path):
    result = head_lesions(scan)
    _, page = written(tmp_path / "a.html", scan, result)
    rows = table_of(page, "Lesions, largest first")
    assert [(row[0], row[1], row[-2]) for row in rows] == [
        (str(one.number), str(round(one.volume)), one.side) for one in result.lesions
    ]
    loads = {row[0]: row for row in table_of(page, "How much of each structure is lesion")}
    assert float(loads["Brain"][4]) == pytest.approx(result.loads[-1].percent, abs=0.006)
    assert "Brain-Stem" not in loads and "Right-Cerebral-White-Matter" in loads
    assert f"2 lesions, together {result.volume / 1000:.1f} ml" in "".join(page.itertext())
    assert table_of(page, "Volumes of the structures")
    first = result.lesions[0]
    for axis, plane in zip((2, 1, 0), PLANES):
        at = next(one for one in page.iter("input") if one.get("id") == f"{plane}-slider").get("value")
        shown = figures(page, plane)[int(at)]
        (path,) = (one for one in shown.find("svg/g[@class='lesions']") if one.get("class") == "lesions-1")
        assert path.findtext("title") == f"Lesion 1, {first.volume / 1000:.2f} ml"
        place = shown.findtext("figcaption")
        assert int(place.split()[1]) * (-1 if place[0] in "LPI" else 1) == pytest.approx(first.centre[axis], abs=1.1)


def test_lesions_without_anatomy_show_the_head(scan, tmp_path):
    _, page = written(tmp_path / "a.html", scan, head_lesions(scan, anatomy=False))
    assert pixels(figures(page, "axial")[0], tmp_path).shape[0] > 45  # the brain is 50 voxels long, lesions are 12
    captions = {table.findtext("caption") for table in page.iter("table")}
    assert "Lesions, largest first" in captions and "Volumes of the structures" not in captions


def test_no_lesion_is_said_in_words(scan, tmp_path):
    text, _ = written(tmp_path / "a.html", scan, head_lesions(scan, found=False))
    assert "No lesion was found." in text


def test_segmenting_writes_the_page_with_the_conformed_scan(scan_file, threshold_model, tmp_path):
    result = segment(scan_file, report=tmp_path / "r.html", model=threshold_model)
    page = parsed((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert {one.name for one in tmp_path.iterdir() if one.is_file()} == {"r.html", "r.json"}
    (stem,) = (row for row in table_of(page, "Volumes of the structures") if row[0] == "Brain-Stem")
    assert stem[2] == str(round(result.volumes[16]))
    write_scan_page(tmp_path / "again.html", Scan(*_read(scan_file), scan_file), result)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == (tmp_path / "r.html").read_text(encoding="utf-8")


def _read(path):
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1.0, -1, 1, 1]) @ affine


def test_the_command_line_writes_the_page(scan_file, tiny_weights, tmp_path, capsys):
    def run(scans: list, report: str, output: str) -> int:
        words = ["segment", *scans, "--model", tiny_weights, "--device", "cpu", "-q", "--report", tmp_path / report]
        return main([*map(str, words), "-o", str(tmp_path / output)])

    assert run([scan_file], "r.html", "x.nii.gz") == 0
    assert "ball.nii.gz" in parsed((tmp_path / "r.html").read_text(encoding="utf-8")).findtext("head/title")
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["outputs"]["report"].endswith("r.html")
    assert run([scan_file, scan_file], "s.html", "all") == 2
    assert "--report take one scan" in capsys.readouterr().err
    assert run([scan_file], "r.pdf", "y.nii.gz") == 2
    assert "Use one of .html" in capsys.readouterr().err
    assert not {"s.html", "all", "y.nii.gz"} & {one.name for one in tmp_path.iterdir()}


def test_segmenting_lesions_writes_the_page(scan_file, stroke_weights, tmp_path):
    segment_lesions(scan_file, anatomy=False, report=tmp_path / "r.html", model=stroke_weights)
    assert "esion" in "".join(parsed((tmp_path / "r.html").read_text(encoding="utf-8")).itertext())


def test_a_page_that_fails_leaves_no_other_output(scan_file, threshold_model, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("synthseg_slicer.pipeline.write_scan_page", full)
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="No space left"):
        segment(scan_file, tmp_path / "out" / "a.nii.gz", report=tmp_path / "out" / "r.html", model=threshold_model)
    assert not list((tmp_path / "out").iterdir())


def test_bad_targets_and_grids_are_refused(scan, tmp_path):
    result = head_segmentation(scan)
    with pytest.raises(OutputError, match="unknown suffix"):
        write_scan_page(tmp_path / "a.pdf", scan, result)
    with pytest.raises(ValueError, match="one grid"):
        write_scan_page(tmp_path / "a.html", scan, result, image=scan.data[1:])
    assert not list(tmp_path.iterdir())
