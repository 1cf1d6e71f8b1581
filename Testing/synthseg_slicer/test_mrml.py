"""Nodes to scans and results back to nodes, with slicer-core: place of every voxel, what a scene keeps, files."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic import ball

pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")

import SimpleITK as sitk  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402

from synthseg_slicer import mrml  # noqa: E402
from synthseg_slicer.cli import main  # noqa: E402
from synthseg_slicer.errors import OptionError, OutputError, ScanError  # noqa: E402
from synthseg_slicer.inputs import find_scans  # noqa: E402
from synthseg_slicer.job import LesionResult  # noqa: E402
from synthseg_slicer.labels import BRAIN, LESION_ID  # noqa: E402
from synthseg_slicer.lesions import Lesion, Load  # noqa: E402
from synthseg_slicer.measure import Row  # noqa: E402
from synthseg_slicer.pipeline import segment  # noqa: E402
from synthseg_slicer.scan import Scan, itk_affine  # noqa: E402
from synthseg_slicer.terminology import STROKE_LESION, entry, serialize  # noqa: E402

NAMES = {label.id: label.name for label in BRAIN}
PROVENANCE = {
    "version": "1.2.3",
    "created": "2026-01-01T00:00:00+00:00",
    "weights": {"sha256": "ab" * 32},
    "device": "cuda:0",
    "options": {"task": "brain", "fast": False, "ct": None},
    "warnings": ['an odd; message: with "quotes" & <brackets> ü 50%'],
    "citation": "Billot B. et al. (2023). https://doi.org/10.1016/j.media.2023.102789",
}


def row(name, label, volume, share, asymmetry, quality, low=None, high=None):
    return Row(name, label, volume, share, asymmetry, quality, low, high)


ROWS = [
    row("Left-Thalamus", 10, 6000.0, 0.004, -0.0001, 0.99, 5500.4, 6545.45),
    row("Brain-Stem", 16, 23456.7, 0.0158, None, 0.87654321),
    row("Left-Hippocampus", 17, 4012.49, 0.0027, -3.456, 0.5),
    row("Right-Hippocampus", 53, 4153.5, 0.0028, -3.456, 0.25),
    row("Total-Intracranial", None, 1487654.4, 1.0, None, None),
]


@dataclass
class Made:
    """A result that needed no network."""

    labels: np.ndarray
    affine: np.ndarray
    rows: list = field(default_factory=lambda: ROWS)
    provenance: dict = field(default_factory=lambda: PROVENANCE)


def turn(x=0, y=0, z=0, scale=(1, 1, 1), shift=(0, 0, 0)) -> np.ndarray:
    """Return a 4x4 matrix: scale, turn by degrees about x, y and z, shift."""
    result = np.diag([*scale, 1.0])
    for axis, degrees in enumerate((x, y, z)):
        i, j = [k for k in range(3) if k != axis]
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        rotation = np.eye(4)
        rotation[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
        result = rotation @ result
    result[:3, 3] = shift
    return result


GRIDS = {
    "plain": turn(shift=(-15, -18, -20)),
    "oblique": turn(12, -25, 8, shift=(30, -70, 12)),
    "thick slices": turn(scale=(0.9, 0.9, 3), shift=(5, 6, 7)),
    "left-handed": np.diag([-1.0, 1, 1, 1]),
    "oblique left-handed": turn(5, 10, -30, scale=(1, 1.2, -0.9), shift=(4, 5, 6)),
    "permuted": np.array([[0, 0, -1.2, 9], [-0.8, 0, 0, 8], [0, 1.1, 0, 7], [0, 0, 0, 1.0]]),
}
TRANSFORMS = {
    "no transform": None,
    "turned and shifted": turn(10, 20, -15, shift=(12, -34, 56)),
    "scaled": turn(scale=(1.3, 0.8, 1.1)),
    "head laid on its side": turn(x=90, shift=(0, 100, 0)),
    "mirrored": np.diag([-1.0, 1, 1, 1]),
    "sheared and turned": turn(30) @ np.array([[1, 0.2, 0, 3], [0, 1, 0.1, 4], [0, 0, 1, 5], [0, 0, 0, 1.0]]),
}


@pytest.fixture
def scene(monkeypatch):
    """A scene with the logics that the tests need, as in the application."""
    scene = slicer.vtkMRMLScene()
    logics = {
        "segmentations": slicer.vtkSlicerSegmentationsModuleLogic(),
        "sequences": slicer.vtkSlicerSequencesLogic(),
    }
    for logic in logics.values():
        logic.SetMRMLScene(scene)
    modules = {name: SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in logics.items()}
    monkeypatch.setattr(slicer, "modules", SimpleNamespace(**modules), raising=False)
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    return scene


@pytest.fixture
def volume(scene):
    return add_volume(scene)


@pytest.fixture
def result():
    return made()


def add_volume(scene, data=None, affine=GRIDS["plain"], transform=None, kind="vtkMRMLScalarVolumeNode"):
    node = scene.AddNewNodeByClass(kind, "head")
    fill_volume(node, ball() if data is None else data, affine)
    if transform is not None:
        parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(transform))
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def fill_volume(node, data, affine):
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(data.transpose(2, 1, 0)))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))


def made(*ids, affine=GRIDS["plain"], shape=(32, 36, 40)) -> Made:
    """Return a result in which label number n fills a box of its own."""
    labels = np.zeros(shape, np.uint8)
    for number, label in enumerate(ids or (16, 17, 53)):
        labels[4 + 6 * number : 9 + 6 * number, 5:15, 8:20] = label
    return Made(labels, affine)


def segments(node) -> dict:
    segmentation = node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    return {name: segmentation.GetSegment(name) for name in ids}


def voxels(node, segment_id: str) -> np.ndarray:
    """Return the world positions of a segment's voxels, transforms of the scene applied, [n, 3]."""
    segment = node.GetSegmentation().GetSegment(segment_id)
    image = segment.GetRepresentation("Binary labelmap")
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions(), order="F")
    return positions(array == segment.GetLabelValue(), to_world(node) @ slicer.util.arrayFromVTKMatrix(matrix))


def to_world(node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    if node.GetParentTransformNode():
        node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def positions(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def in_order(points: np.ndarray) -> np.ndarray:
    points = points.round(4) + 0.0
    return points[np.lexsort(points.T)]


def loaded(bundle, folder):
    """Return the scene of a .mrb file; kept simple, because reading one needs the application's remote-IO logic."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    scene = slicer.vtkMRMLScene()
    for logic in (slicer.vtkSlicerSegmentationsModuleLogic(), slicer.vtkSlicerSequencesLogic()):
        logic.SetMRMLScene(scene)
    scene.SetURL(str(next(folder.glob("*/*.mrml"))))
    assert scene.Import()
    return scene


# Scans


@pytest.mark.parametrize("grid", GRIDS)
def test_a_scan_has_the_voxels_and_the_place_of_its_node(scene, grid):
    scan = mrml.scan_from_node(add_volume(scene, affine=GRIDS[grid]))
    np.testing.assert_array_equal(scan.data, ball())
    np.testing.assert_allclose(scan.affine, GRIDS[grid], atol=1e-12)
    assert scan.name == "head" and scan.path is None


def test_a_scan_is_turned_as_its_parent_transform_turns_it_but_keeps_its_millimetres(scene):
    grid = GRIDS["oblique left-handed"]
    scan = mrml.scan_from_node(add_volume(scene, affine=grid, transform=turn(40, scale=(2, 3, 4), shift=(5, 6, 7))))
    np.testing.assert_allclose(scan.affine, turn(40) @ grid, atol=1e-9)
    mirrored = mrml.scan_from_node(add_volume(scene, affine=grid, transform=TRANSFORMS["mirrored"]))
    np.testing.assert_allclose(mirrored.affine, TRANSFORMS["mirrored"] @ grid, atol=1e-9)


def test_a_transform_that_is_not_linear_is_ignored(scene):
    node = add_volume(scene)
    grid = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    grid.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    node.SetAndObserveTransformNodeID(grid.GetID())
    np.testing.assert_array_equal(mrml.scan_from_node(node).affine, GRIDS["plain"])


def test_a_label_map_is_a_scan_too(scene):
    node = add_volume(scene, (ball() > 60).astype(np.int16), kind="vtkMRMLLabelMapVolumeNode")
    assert mrml.scan_from_node(node).data.dtype == np.int16


def test_empty_and_colour_volumes_are_refused_by_name_and_with_a_cure(scene):
    with pytest.raises(ScanError, match=r"^MRHead: the volume is empty\. Load"):
        mrml.scan_from_node(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "MRHead"))
    colour = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    slicer.util.updateVolumeFromArray(colour, np.zeros((20, 20, 20, 3), np.uint8))
    with pytest.raises(ScanError, match=r"^photo: .*3 values a voxel.*Vector to Scalar Volume"):
        mrml.scan_from_node(colour)


def test_a_scan_knows_its_file_until_its_voxels_are_changed(scene, tmp_path):
    node = add_volume(scene)
    path = str(tmp_path / "patient.nrrd")
    storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    node.SetAndObserveStorageNodeID(storage.GetID())
    storage.SetFileName(path)
    assert storage.WriteData(node)
    assert str(mrml.scan_from_node(node).path) == path
    slicer.util.arrayFromVolume(node)[0] += 1
    slicer.util.arrayFromVolumeModified(node)
    assert mrml.scan_from_node(node).path is None


# Segmentations


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_voxel_of_a_segment_lies_where_the_volumes_voxel_lies(scene, grid, transform):
    volume = add_volume(scene, affine=GRIDS[grid], transform=TRANSFORMS[transform])
    scan = mrml.scan_from_node(volume)
    result = made(affine=scan.affine)
    node = mrml.write_segmentation(result, volume)
    world = to_world(volume) @ GRIDS[grid]
    for label in (16, 17, 53):
        expected = positions(result.labels == label, world)
        np.testing.assert_allclose(in_order(voxels(node, f"SynthSeg_{label}")), in_order(expected), atol=1e-3)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_segmented_ball_lies_on_the_ball_in_the_scan(scene, threshold_model, grid, transform):
    centre, data = (20, 15, 18), ball(radius=8, centre=(20, 15, 18))
    volume = add_volume(scene, data, GRIDS[grid], TRANSFORMS[transform])
    result = segment(mrml.scan_from_node(volume), model=threshold_model, device="cpu", fast=True)
    node = mrml.write_segmentation(result, volume)
    world = to_world(volume) @ GRIDS[grid]
    middle = voxels(node, "SynthSeg_16").mean(0)
    in_voxels = np.linalg.solve(world, [*middle, 1])[:3]
    assert np.abs(in_voxels - centre).max() < 0.5


def test_a_result_goes_back_by_the_rotation_that_its_scan_was_turned_by(scene):
    volume = add_volume(scene, transform=turn(90))
    rotation = mrml.upright(volume)
    result = made(affine=mrml.scan_from_node(volume).affine)
    volume.SetAndObserveTransformNodeID(None)  # while the network was at work
    node = mrml.write_segmentation(result, volume, rotation=rotation)
    expected = positions(result.labels == 16, GRIDS["plain"])
    np.testing.assert_allclose(in_order(voxels(node, "SynthSeg_16")), in_order(expected), atol=1e-6)


def test_segments_have_freesurfers_names_colours_values_and_terms(scene, volume):
    node = mrml.write_segmentation(made(3, 17, 53, 24), volume)
    found = segments(node)
    assert list(found) == ["SynthSeg_3", "SynthSeg_17", "SynthSeg_24", "SynthSeg_53"]
    by_id = {label.id: label for label in BRAIN}
    for label, item in zip((3, 17, 24, 53), found.values()):
        assert item.GetLabelValue() == label
        assert item.GetColor() == pytest.approx([c / 255 for c in by_id[label].color])
        assert not item.GetNameAutoGenerated() and not item.GetColorAutoGenerated()
        text = vtk.reference("")
        assert item.GetTag(item.GetTerminologyEntryTagName(), text) and text == entry(label)
    assert found["SynthSeg_17"].GetName() == "Left-Hippocampus"


def test_only_labels_that_occur_become_segments(scene, volume):
    assert list(segments(mrml.write_segmentation(made(17), volume))) == ["SynthSeg_17"]


def test_an_empty_result_gives_no_segment(scene, volume):
    assert not segments(mrml.write_segmentation(Made(np.zeros((4, 5, 6), np.uint8), np.eye(4)), volume))


def test_labels_of_other_anatomies_get_names_from_the_result_and_colours_that_differ(scene, volume):
    result = made()
    result.labels = np.where(made(16).labels == 16, 1001, 1002).astype(np.int32)
    result.rows = [row("Liver", 1001, 1.0, 1.0, None, 1.0)]
    found = segments(mrml.write_segmentation(result, volume))
    assert [item.GetName() for item in found.values()] == ["Liver", "Label 1002"]
    assert [item.GetLabelValue() for item in found.values()] == [1001, 1002]
    assert len({item.GetColor() for item in found.values()}) == 2


def test_all_segments_share_one_byte_image(scene, volume, result):
    node = mrml.write_segmentation(result, volume)
    images = {item.GetRepresentation("Binary labelmap").GetAddressAsString("") for item in segments(node).values()}
    assert len(images) == 1 and node.GetSegmentation().GetNumberOfLayers() == 1
    image = segments(node)["SynthSeg_17"].GetRepresentation("Binary labelmap")
    assert image.GetScalarTypeAsString() == "unsigned char"


def test_the_volume_is_the_reference_and_gives_its_transform(scene, result):
    volume = add_volume(scene, transform=turn(30))
    node = mrml.write_segmentation(result, volume)
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    image, text = slicer.vtkOrientedImageData(), node.GetSegmentation().GetConversionParameter(name)
    assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False)
    assert image.GetDimensions() == (32, 36, 40)
    assert node.GetParentTransformNode() is volume.GetParentTransformNode()


@pytest.mark.parametrize("grid", ["plain", "left-handed"])
def test_surfaces_lie_around_their_voxels_and_face_outwards(scene, grid):
    volume = add_volume(scene, affine=GRIDS[grid])
    node = mrml.write_segmentation(made(17, affine=GRIDS[grid]), volume, surfaces=True)
    surface = vtk.vtkPolyData()
    assert node.GetClosedSurfaceRepresentation("SynthSeg_17", surface)
    points, middle = vtk_to_numpy(surface.GetPoints().GetData()), voxels(node, "SynthSeg_17").mean(0)
    np.testing.assert_allclose(points.mean(0), middle, atol=0.5)
    normals = vtk_to_numpy(surface.GetPointData().GetNormals())
    assert ((points - middle) * normals).sum(1).min() > 0


def test_the_surface_of_the_csf_does_not_hide_the_brain(scene, volume):
    display = mrml.write_segmentation(made(16, 24), volume).GetDisplayNode()
    assert display.GetSegmentVisibility3D("SynthSeg_16") and not display.GetSegmentVisibility3D("SynthSeg_24")
    assert display.GetSegmentVisibility("SynthSeg_24") and 0 < display.GetOpacity2DFill() < 1


def test_a_second_result_replaces_the_segments_and_keeps_name_and_settings(scene, volume):
    node = mrml.write_segmentation(made(16, 17), volume, surfaces=True)
    node.SetName("mine")
    node.GetDisplayNode().SetOpacity2DFill(0.123)
    node.GetSegmentation().AddEmptySegment("tumour")
    again = mrml.write_segmentation(made(17, 53), volume, node)
    assert again is node and node.GetName() == "mine" and node.GetDisplayNode().GetOpacity2DFill() == 0.123
    assert list(segments(node)) == ["SynthSeg_17", "SynthSeg_53"]
    assert all(item.GetRepresentation("Closed surface") for item in segments(node).values())
    np.testing.assert_array_equal(voxels(node, "SynthSeg_17"), positions(made(17, 53).labels == 17, GRIDS["plain"]))


def test_a_node_whose_source_was_a_surface_can_be_replaced(scene, volume):
    node = mrml.write_segmentation(made(16), volume, surfaces=True)
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    node = mrml.write_segmentation(made(17), volume, node)
    assert node.GetSegmentation().GetSourceRepresentationName() == "Binary labelmap"
    assert len(voxels(node, "SynthSeg_17")) == np.count_nonzero(made(17).labels)


# Tables


def cells(node) -> dict[str, list[str]]:
    table = node.GetTable()
    return {
        table.GetColumnName(c): [node.GetCellText(r, c) for r in range(table.GetNumberOfRows())]
        for c in range(table.GetNumberOfColumns())
    }


EXPECTED = {
    "Structure": ["Left-Thalamus", "Brain-Stem", "Left-Hippocampus", "Right-Hippocampus", "Total-Intracranial"],
    "Label": ["10", "16", "17", "53", ""],
    "Volume mm3": ["6000", "23457", "4012", "4154", "1487654"],
    "Share %": ["0.4", "1.58", "0.27", "0.28", "100"],
    "Asymmetry %": ["0.00", "", "-3.46", "-3.46", ""],
    "Quality": ["0.990", "0.877", "0.500", "0.250", ""],
    "Low mm3": ["5500", "", "", "", ""],
    "High mm3": ["6545", "", "", "", ""],
}


def test_a_table_shows_every_measure_with_unit_and_meaning(scene, result):
    node = mrml.write_table(result, name="head volumes")
    assert node.GetName() == "head volumes" and cells(node) == EXPECTED
    assert node.GetColumnTitle("Volume mm3") == "Volume (mm³)" and node.GetColumnUnitLabel("Volume mm3") == "mm3"
    assert all(node.GetColumnDescription(name) for name in EXPECTED)


def test_a_second_table_replaces_the_first(scene, result):
    node = mrml.write_table(result, name="x")
    result.rows = ROWS[:1]
    assert mrml.write_table(result, node, name="y") is node and node.GetName() == "x"
    assert cells(node) == {name: values[:1] for name, values in EXPECTED.items()}


@pytest.mark.parametrize("suffix", ["tsv", "csv"])
def test_a_saved_table_keeps_all_digits(scene, result, tmp_path, suffix):
    node = mrml.write_table(result, name="x")
    storage = slicer.vtkMRMLTableStorageNode()
    storage.SetFileName(str(tmp_path / f"x.{suffix}"))
    assert storage.WriteData(node)
    again = scene.AddNewNodeByClass("vtkMRMLTableNode")
    assert storage.ReadData(again)
    assert cells(again) == EXPECTED
    assert isinstance(again.GetTable().GetColumnByName("Volume mm3"), vtk.vtkIntArray)


# Lesions


LESIONS = [
    Lesion(1, 12345.4, 0.98765, (-31.25, 12.0, 7.06), "left", "Left-Putamen"),
    Lesion(2, 11.0, 0.5, (3.0, -2.0, 40.0)),
]
LOADS = [Load("Left-Putamen", 12, 5000.4, 1250.0, 24.998), Load("Brain", None, 1234567.0, 12356.4, 1.0008)]


def made_lesions(*boxes, affine=GRIDS["plain"], anatomy=True, probability=True) -> LesionResult:
    """Return a result in which each pair of numbers bounds a lesion along x."""
    labels = np.zeros((32, 36, 40), np.uint8)
    for start, stop in boxes:
        labels[start:stop, 5:15, 8:20] = LESION_ID
    structures = made(16, 17, affine=affine) if anatomy else None
    soft = (labels / 100).astype(np.float32) if probability else None
    found = LESIONS[: len(boxes)]
    return LesionResult(labels, affine, found, LOADS if anatomy else [], structures, soft, PROVENANCE)


@pytest.mark.parametrize("grid", ["plain", "oblique left-handed"])
def test_all_lesions_are_one_segment_with_its_term_where_the_volume_is(scene, grid):
    volume = add_volume(scene, affine=GRIDS[grid], transform=TRANSFORMS["turned and shifted"])
    (scan,) = mrml.scans_of_head([volume])
    result = made_lesions((4, 9), (12, 14), affine=scan.affine)
    nodes = mrml.write_lesions(result, volume, surfaces=True)
    ((name, lesion),) = segments(nodes.segmentation).items()
    assert (name, lesion.GetName(), lesion.GetLabelValue()) == ("SynthSeg_99", "Lesion", LESION_ID)
    assert lesion.GetColor() == pytest.approx((1, 80 / 255, 40 / 255))
    text = vtk.reference("")
    assert lesion.GetTag(lesion.GetTerminologyEntryTagName(), text) and text == serialize(STROKE_LESION)
    assert lesion.GetRepresentation("Closed surface").GetNumberOfPoints() > 100
    expected = in_order(positions(result.labels > 0, to_world(volume) @ GRIDS[grid]))
    np.testing.assert_allclose(in_order(voxels(nodes.segmentation, "SynthSeg_99")), expected, atol=1e-3)


def test_the_anatomy_is_a_segmentation_of_its_own_through_which_lesions_are_seen(scene, volume):
    nodes = mrml.write_lesions(made_lesions((4, 9)), volume, surfaces=True)
    assert list(segments(nodes.anatomy)) == ["SynthSeg_16", "SynthSeg_17"]
    assert all(item.GetRepresentation("Closed surface") for item in segments(nodes.anatomy).values())
    faint, clear = nodes.anatomy.GetDisplayNode(), nodes.segmentation.GetDisplayNode()
    assert faint.GetOpacity3D() < 0.5 < clear.GetOpacity3D() and faint.GetOpacity2DFill() < clear.GetOpacity2DFill()
    assert (nodes.segmentation.GetName(), nodes.anatomy.GetName()) == ("head lesions", "head anatomy")


def test_the_tables_have_a_row_a_lesion_and_a_row_a_structure(scene, volume):
    nodes = mrml.write_lesions(made_lesions((4, 9), (12, 14)), volume)
    assert cells(nodes.table) == {
        "Lesion": ["1", "2"],
        "Volume mm3": ["12345", "11"],
        "Volume ml": ["12.345", "0.011"],
        "Probability": ["0.988", "0.5"],
        "R mm": ["-31.2", "3"],
        "A mm": ["12", "-2"],
        "S mm": ["7.1", "40"],
        "Side": ["left", ""],
        "Structure": ["Left-Putamen", ""],
    }
    assert cells(nodes.loads) == {
        "Structure": ["Left-Putamen", "Brain"],
        "Label": ["12", ""],
        "Volume mm3": ["5000", "1234567"],
        "Lesion mm3": ["1250", "12356"],
        "Lesion %": ["25", "1"],
    }
    assert nodes.table.GetColumnUnitLabel("Volume mm3") == "mm3" == nodes.loads.GetColumnUnitLabel("Lesion mm3")


def test_the_probability_is_a_volume_on_the_lesions_grid(scene):
    volume = add_volume(scene, affine=GRIDS["oblique"], transform=turn(30))
    result = made_lesions((4, 9), affine=mrml.upright(volume) @ GRIDS["oblique"])
    soft = mrml.write_lesions(result, volume, probability=True).probability
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(soft).transpose(2, 1, 0), result.probability)
    matrix = vtk.vtkMatrix4x4()
    soft.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), GRIDS["oblique"], atol=1e-9)
    assert soft.GetParentTransformNode() is volume.GetParentTransformNode()


def test_a_head_without_lesions_has_an_empty_segment_and_an_empty_table(scene, volume):
    nodes = mrml.write_lesions(made_lesions(anatomy=False), volume, surfaces=True)
    assert list(segments(nodes.segmentation)) == ["SynthSeg_99"] and not len(voxels(nodes.segmentation, "SynthSeg_99"))
    assert nodes.table.GetNumberOfRows() == 0 and nodes.anatomy is None and nodes.loads is None
    again = mrml.write_lesions(made_lesions((4, 9)), volume, nodes.segmentation, nodes.table)
    assert again.table is nodes.table and nodes.table.GetNumberOfRows() == 1
    assert isinstance(nodes.table.GetTable().GetColumnByName("Volume mm3"), vtk.vtkIntArray)


def test_a_second_result_fills_the_same_nodes_and_removes_what_it_lacks(scene, volume):
    first = mrml.write_lesions(made_lesions((4, 9)), volume, probability=True)
    assert mrml.lesion_nodes(first.segmentation) == first and None not in first
    second = mrml.write_lesions(made_lesions((12, 14)), volume, *first[:2], probability=True)
    assert second == first
    third = mrml.write_lesions(made_lesions((4, 9), anatomy=False), volume, *first[:2])
    assert third == first._replace(anatomy=None, loads=None, probability=None)
    present = [bool(scene.IsNodePresent(node)) for node in first]
    assert present == [True, True, True, False, False]  # segments may have been edited, measures may not be outdated
    assert mrml.lesion_nodes(first.segmentation) == third


def test_scans_of_one_head_lie_as_their_transforms_say_relative_to_the_first(scene):
    common, shift = turn(20, 5, shift=(9, 8, 7)), turn(3, shift=(1, 2, 3))
    first = add_volume(scene, transform=common)
    second = add_volume(scene, affine=GRIDS["oblique"], transform=common @ shift)
    one, other = mrml.scans_of_head([first, second])
    np.testing.assert_allclose(one.affine, mrml.upright(first) @ GRIDS["plain"], atol=1e-9)
    np.testing.assert_allclose(
        np.linalg.inv(one.affine) @ other.affine, np.linalg.inv(GRIDS["plain"]) @ shift @ GRIDS["oblique"], atol=1e-9
    )


def test_lesions_survive_saving_and_loading(scene, volume, tmp_path):
    nodes = mrml.write_lesions(made_lesions((4, 9)), volume, surfaces=True, probability=True)
    assert scene.WriteToMRB(str(tmp_path / "x.mrb"))
    read = loaded(tmp_path / "x.mrb", tmp_path)
    again = mrml.lesion_nodes(read.GetFirstNodeByName("head lesions"))
    assert [node.GetName() for node in again] == [node.GetName() for node in nodes]
    assert cells(again.table) == cells(nodes.table) and cells(again.loads) == cells(nodes.loads)
    check_attributes(again.segmentation)
    where = in_order(voxels(nodes.segmentation, "SynthSeg_99"))
    np.testing.assert_allclose(in_order(voxels(again.segmentation, "SynthSeg_99")), where, atol=1e-3)


# The scene around them


def test_results_are_filed_beside_the_volume_in_its_study(scene, volume, result):
    hierarchy = scene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient"), "study")
    hierarchy.SetItemUID(study, "DICOM", "1.2.3")
    hierarchy.CreateItem(study, volume)
    segmentation, table = mrml.write_segmentation(result, volume), mrml.write_table(result)
    hierarchy.CreateItem(hierarchy.GetSceneItemID(), table)  # as the application does for every node
    mrml.file_under_study(volume, segmentation, table)
    for node in (segmentation, table):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert hierarchy.GetItemUID(study, "DICOM") == "1.2.3"


def test_a_volume_outside_the_hierarchy_leaves_results_where_they_are(scene, volume, result):
    node = mrml.write_table(result)
    mrml.file_under_study(volume, node)
    assert scene.GetSubjectHierarchyNode().GetItemByDataNode(node) == 0


def state(scene) -> list:
    nodes = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
    return sorted((node.GetID(), node.GetName()) for node in nodes)


def test_undo_takes_new_results_away(scene, volume, result):
    scene.SetUndoOn()
    before = state(scene)
    scene.SaveStateForUndo()
    mrml.write_segmentation(result, volume, surfaces=True)
    mrml.write_table(result)
    assert len(state(scene)) == len(before) + 3
    scene.Undo()
    assert state(scene) == before


def test_undo_brings_replaced_results_back(scene, volume):
    scene.SetUndoOn()
    node, table = mrml.write_segmentation(made(17), volume), mrml.write_table(made())
    where = voxels(node, "SynthSeg_17")
    scene.SaveStateForUndo()
    other = made(53, 16)
    other.rows, other.provenance = ROWS[:2], {**PROVENANCE, "device": "cpu"}
    mrml.write_segmentation(other, volume, node)
    mrml.write_table(other, table)
    scene.Undo()
    assert list(segments(node)) == ["SynthSeg_17"] and cells(table) == EXPECTED
    np.testing.assert_array_equal(voxels(node, "SynthSeg_17"), where)
    assert node.GetAttribute("SynthSegSlicer.Device") == "cuda:0"


ATTRIBUTES = {
    "Weights": "ab" * 32,
    "Version": "1.2.3",
    "Device": "cuda:0",
    "Created": PROVENANCE["created"],
    "Citation": PROVENANCE["citation"],
}


def check_attributes(node):
    assert {key: node.GetAttribute(f"SynthSegSlicer.{key}") for key in ATTRIBUTES} == ATTRIBUTES
    assert json.loads(node.GetAttribute("SynthSegSlicer.Options")) == PROVENANCE["options"]
    assert json.loads(node.GetAttribute("SynthSegSlicer.Warnings")) == PROVENANCE["warnings"]


def test_a_saved_scene_keeps_results_and_provenance(scene, result, tmp_path):
    volume = add_volume(scene, affine=GRIDS["oblique left-handed"], transform=turn(30))
    result.affine = mrml.scan_from_node(volume).affine
    node, table = mrml.write_segmentation(result, volume, surfaces=True), mrml.write_table(result, name="t")
    where = voxels(node, "SynthSeg_53")
    assert scene.WriteToMRB(str(tmp_path / "x.mrb"))
    again = loaded(tmp_path / "x.mrb", tmp_path)
    segmentation = again.GetFirstNodeByName(node.GetName())
    check_attributes(segmentation)
    check_attributes(again.GetFirstNodeByName("t"))
    assert list(segments(segmentation)) == list(segments(node)) and cells(again.GetFirstNodeByName("t")) == cells(table)
    np.testing.assert_allclose(in_order(voxels(segmentation, "SynthSeg_53")), in_order(where), atol=1e-3)


# Sequences


@pytest.fixture
def sequence(scene):
    """Two frames at 0 and 2.5 s, of different voxels."""
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "film")
    node.SetIndexName("time")
    node.SetIndexUnit("s")
    for number, time in enumerate(("0", "2.5")):
        frame = slicer.vtkMRMLScalarVolumeNode()
        fill_volume(frame, ball() + number, GRIDS["oblique"])
        node.SetDataNodeAtValue(frame, time)
    return node


def add_browser(scene, sequence):
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "player")
    browser.AddSynchronizedSequenceNode(sequence)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return browser


def test_every_frame_of_a_sequence_is_a_scan(sequence):
    frames = mrml.frames_of(sequence)
    assert [index for index, _ in frames] == ["0", "2.5"]
    np.testing.assert_array_equal(frames[1][1].data, ball() + 1)
    np.testing.assert_allclose(frames[1][1].affine, GRIDS["oblique"], atol=1e-12)
    assert frames[1][1].name == "film [time 2.5 s]"


def test_frames_are_turned_with_the_volume_that_shows_them(scene, sequence):
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turn(90)))
    browser = add_browser(scene, sequence)
    browser.GetProxyNode(sequence).SetAndObserveTransformNodeID(parent.GetID())
    scan = mrml.frames_of(sequence)[1][1]
    np.testing.assert_allclose(scan.affine, turn(90) @ GRIDS["oblique"], atol=1e-9)
    output, _, browser = mrml.write_sequence([made(16, affine=scan.affine)] * 2, sequence)
    shown = browser.GetProxyNode(output)
    expected = positions(made(16).labels == 16, turn(90) @ GRIDS["oblique"])
    np.testing.assert_allclose(in_order(voxels(shown, "SynthSeg_16")), in_order(expected), atol=1e-3)


def test_sequences_that_are_empty_or_hold_no_volumes_are_refused(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "film")
    with pytest.raises(ScanError, match=r"^film: the sequence is empty"):
        mrml.frames_of(node)
    node.SetDataNodeAtValue(slicer.vtkMRMLTableNode(), "1")
    with pytest.raises(ScanError, match=r"^film \[time 1 s\]: is no volume"):
        mrml.frames_of(node)


@pytest.mark.parametrize("browsed", [True, False])
def test_scans_and_results_of_a_sequence_play_together(scene, sequence, browsed):
    player = add_browser(scene, sequence) if browsed else None
    results = [made(16, affine=GRIDS["oblique"]), made(17, 53, affine=GRIDS["oblique"])]
    results[1].rows = ROWS[2:4]
    segmentations, tables, browser = mrml.write_sequence(results, sequence, surfaces=True)
    assert browser is player if browsed else scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode") == 1
    for output in (segmentations, tables):
        assert [output.GetNthIndexValue(n) for n in range(2)] == ["0", "2.5"]
        assert (output.GetIndexName(), output.GetIndexUnit()) == ("time", "s")
    shown, table = browser.GetProxyNode(segmentations), browser.GetProxyNode(tables)
    assert shown.GetNodeReference(shown.GetReferenceImageGeometryReferenceRole()) is browser.GetProxyNode(sequence)
    for number, ids, rows in ((0, [16], 5), (1, [17, 53], 2), (0, [16], 5)):
        browser.SetSelectedItemNumber(number)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        assert list(segments(shown)) == [f"SynthSeg_{label}" for label in ids]
        assert all(item.GetRepresentation("Closed surface") for item in segments(shown).values())
        assert table.GetTable().GetNumberOfRows() == rows
    check_attributes(shown)
    assert shown.GetDisplayNode().GetOpacity2DFill() == mrml.FILL_OPACITY


def test_undo_takes_the_results_of_a_sequence_away(scene, sequence):
    scene.SetUndoOn()
    before = state(scene)
    scene.SaveStateForUndo()
    mrml.write_sequence([made(16), made(17)], sequence)
    assert len(state(scene)) > len(before)
    scene.Undo()
    assert state(scene) == before


def test_results_must_be_as_many_as_frames(sequence, result):
    with pytest.raises(ValueError, match="1 results for 2 frames"):
        mrml.write_sequence([result], sequence)


# Files without the application


@pytest.fixture
def no_application(monkeypatch):
    """What ``slicer`` is where only slicer-core is installed."""
    for name in ("modules", "mrmlScene", "app"):
        monkeypatch.delattr(slicer, name, raising=False)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_segmentation_file_holds_ids_names_colours_terms_and_geometry(no_application, tmp_path, grid):
    slicerio = pytest.importorskip("slicerio")
    result = made(17, 53, affine=GRIDS[grid])
    mrml.save_seg_nrrd(result, Scan(ball(), GRIDS[grid]), tmp_path / "x.seg.nrrd")
    assert [path.name for path in tmp_path.iterdir()] == ["x.seg.nrrd"]

    read = slicerio.read_segmentation(str(tmp_path / "x.seg.nrrd"))
    lps_ras = np.diag([-1.0, -1, 1, 1])
    found = {item["labelValue"]: item for item in read["segments"]}
    assert set(found) == {17, 53}
    for label in (17, 53):
        known = next(known for known in BRAIN if known.id == label)
        assert found[label]["name"] == known.name and found[label]["id"] == f"SynthSeg_{label}"
        assert found[label]["color"] == pytest.approx([c / 255 for c in known.color], abs=1e-4)
        terms = found[label]["terminology"]
        assert terms["type"] == ["SCT", "5366008", "Hippocampus"]
        assert terms["typeModifier"][2] == known.side.capitalize()
        expected = in_order(positions(result.labels == label, GRIDS[grid]))
        affine = lps_ras @ read["ijkToLPS"]
        np.testing.assert_allclose(in_order(positions(read["voxels"] == label, affine)), expected, atol=1e-3)
        image = sitk.ReadImage(str(tmp_path / "x.seg.nrrd"))
        array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        np.testing.assert_allclose(in_order(positions(array == label, itk_affine(image))), expected, atol=1e-3)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_scene_file_holds_scan_segmentation_table_and_shows_them(no_application, result, tmp_path, grid):
    result.affine = GRIDS[grid]
    folder = tmp_path / "Ü folder"
    folder.mkdir()
    scan = Scan(ball(), GRIDS[grid], tmp_path / "sub-01_T1w.nii.gz")
    mrml.save_scene(result, scan, folder / "x.mrb")
    assert [path.name for path in folder.iterdir()] == ["x.mrb"]

    scene = loaded(folder / "x.mrb", tmp_path)
    volume = scene.GetFirstNodeByName("sub-01_T1w")
    world = np.column_stack([np.argwhere(ball() > 80), np.ones(np.count_nonzero(ball() > 80))])
    array, matrix = slicer.util.arrayFromVolume(volume).transpose(2, 1, 0), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    found = in_order(positions(array > 80, slicer.util.arrayFromVTKMatrix(matrix)))
    np.testing.assert_allclose(found, in_order((world @ GRIDS[grid].T)[:, :3]), atol=1e-3)
    segmentation = scene.GetFirstNodeByName("sub-01_T1w segmentation")
    for label in (16, 17, 53):
        expected = positions(result.labels == label, GRIDS[grid])
        np.testing.assert_allclose(in_order(voxels(segmentation, f"SynthSeg_{label}")), in_order(expected), atol=1e-3)
    check_attributes(segmentation)
    assert cells(scene.GetFirstNodeByName("sub-01_T1w volumes")) == EXPECTED
    for name in ("Red", "Green", "Yellow"):
        view = scene.GetNodeByID(f"vtkMRMLSliceCompositeNode{name}")
        assert view.GetBackgroundVolumeID() == volume.GetID()


@pytest.mark.parametrize("surfaces", [False, True])
def test_labels_finer_than_their_scan_are_saved_voxel_by_voxel(scene, tmp_path, surfaces):
    volume = add_volume(scene, affine=GRIDS["thick slices"], transform=turn(30))
    result = made(affine=mrml.upright(volume) @ turn(1, 2, 3, shift=(5, 6, 7)))
    node = mrml.write_segmentation(result, volume, surfaces=surfaces)
    assert scene.WriteToMRB(str(tmp_path / "x.mrb"))
    read = loaded(tmp_path / "x.mrb", tmp_path)
    again = read.GetFirstNodeByName(node.GetName())
    for label in (16, 17, 53):
        expected = in_order(voxels(node, f"SynthSeg_{label}"))
        np.testing.assert_allclose(in_order(voxels(again, f"SynthSeg_{label}")), expected, atol=1e-3)


@pytest.mark.parametrize("save, name", [(mrml.save_scene, "x.mrb"), (mrml.save_seg_nrrd, "x.seg.nrrd")])
def test_an_empty_result_is_saved_too(no_application, tmp_path, save, name):
    empty = Made(np.zeros((32, 36, 40), np.uint8), GRIDS["plain"])
    save(empty, Scan(ball(), GRIDS["plain"]), tmp_path / name)
    assert (tmp_path / name).stat().st_size > 0


@contextmanager
def full_disk():
    """A limit of some hundred bytes a file, as good as a full disk; only while saving: pytest's log is a file too."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("save, name", [(mrml.save_scene, "x.mrb"), (mrml.save_seg_nrrd, "x.seg.nrrd")])
def test_a_full_disk_raises_and_leaves_the_old_file(no_application, result, tmp_path, save, name):
    (tmp_path / name).write_text("old")
    with pytest.raises(OutputError, match=rf"{name}: cannot be written"), full_disk():
        save(result, Scan(ball(), GRIDS["plain"]), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "old"


@pytest.mark.parametrize("save, name", [(mrml.save_scene, "x.mrb"), (mrml.save_seg_nrrd, "x.seg.nrrd")])
def test_a_relative_path_will_do_and_nothing_is_printed(
    no_application, result, tmp_path, save, name, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    save(result, Scan(ball(), GRIDS["plain"]), name)
    assert (tmp_path / name).exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["x.seg.nrrd", "x.mrb"])
@pytest.mark.parametrize("options", [[], ["--native"]])
def test_the_command_line_writes_slicers_files(no_application, tiny_weights, scan_file, tmp_path, name, options, capfd):
    out = tmp_path / "out"
    out.mkdir()
    common = ["segment", str(scan_file), "--model", str(tiny_weights), "--device", "cpu", "-q", *options]
    assert main([*common, "-o", str(out / "plain.nrrd")]) == 0
    assert main([*common, "-o", str(out / name)]) == 0
    printed, errors = capfd.readouterr()
    assert printed == "" and all(line.startswith("synthseg-slicer: warning: ") for line in errors.splitlines())
    assert {path.name for path in out.iterdir()} == {"plain.nrrd", "plain.json", name, "x.json"}
    assert json.loads((out / "x.json").read_text())["outputs"]["output"] == name
    plain = sitk.ReadImage(str(out / "plain.nrrd"))
    labels = sitk.GetArrayFromImage(plain).transpose(2, 1, 0)
    if name.endswith(".mrb"):
        scene = loaded(out / name, tmp_path / "read")
        assert scene.GetFirstNodeByName("ball").GetImageData().GetDimensions() == (32, 36, 40)
        assert scene.GetURL().endswith("read/x/x.mrml")
        node = scene.GetFirstNodeByName("ball segmentation")
        for label in np.unique(labels[labels > 0]):
            expected = in_order(positions(labels == label, itk_affine(plain)))
            np.testing.assert_allclose(in_order(voxels(node, f"SynthSeg_{label}")), expected, atol=1e-3)
        assert (
            node.GetAttribute("SynthSegSlicer.Weights") == json.loads((out / "x.json").read_text())["weights"]["sha256"]
        )
        assert cells(scene.GetFirstNodeByName("ball volumes"))["Structure"][-1] == "Total-Intracranial"
    else:
        image = sitk.ReadImage(str(out / name))
        found = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        for label in np.unique(labels[labels > 0]):
            expected = in_order(positions(labels == label, itk_affine(plain)))
            np.testing.assert_allclose(in_order(positions(found == label, itk_affine(image))), expected, atol=1e-3)


@pytest.mark.parametrize("name", ["x.seg.nrrd", "x.mrb"])
@pytest.mark.parametrize("options", [[], ["--no-anatomy"]])
def test_the_command_line_writes_lesions_into_slicers_files(
    no_application, stroke_weights, scan_file, tmp_path, name, options, capfd, monkeypatch
):
    # a random network's lesions need not touch another one's anatomy
    monkeypatch.setattr("synthseg_slicer.lesions.in_tissue", lambda lesion, tissue: lesion)
    out = tmp_path / "out"
    out.mkdir()
    common = ["segment", "--task", "stroke", str(scan_file), "--model", str(stroke_weights), "--flips", "1", "-q"]
    common += ["--device", "cpu"]
    assert main([*common, "-o", str(out / name), *options]) == 0
    printed = capfd.readouterr().out
    assert main([*common, "-o", str(out / "plain.nrrd"), "--no-anatomy"]) == 0 and capfd.readouterr().out == printed
    plain = sitk.ReadImage(str(out / "plain.nrrd"))
    expected = in_order(positions(sitk.GetArrayFromImage(plain).transpose(2, 1, 0) == LESION_ID, itk_affine(plain)))
    assert len(expected) > 100
    if name.endswith(".mrb"):
        scene = loaded(out / name, tmp_path / "read")
        nodes = mrml.lesion_nodes(scene.GetFirstNodeByName("ball lesions"))
        found = voxels(nodes.segmentation, "SynthSeg_99")
        assert nodes.table.GetNumberOfRows() >= 1 and (nodes.anatomy is None) == bool(options) == (nodes.loads is None)
    else:
        image = sitk.ReadImage(str(out / name))
        array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        assert set(np.unique(array)) == {0, LESION_ID}
        found = positions(array == LESION_ID, itk_affine(image))
    np.testing.assert_allclose(in_order(found), expected, atol=1e-3)
    assert json.loads((out / "x.json").read_text())["outputs"]["output"] == name


@pytest.mark.parametrize("name", ["x.seg.nrrd", "x.mrb"])
def test_without_slicer_core_slicers_files_are_refused_before_any_work(scan_file, tmp_path, name, capfd, monkeypatch):
    monkeypatch.setattr("synthseg_slicer.pipeline.load_model", lambda *a: pytest.fail("work began"))
    monkeypatch.delitem(sys.modules, "synthseg_slicer.mrml")
    monkeypatch.delattr("synthseg_slicer.mrml")
    monkeypatch.setitem(sys.modules, "slicer", None)
    monkeypatch.setattr("synthseg_slicer.stroke.load_model", lambda *a: pytest.fail("work began"))
    for task in ("brain", "stroke"):
        assert main(["segment", "--task", task, str(scan_file), "-o", str(tmp_path / name), "-q"]) == 2
        stderr = capfd.readouterr().err
        assert name in stderr and "pip install 'synthseg-slicer[slicer]'" in stderr and len(stderr.splitlines()) == 1
        assert not list(tmp_path.glob("x.*"))


def test_a_result_is_saved_as_a_scene_later_when_its_scan_is_given(no_application, threshold_model, tmp_path):
    scan = Scan(ball(), GRIDS["oblique"])
    result = segment(scan, model=threshold_model, device="cpu", fast=True)
    with pytest.raises(OptionError, match="second argument"):
        result.save(tmp_path / "x.mrb")
    result.save(tmp_path / "x.mrb", scan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.mrb"]


def test_slicers_segmentations_in_a_folder_are_not_taken_for_scans(scan_file):
    scan_file.with_name("x.seg.nrrd").write_text("labels")
    assert find_scans([scan_file.parent]) == [scan_file]


def test_nodes_can_be_exchanged_without_torch():
    code = "import sys; from synthseg_slicer import mrml; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
