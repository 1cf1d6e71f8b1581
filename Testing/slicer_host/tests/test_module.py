"""A scripted module in the host: loaded, clicked, saved, reloaded, drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")

SAMPLE = Path(__file__).parent / "Sample" / "Sample.py"


@pytest.fixture
def sample(host):
    """The sample module, entered."""
    return host.load_module(SAMPLE)


@pytest.fixture
def volume(host):
    """A volume node whose middle is bright, 2 mm voxels around the origin."""
    import slicer

    array = np.zeros((20, 20, 20))
    array[6:14, 6:14, 6:14] = 5
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -19
    return slicer.util.addVolumeFromArray(array, affine, name="head")


def click(widget) -> None:
    import qt
    from PySide6.QtTest import QTest

    QTest.mouseClick(widget, qt.Qt.LeftButton)


def test_a_click_runs_the_module(host, sample, volume):
    ui = sample.widget.ui
    sample.widget.parent.show()
    ui.inputVolume.setCurrentNode(volume)
    assert ui.applyButton.enabled
    click(ui.applyButton)
    segmentation = ui.segmentation.currentNode()
    assert segmentation.GetName() == "head segmentation"
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1


def test_apply_stays_disabled_without_a_scan(host, sample):
    assert not sample.widget.ui.applyButton.enabled


def test_an_error_reaches_the_user_and_the_slot_errors(host, sample, volume):
    sample.widget.parameters.inputVolume = volume
    sample.widget.ui.threshold.value = 8
    sample.widget.parent.show()
    click(sample.widget.ui.applyButton)
    assert [type(error) for error in host.take_slot_errors()] == [ValueError]
    (message,) = host.messages
    assert message.level == "error" and message.text.startswith("Failed.") and "Traceback" in message.details


def test_entering_and_leaving_calls_the_widget(host, sample):
    import slicer

    assert sample.widget.events == ["enter"] and sample.widget.parent.isEntered
    slicer.util.selectModule("Volumes")
    assert sample.widget.events == ["enter", "exit"] and not sample.widget.parent.isEntered
    slicer.util.selectModule("Sample")
    assert host.selected_modules == ["Sample", "Volumes", "Sample"]
    host.unload(sample)
    assert sample.widget.events[-2:] == ["exit", "cleanup"]
    assert not hasattr(slicer.modules, "sample")


def test_a_module_goes_also_when_there_is_no_main_window(host, sample):
    host.main_window = False
    host.reset()
    assert sample.widget.events == ["enter", "exit", "cleanup"] and host.main_window


def test_slicer_knows_the_module(host, sample):
    import slicer

    assert slicer.modules.sample.title == "Sample" and slicer.modules.SampleWidget is sample.widget
    assert slicer.util.getModuleWidget("Sample") is sample.widget
    assert slicer.util.getModuleLogic("Sample") is sample.widget.logic
    assert slicer.util.modulePath("Sample") == str(SAMPLE)
    slicer.selfTests["Sample"]()
    with pytest.raises(AttributeError):
        sample.parent.titel = "misspelt"


def test_parameters_and_results_survive_saving_and_loading_the_scene(host, sample, volume, tmp_path):
    import slicer

    widget = sample.widget
    widget.ui.inputVolume.setCurrentNode(volume)
    widget.ui.mode.currentIndex = 1
    widget.ui.surfaces.checked = False
    widget.onApply()
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    assert widget.ui.inputVolume.currentNode() is None and not widget.ui.applyButton.enabled
    slicer.util.loadScene(path)
    assert widget.ui.inputVolume.currentNode().GetName() == "head" and widget.ui.applyButton.enabled
    assert widget.parameters.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    assert widget.parameters.mode.value == "fast" and widget.ui.mode.currentText == "Fast"
    assert not widget.ui.surfaces.checked


def test_what_the_module_made_can_be_undone(host, sample, volume):
    scene = host.scene
    scene.SetUndoOn()
    slicer_node = sample.widget.logic.process(volume, 1)
    slicer_node.UndoEnabledOn()
    scene.SaveStateForUndo()
    slicer_node.SetName("renamed")
    scene.Undo()
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode").GetName() == "head segmentation"


def test_a_child_process_talks_to_the_module(host, sample):
    import qt

    output, finished = [], []
    code = "import os, sys; print('from child', os.environ['SAMPLE'], flush=True); sys.exit(3)"
    process = sample.widget.logic.child(code, output.append, lambda *a: finished.append(a))
    host.wait_until(lambda: finished)
    assert b"".join(output) == b"from child yes\n"
    assert finished == [(3, qt.QProcess.NormalExit)]
    assert process.state() == qt.QProcess.NotRunning


def test_a_killed_child_process_has_crashed(host, sample):
    import qt

    output, finished = [], []
    code = "import time; print('up', flush=True); time.sleep(60)"
    process = sample.widget.logic.child(code, output.append, lambda *a: finished.append(a))
    host.wait_until(lambda: output)
    assert host.running_processes == [process]
    process.kill()
    host.wait_until(lambda: finished)
    assert finished[0][1] == qt.QProcess.CrashExit == 1


def test_a_child_process_ends_when_its_input_closes(host, sample):
    output, finished = [], []
    process = sample.widget.logic.child(
        "import sys; print(len(sys.stdin.read()))", output.append, lambda code: finished.append(code)
    )
    process.write(b"four")
    process.closeWriteChannel()
    host.wait_until(lambda: finished)
    assert b"".join(output) == b"4\n"


def test_the_slice_view_shows_volume_and_segmentation(host, sample, volume):
    import slicer_host

    if not slicer_host.can_render():
        pytest.skip("no EGL and OpenGL libraries")
    plain = host.slice_view(volume, size=(120, 100))
    segmentation = sample.widget.logic.process(volume, 1)
    segmentation.GetSegmentation().GetNthSegment(0).SetColor(1, 0, 0)
    colored = host.slice_view(volume, size=(120, 100), orientation="Coronal")
    assert plain.shape == (100, 120, 3) and plain.dtype == np.uint8
    assert plain[50, 60].min() > plain[5, 5].max() + 100  # bright in the middle, dark at the rim
    assert (plain[..., 0] == plain[..., 1]).mean() > 0.99
    assert colored[50, 60, 0] > colored[50, 60, 1] + 50  # red lies over it


def test_the_3d_view_shows_surfaces(host, sample, volume):
    import slicer_host

    if not slicer_host.can_render():
        pytest.skip("no EGL and OpenGL libraries")
    empty = host.view_3d(size=(80, 80))
    segmentation = sample.widget.logic.process(volume, 1)
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetSegmentation().GetNthSegment(0).SetColor(0, 1, 0)
    picture = host.view_3d(size=(80, 80), look_from="left")
    assert picture.shape == (80, 80, 3)
    assert picture[40, 40, 1] > picture[40, 40, 0] + 50
    assert empty[40, 40, 1] < empty[40, 40, 2] + 20
