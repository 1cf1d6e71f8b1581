"""The panel, driven as a user does."""

from __future__ import annotations

import functools
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")

WAIT_S = 120
"""Far more than a run takes, for busy machines."""


@pytest.fixture
def finish(host, panel):
    """A function that waits until the panel's run is over."""
    return lambda: host.wait_until(lambda: panel.run is None, WAIT_S)


@pytest.fixture
def apply(host, panel, click, finish):
    """A function that clicks Apply and waits for the result."""

    def run():
        click(panel.ui.applyButton)
        finish()
        assert not host.messages, host.messages
        return panel.ui.segmentationSelector.currentNode(), panel.ui.tableSelector.currentNode()

    return run


def temporary_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("synthseg-*"))


def test_drag_in_a_scan_click_once_see_structures(host, panel, add_head, click, finish):
    import slicer

    assert not panel.ui.applyButton.enabled and "scan" in panel.ui.applyButton.toolTip
    volume = add_head()
    assert panel.ui.inputSelector.currentNode() is volume
    panel.ui.surfacesCheckBox.checked = True
    before, percents, texts = temporary_folders(), [], []
    panel.ui.progressBar.connect("valueChanged(int)", percents.append)
    panel.ui.progressBar.connect("valueChanged(int)", lambda value: texts.append(panel.ui.statusLabel.text))
    click(panel.ui.applyButton)
    assert panel.ui.applyButton.text == "Cancel" and panel.ui.progressBar.visible
    assert not panel.ui.inputSelector.enabled  # what runs is not what the panel would show
    finish()

    assert percents == sorted(percents) and len(percents) > 5 and percents[-1] > 90
    assert any("Segmenting" in text and "%" in text for text in texts)
    assert not host.messages
    segmentation, table = panel.ui.segmentationSelector.currentNode(), panel.ui.tableSelector.currentNode()
    segments = segmentation.GetSegmentation()
    assert segments.GetNumberOfSegments() > 15
    cortex = segments.GetSegment("SynthSeg_3")
    assert cortex.GetName() == "Left-Cerebral-Cortex" and cortex.GetLabelValue() == 3
    np.testing.assert_allclose(cortex.GetColor(), np.array((205, 62, 78)) / 255, atol=1e-6)
    assert cortex.GetRepresentation("Closed surface").GetNumberOfPoints() > 100
    assert table.GetNumberOfRows() == 33
    assert panel.ui.applyButton.text == "Apply" and panel.ui.applyButton.enabled
    assert not panel.ui.progressBar.visible
    assert "structures" in panel.ui.statusLabel.text
    selection = host.app.applicationLogic().GetSelectionNode()
    assert selection.GetActiveTableID() == table.GetID() and selection.GetActiveVolumeID() == volume.GetID()
    assert host.app.layoutManager().layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView
    assert temporary_folders() == before


def test_cancel_leaves_the_scene_as_it_was(host, panel, add_head, click, finish, snapshot):
    import qt

    add_head()
    scene, folders = snapshot(), temporary_folders()
    click(panel.ui.applyButton)
    host.wait_until(lambda: panel.ui.progressBar.value > 5, WAIT_S)
    process = panel.run._process
    click(panel.ui.applyButton)
    finish()
    assert process.state() == qt.QProcess.NotRunning
    assert snapshot() == scene
    assert "Cancelled" in panel.ui.statusLabel.text
    assert panel.ui.applyButton.text == "Apply" and panel.ui.applyButton.enabled
    assert not host.messages and temporary_folders() == folders


def test_a_killed_worker_is_told_once_and_changes_nothing(host, panel, add_head, click, finish, snapshot):
    add_head()
    scene = snapshot()
    click(panel.ui.applyButton)
    host.wait_until(lambda: panel.ui.progressBar.value > 5, WAIT_S)
    os.kill(panel.run._process.processId(), signal.SIGKILL)
    finish()
    assert snapshot() == scene
    (message,) = host.messages
    assert "killed" in message.text and "memory" in message.text
    assert panel.ui.statusLabel.text == message.text


def test_a_crash_shows_its_last_words_and_the_log(host, panel, add_head, click, finish, monkeypatch, snapshot):
    from synthseg_slicer.job import Job

    program = "import sys, os; print('all is lost', file=sys.stderr, flush=True); os.abort()"
    monkeypatch.setattr(Job, "arguments", property(lambda job: ["-c", program]))
    add_head()
    scene = snapshot()
    click(panel.ui.applyButton)
    finish()
    (message,) = host.messages
    assert "crashed" in message.text and "all is lost" in message.text
    assert "all is lost" in message.details
    assert snapshot() == scene
    assert panel.ui.detailsButton.visible
    click(panel.ui.detailsButton)
    assert "all is lost" in host.messages[-1].details


def test_lack_of_memory_is_told_in_a_users_words(host, panel, add_head, click, finish, monkeypatch):
    from synthseg_slicer.job import Job

    event = '{"event": "error", "kind": "OutOfMemory", "message": "head: not enough memory. Close other programs."}'
    monkeypatch.setattr(Job, "arguments", property(lambda job: ["-c", f"print({event!r}); raise SystemExit(1)"]))
    add_head()
    click(panel.ui.applyButton)
    finish()
    (message,) = host.messages
    assert message.text == "head: not enough memory. Close other programs."


def test_an_unusable_scan_is_refused_with_its_name(host, panel, add_head, click, finish, snapshot):
    add_head("empty one", np.zeros((30, 30, 30), np.int16))
    scene = snapshot()
    click(panel.ui.applyButton)
    finish()
    (message,) = host.messages
    assert "empty one" in message.text
    assert snapshot() == scene and panel.ui.applyButton.text == "Apply"


def test_a_python_that_cannot_be_started_is_told(host, panel, loaded, add_head, click, finish, monkeypatch):
    monkeypatch.setattr(loaded.module, "pythonExecutable", lambda: "/nowhere/PythonSlicer")
    add_head()
    click(panel.ui.applyButton)
    finish()
    (message,) = host.messages
    assert "/nowhere/PythonSlicer" in message.text and "Reinstall" in message.text


def test_closing_the_scene_ends_the_run(host, panel, add_head, click, finish, apply):
    import slicer

    add_head()
    click(panel.ui.applyButton)
    host.wait_until(lambda: panel.ui.progressBar.value > 5, WAIT_S)
    slicer.mrmlScene.Clear()
    finish()
    assert "scene was closed" in panel.ui.statusLabel.text
    assert not host.messages and not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert not panel.ui.applyButton.enabled
    add_head()
    segmentation, _table = apply()
    assert segmentation.GetSegmentation().GetNumberOfSegments() > 15


def test_removing_the_scan_during_the_run_is_told(host, panel, add_head, click, finish):
    import slicer

    volume = add_head()
    click(panel.ui.applyButton)
    host.wait_until(lambda: panel.ui.progressBar.value > 5, WAIT_S)
    slicer.mrmlScene.RemoveNode(volume)
    finish()
    (message,) = host.messages
    assert "removed" in message.text
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_two_runs_replace_or_keep_the_first(host, panel, add_head, apply):
    import slicer

    add_head()
    first, first_table = apply()
    second, second_table = apply()
    assert second is first and second_table is first_table
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1
    panel.ui.keepPreviousCheckBox.checked = True
    third, third_table = apply()
    assert third is not first and third_table is not first_table
    assert third.GetName() != first.GetName()
    assert first.GetSegmentation().GetNumberOfSegments() == third.GetSegmentation().GetNumberOfSegments() > 15


def test_another_scan_does_not_overwrite_the_first_ones_result(host, panel, add_head, apply):
    first = add_head("first")
    segmentation, table = apply()
    second = add_head("second")
    panel.ui.inputSelector.setCurrentNode(second)
    host.app.processEvents()
    assert panel.ui.segmentationSelector.currentNode() is None and panel.ui.tableSelector.currentNode() is None
    panel.ui.inputSelector.setCurrentNode(first)
    host.app.processEvents()
    assert panel.ui.segmentationSelector.currentNode() is segmentation
    assert panel.ui.tableSelector.currentNode() is table


def test_a_saved_scene_has_settings_and_results_again(host, panel, add_head, apply, tmp_path, label_volume):
    import slicer

    add_head()
    panel.ui.gridComboBox.currentIndex = 1
    panel.ui.keepPreviousCheckBox.checked = True
    segmentation, table = apply()
    labels, affine = label_volume(segmentation)
    cells = [table.GetCellText(row, column) for row in range(33) for column in range(6)]
    term = segmentation.GetSegmentation().GetSegment("SynthSeg_3").GetTerminology()
    weights = segmentation.GetAttribute("SynthSegSlicer.Weights")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    host.app.processEvents()
    assert panel.ui.segmentationSelector.currentNode() is None and panel.ui.gridComboBox.currentIndex == 0
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    host.app.processEvents()

    assert panel.ui.gridComboBox.currentIndex == 1 and panel.ui.keepPreviousCheckBox.checked
    assert panel.ui.qualityComboBox.currentIndex == 1
    assert panel.ui.inputSelector.currentNode().GetName() == "head"
    again, table_again = panel.ui.segmentationSelector.currentNode(), panel.ui.tableSelector.currentNode()
    labels_again, affine_again = label_volume(again)
    np.testing.assert_array_equal(labels_again[labels_again > 0], labels[labels > 0])
    corner, corner_again = (
        a @ [*np.argwhere(v > 0).min(0), 1] for v, a in ((labels, affine), (labels_again, affine_again))
    )
    np.testing.assert_allclose(corner_again, corner, atol=1e-3)
    assert [table_again.GetCellText(row, column) for row in range(33) for column in range(6)] == cells
    assert again.GetSegmentation().GetSegment("SynthSeg_3").GetTerminology() == term
    assert again.GetAttribute("SynthSegSlicer.Weights") == weights and len(weights) == 64
    assert panel.ui.applyButton.enabled


def test_a_run_can_be_undone(host, panel, add_head, apply):
    import slicer

    add_head()
    slicer.mrmlScene.SetUndoOn()
    segmentation, table = apply()
    identifiers = segmentation.GetID(), table.GetID()
    slicer.mrmlScene.Undo()
    assert not any(slicer.mrmlScene.GetNodeByID(identifier) for identifier in identifiers)
    slicer.mrmlScene.Redo()
    assert slicer.mrmlScene.GetNodeByID(identifiers[0]).GetSegmentation().GetNumberOfSegments() > 15


def test_leaving_the_module_during_a_run_loses_nothing(host, panel, add_head, click, finish):
    add_head()
    click(panel.ui.applyButton)
    panel.exit()
    finish()
    panel.enter()
    assert panel.ui.segmentationSelector.currentNode().GetSegmentation().GetNumberOfSegments() > 15


def test_the_settings_reach_the_run(host, panel, add_head, click, monkeypatch):
    calls = []

    def process(*nodes, **options):
        from synthseg_slicer.errors import SynthSegError

        calls.append(options)
        raise SynthSegError("enough")

    monkeypatch.setattr(panel.logic, "process", process)
    add_head()
    panel.ui.gridComboBox.currentIndex = 1
    panel.ui.scanTypeComboBox.currentIndex = 2
    panel.ui.deviceComboBox.currentIndex = 1
    click(panel.ui.applyButton)
    wanted = {"task": "brain", "fast": True, "ct": True, "native": True, "surfaces": False, "device": "cpu"}
    assert wanted.items() <= calls[0].items()
    assert host.messages[0].text == "enough"


@pytest.fixture
def stroke_panel(panel, stroke_weights, monkeypatch):
    """The panel with the task Stroke lesion chosen, tiny weights behind it, and the anatomy left out."""
    monkeypatch.setattr(
        panel.logic, "processStroke", functools.partial(panel.logic.processStroke, model=stroke_weights)
    )
    panel.ui.taskComboBox.currentIndex = 1
    panel.ui.anatomyCheckBox.checked = False
    return panel


def test_each_task_shows_its_own_settings(panel, add_head):
    add_head()
    both, stroke = ("scanTypeComboBox", "scanTypeComboBoxLabel"), ("secondSelector", "secondSelectorLabel")
    stroke += ("thirdSelector", "fourthSelector", "registerCheckBox", "anatomyCheckBox")
    for task in (0, 1, 0):
        panel.ui.taskComboBox.currentIndex = task
        assert all(getattr(panel.ui, name).visible for name in both)
        assert {getattr(panel.ui, name).visible for name in stroke} == {task == 1}


def test_ct_is_refused_for_stroke_lesions_with_a_cure_and_mr_is_taken_at_its_word(
    host, stroke_panel, add_head, click, finish
):
    panel = stroke_panel
    add_head()
    panel.ui.scanTypeComboBox.currentIndex = 2
    click(panel.ui.applyButton)
    finish()
    (message,) = host.messages
    assert "for MR scans" in message.text and "the kind of scan CT" in message.text
    assert panel.ui.segmentationSelector.currentNode() is None
    panel.ui.scanTypeComboBox.currentIndex = 1
    click(panel.ui.applyButton)
    finish()
    assert len(host.messages) == 1 and panel.ui.statusLabel.text.startswith("Lesions: ")


def test_lesions_of_two_scans_are_segmented_beside_the_anatomy(host, stroke_panel, add_head, apply):
    panel = stroke_panel
    first, second = add_head("T1"), add_head("FLAIR")
    panel.ui.secondSelector.setCurrentNode(second)
    panel.ui.anatomyCheckBox.checked = panel.ui.surfacesCheckBox.checked = True
    texts = []
    panel.ui.progressBar.connect("valueChanged(int)", lambda value: texts.append(panel.ui.statusLabel.text))
    segmentation, table = apply()
    assert (segmentation.GetName(), table.GetName()) == ("T1 lesions", "T1 lesion table")
    assert segmentation.GetSegmentation().GetSegment("SynthSeg_99").GetName() == "Lesion"
    anatomy = segmentation.GetNodeReference("SynthSegSlicer.Anatomy")
    loads = segmentation.GetNodeReference("SynthSegSlicer.Loads")
    assert anatomy.GetSegmentation().GetNumberOfSegments() > 15 and loads.GetNumberOfRows() > 15
    assert panel.ui.statusLabel.text.startswith("Lesions: ")
    assert any("Segmenting 2 of 2" in text for text in texts) and any("the anatomy" in text for text in texts)
    selection = host.app.applicationLogic().GetSelectionNode()
    assert selection.GetActiveTableID() == table.GetID() and selection.GetActiveVolumeID() == first.GetID()


def test_lesions_and_anatomy_of_a_scan_do_not_overwrite_each_other(host, stroke_panel, add_head, apply):
    panel = stroke_panel
    add_head()
    lesions, lesion_table = apply()
    assert apply() == (lesions, lesion_table)
    panel.ui.taskComboBox.currentIndex = 0
    assert panel.ui.segmentationSelector.currentNode() is None and panel.ui.tableSelector.currentNode() is None
    brain, _volumes = apply()
    assert brain is not lesions
    panel.ui.taskComboBox.currentIndex = 1
    assert panel.ui.segmentationSelector.currentNode() is lesions
    assert panel.ui.tableSelector.currentNode() is lesion_table


def test_missing_stroke_weights_are_told_once_and_change_nothing(
    host, panel, add_head, click, finish, snapshot, monkeypatch
):
    from synthseg_slicer.job import Job

    program = "from synthseg_slicer import cards, worker; cards.MODEL_FOLDERS = (); raise SystemExit(worker.main())"
    monkeypatch.setattr(Job, "arguments", property(lambda job: ["-c", program, str(job.folder)]))
    add_head()
    panel.ui.taskComboBox.currentIndex = 1
    scene = snapshot()
    click(panel.ui.applyButton)
    finish()
    (message,) = host.messages
    assert "No bundled weights for the task 'stroke'" in message.text and panel.ui.statusLabel.text == message.text
    assert snapshot() == scene and panel.ui.applyButton.text == "Apply"


def test_the_settings_of_the_stroke_task_reach_the_run(host, panel, add_head, click, monkeypatch):
    calls = []

    def process(*arguments, **options):
        from synthseg_slicer.errors import SynthSegError

        calls.append((arguments, options))
        raise SynthSegError("enough")

    monkeypatch.setattr(panel.logic, "processStroke", process)
    nodes = [add_head(name) for name in ("T1", "FLAIR", "T2")]
    panel.ui.taskComboBox.currentIndex = 1
    panel.ui.secondSelector.setCurrentNode(nodes[1])
    panel.ui.fourthSelector.setCurrentNode(nodes[2])
    panel.ui.scanTypeComboBox.currentIndex = 1
    panel.ui.registerCheckBox.checked = panel.ui.anatomyCheckBox.checked = False
    click(panel.ui.applyButton)
    ((arguments, options),) = calls
    assert arguments == (nodes, None, None)
    wanted = {"fast": True, "anatomy": False, "register": False, "native": False, "surfaces": False, "device": "auto"}
    assert (wanted | {"ct": False}).items() <= options.items() and "task" not in options


def test_devices_and_memory_are_told(host, panel, add_head):
    add_head()
    host.wait_until(lambda: "cores" in panel.ui.deviceComboBox.itemText(1), WAIT_S)
    assert panel.ui.deviceComboBox.itemData(0) == "auto" and panel.ui.deviceComboBox.itemData(1) == "cpu"
    assert "GB" in panel.ui.memoryLabel.text


def test_a_device_of_another_computer_is_kept_and_refused_in_words(host, panel, add_head, click, finish):
    add_head()
    panel._parameterNode.device = "cuda:7"
    assert panel.ui.deviceComboBox.currentText == "cuda:7"
    click(panel.ui.applyButton)
    finish()
    (message,) = host.messages
    assert "cuda:7" in message.text


def test_unloading_the_module_ends_its_run(host, loaded, panel, add_head, click):
    add_head()
    click(panel.ui.applyButton)
    run = panel.run
    host.unload(loaded)
    host.wait_until(lambda: run.done, WAIT_S)
    assert run.cancelled


def test_sample_data_and_terms_are_registered_at_start(host, loaded, monkeypatch):
    import slicer
    import vtk

    registered = []
    sample_data = ModuleType("SampleData")
    sample_data.SampleDataLogic = type(
        "SampleDataLogic", (), {"registerCustomSampleDataSource": staticmethod(lambda **item: registered.append(item))}
    )
    monkeypatch.setitem(sys.modules, "SampleData", sample_data)
    host.app.startupCompleted.emit()
    assert len({item["sampleName"] for item in registered}) == 3
    assert all(item["checksums"].startswith("SHA256:") for item in registered)
    assert all(Path(item["thumbnailFileName"]).exists() for item in registered)
    names = vtk.vtkStringArray()
    slicer.modules.terminologies.logic().GetLoadedTerminologyNames(names)
    assert "SynthSegSlicer" in str([names.GetValue(number) for number in range(names.GetNumberOfValues())])
