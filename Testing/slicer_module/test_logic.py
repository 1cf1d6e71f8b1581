"""The logic, as scripts use it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from synthseg_slicer.scan import write_volume

pytest.importorskip("slicer")
pytest.importorskip("PySide6")


def rotation(degrees: float, axis: int) -> np.ndarray:
    a, matrix = np.radians(degrees), np.eye(4)
    others = [other for other in range(3) if other != axis]
    matrix[np.ix_(others, others)] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return matrix


def put_under(volume, matrix):
    """Put a volume under a new linear transform."""
    import slicer

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    return transform


GEOMETRIES = {
    "plain": (np.diag([1, 1, 1, 1.0]), (1, 1, 1)),
    "left-handed": (np.diag([-1, 1, 1, 1.0]), (1, 1, 1)),
    "oblique": (rotation(20, 2) @ rotation(-12, 0), (1, 1, 1)),
    "thick slices": (np.diag([1, 1, 1, 1.0]), (1, 1, 3)),
    "oblique, thick, left-handed": (rotation(20, 2) @ np.diag([-1, 1, 1, 1.0]), (1, 1, 3)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("moved", [False, True], ids=["from a file", "under a transform"])
def test_segments_lie_where_the_scan_is(logic, add_head, head, label_volume, tmp_path, name, moved):
    """Against ``segment`` on the file, in world coordinates, within half a voxel."""
    import slicer

    from synthseg_slicer import segment

    turn, steps = GEOMETRIES[name]
    array, affine = head
    array = array[tuple(slice(None, None, step) for step in steps)]
    affine = turn @ affine @ np.diag([*steps, 1.0])
    path = tmp_path / ("scan.nrrd" if name == "plain" else "scan.nii.gz")
    if moved:
        world = rotation(15, 1)
        world[:3, 3] = (11, -7, 5)
        volume = add_head(name, array, affine)
        put_under(volume, world)
        write_volume(path, array, world @ affine)
    else:
        write_volume(path, array, affine)
        volume = slicer.util.loadVolume(str(path))
    segmentation, _table = logic.process(volume, fast=True, device="cpu")
    expected = segment(path, fast=True, device="cpu")
    labels, to_world = label_volume(segmentation)
    assert segmentation.GetParentTransformNode() is volume.GetParentTransformNode()
    where = np.argwhere(expected.labels > 0)
    positions = np.c_[where, np.ones(len(where))] @ expected.affine.T
    found = positions @ np.linalg.inv(to_world).T
    nearest = np.rint(found[:, :3]).astype(int)
    assert np.abs(found[:, :3] - nearest).max() < 0.01  # far less than half a voxel: it is the same grid
    inside = ((nearest >= 0) & (nearest < labels.shape)).all(1)
    same = labels[tuple(nearest[inside].T)] == expected.labels[expected.labels > 0][inside]
    # Rounding of the transformed affine may tip voxels whose two most probable labels are equally probable.
    assert same.sum() >= 0.999 * len(where)
    assert abs(np.count_nonzero(labels) - len(where)) <= 0.001 * len(where)


def test_a_head_upright_only_by_its_transform_is_segmented_upright(logic, add_head, head, label_volume):
    """Data that lies on its side in its own coordinates, and a transform that sets it upright."""
    array, affine = head
    plain = add_head("plain")
    lying = add_head("lying", array, rotation(90, 0) @ affine)
    put_under(lying, rotation(-90, 0))
    results = [label_volume(logic.process(volume, fast=True, device="cpu")[0]) for volume in (plain, lying)]
    (labels, to_world), (others, other_to_world) = results
    where = np.argwhere(labels > 0)
    index = np.c_[where, np.ones(len(where))] @ (np.linalg.inv(other_to_world) @ to_world).T
    nearest = np.rint(index[:, :3]).astype(int)
    inside = ((nearest >= 0) & (nearest < others.shape)).all(1)
    same = others[tuple(nearest[inside].T)] == labels[tuple(where[inside].T)]
    assert same.sum() / len(where) > 0.99


def test_the_scans_own_grid_is_kept(logic, add_head, head, label_volume):
    volume = add_head()
    segmentation, _table = logic.process(volume, fast=True, native=True, device="cpu")
    labels, affine = label_volume(segmentation)
    assert labels.shape == head[0].shape
    np.testing.assert_allclose(affine, head[1], atol=1e-6)


def test_a_transform_that_moves_during_the_run_takes_the_result_along(host, logic, add_head, label_volume):
    import slicer

    plain, _ = label_volume(logic.process(add_head("still"), fast=True, device="cpu")[0])
    volume = add_head("moving")
    transform = put_under(volume, np.eye(4))
    run = logic.process(volume, fast=True, device="cpu", wait=False)
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(rotation(90, 2)))
    run.wait()
    labels, affine = label_volume(run.segmentation)
    np.testing.assert_array_equal(labels[labels > 0], plain[plain > 0])
    np.testing.assert_allclose(affine[:3, :3], rotation(90, 2)[:3, :3], atol=1e-6)


def test_progress_and_the_end_are_reported(logic, add_head):
    seen, ends = [], []
    segmentation, table = logic.process(
        add_head(), fast=True, device="cpu", progress=lambda *report: seen.append(report), finished=ends.append
    )
    fractions = [fraction for _stage, fraction, _remaining in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert {"predict", "clean up"} <= {stage for stage, _fraction, _remaining in seen}
    (run,) = ends
    assert run.done and run.segmentation is segmentation and run.table is table and run.error is None


def test_given_nodes_are_filled(logic, add_head):
    import slicer

    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    segmentation.GetSegmentation().AddEmptySegment("old", "old")
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "my table")
    assert logic.process(add_head(), segmentation, table, fast=True, device="cpu") == (segmentation, table)
    assert segmentation.GetName() == "mine" and table.GetName() == "my table"
    assert segmentation.GetSegmentation().GetSegment("old") is None
    assert table.GetNumberOfRows() == 33


def test_errors_are_raised_and_change_nothing(logic, add_head, snapshot):
    import qt
    import slicer

    from synthseg_slicer.errors import Cancelled, SynthSegError

    with pytest.raises(SynthSegError, match="No scan was given"):
        logic.process(None)
    volume = add_head()
    scene = snapshot()
    with pytest.raises(SynthSegError, match="cuda:9"):
        logic.process(volume, device="cuda:9")
    with pytest.raises(SynthSegError, match="liver"):
        logic.process(volume, task="liver")
    run = logic.process(volume, wait=False)
    run.cancel()
    run.wait()
    assert run.cancelled and run.segmentation is None
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: slicer.mrmlScene.Clear())
    timer.setSingleShot(True)
    timer.start(300)
    with pytest.raises(Cancelled, match="closed"):
        logic.process(volume)
    assert scene.keys() >= snapshot().keys()


def test_a_repaired_or_implausible_scan_is_told(logic, add_head, head):
    array = head[0].astype(np.float32)
    array[20:22, 20, 20] = np.nan
    ends = []
    logic.process(add_head("spotted", array), fast=True, device="cpu", finished=ends.append)
    assert any("spotted" in message and "NaN" in message for message in ends[0].warnings())
    assert any("spotted" in message and "too little for a head" in message for message in ends[0].warnings())


def test_a_failure_while_writing_removes_what_was_begun(logic, add_head, snapshot, monkeypatch):
    from synthseg_slicer import mrml

    def fail(*_, **__):
        raise RuntimeError("no table today")

    volume = add_head()
    scene = snapshot()
    monkeypatch.setattr(mrml, "write_table", fail)
    with pytest.raises(RuntimeError, match="no table today"):
        logic.process(volume, fast=True, device="cpu")
    assert snapshot().keys() == scene.keys()


def test_a_sequence_gives_one_result_a_frame(host, logic, head):
    import slicer

    array, affine = head
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "series")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    for number, scale in enumerate((1, 2)):
        frame = slicer.util.addVolumeFromArray(
            np.ascontiguousarray((array * scale).transpose(2, 1, 0)), affine, f"frame {number}"
        )
        sequence.SetDataNodeAtValue(frame, str(number * 10))
        slicer.mrmlScene.RemoveNode(frame)
    segmentations, tables = logic.process(sequence, fast=True, device="cpu")
    for result in (segmentations, tables):
        assert [result.GetNthIndexValue(n) for n in range(result.GetNumberOfDataNodes())] == ["0", "10"]
        assert result.GetIndexName() == "time"
    # The second frame is the first one twice as bright, which normalisation takes out.
    texts = [tables.GetNthDataNode(n).GetCellText(0, 2) for n in range(2)]
    assert texts[0] == texts[1] and int(texts[0]) > 1000
    (browser,) = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
    assert browser.GetNumberOfSynchronizedSequenceNodes(True) == 3
    assert browser.GetProxyNode(segmentations).GetSegmentation().GetNumberOfSegments() > 15


@pytest.fixture
def stroke(logic, stroke_weights):
    """The logic's processStroke with tiny weights and one pass."""
    return functools.partial(logic.processStroke, model=stroke_weights, fast=True, device="cpu")


def test_lesions_are_those_of_segment_lesions_and_lie_on_the_first_scan(
    stroke, add_head, head, label_volume, stroke_weights
):
    from synthseg_slicer.scan import Scan
    from synthseg_slicer.stroke import segment_lesions

    array, affine = head
    scans = [Scan(array, affine), Scan(array, rotation(2, 0) @ affine)]
    options = {"model": stroke_weights, "flips": 1, "device": "cpu", "register": False, "anatomy": False}
    expected = segment_lesions(scans, **options)
    assert expected.lesions
    volumes = [add_head("T1"), add_head("T2")]
    for volume in volumes:
        put_under(volume, rotation(15, 1))
    put_under(volumes[1], rotation(15, 1) @ rotation(2, 0))
    nodes = stroke(volumes, anatomy=False, register=False, probability=True)
    labels, to_world = label_volume(nodes.segmentation)
    where = np.argwhere(labels == 99)
    positions = np.c_[where, np.ones(len(where))] @ to_world.T @ np.linalg.inv(rotation(15, 1) @ expected.affine).T
    nearest = np.rint(positions[:, :3]).astype(int)
    assert (expected.labels[tuple(nearest.T)] == 99).mean() > 0.9
    assert len(where) == pytest.approx(np.count_nonzero(expected.labels), rel=0.1)
    assert nodes.probability.GetParentTransformNode() is volumes[0].GetParentTransformNode()
    assert nodes.anatomy is None and nodes.loads is None


def test_one_scan_and_given_nodes_will_do_for_lesions(stroke, add_head):
    import slicer

    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "my table")
    nodes = stroke(add_head(), segmentation, table, anatomy=False)
    assert nodes.segmentation is segmentation and nodes.table is table and segmentation.GetName() == "mine"
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1


def test_lesions_are_refused_with_words(logic, stroke, add_head, snapshot):
    import slicer

    from synthseg_slicer.errors import SynthSegError

    volume = add_head()
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "series")
    scene = snapshot()
    for inputs, message in (([], "No scan"), ([volume, None], "No scan"), ([volume, sequence], "series: is no volume")):
        with pytest.raises(SynthSegError, match=message):
            stroke(inputs)
    with pytest.raises(SynthSegError, match="processStroke"):
        logic.process(volume, task="stroke")
    assert snapshot() == scene


def test_results_are_filed_under_the_patients_study(logic, stroke, add_head):
    import slicer

    volume = add_head()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    study = hierarchy.CreateStudyItem(patient, "Study")
    hierarchy.CreateItem(study, volume)
    results = [*logic.process(volume, fast=True, device="cpu"), *stroke(volume, probability=True)]
    assert len(results) == 7
    for node in results:
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_the_modules_own_test_passes(loaded):
    import unittest

    result = unittest.TestResult()
    loaded.module.SynthSegSlicerTest().run(result)
    assert result.testsRun == 1 and result.wasSuccessful(), result.failures + result.errors
