"""slicer.app, messages, files and layouts."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")


def test_there_is_one_host_in_a_process(host):
    import slicer_host

    with pytest.raises(RuntimeError, match="QApplication"):
        slicer_host.start()


def test_versions_of_pyside_that_crash_are_refused(host, monkeypatch):
    import slicer_host

    monkeypatch.setattr(slicer_host, "version", lambda name: "6.12.0")
    monkeypatch.setattr(slicer_host.sys, "version_info", (3, 11, 7))
    with pytest.raises(RuntimeError, match=r"PySide6-Essentials<6\.12"):
        slicer_host.start()


def test_messages_are_recorded_and_answered(host):
    import slicer

    slicer.util.infoDisplay("finished", windowTitle="Done")
    slicer.util.errorDisplay("bad", detailedText="the log")
    assert slicer.util.confirmOkCancelDisplay("sure?")
    host.answer = "Cancel"
    assert not slicer.util.confirmOkCancelDisplay("sure?")
    host.answer = lambda message: "Yes" if "delete" in message.text else "No"
    assert slicer.util.confirmYesNoDisplay("delete?") and not slicer.util.confirmYesNoDisplay("keep?")
    assert [(m.level, m.text) for m in host.messages[:3]] == [
        ("info", "finished"),
        ("error", "bad"),
        ("question", "sure?"),
    ]
    assert host.messages[0].title == "Done" and host.messages[1].details == "the log"


def test_message_boxes_of_the_module_are_answered_by_button_text(host):
    import qt

    box = qt.QMessageBox()
    box.text = "PyTorch is missing."
    install = box.addButton("Install", qt.QMessageBox.AcceptRole)
    box.addButton("Not now", qt.QMessageBox.RejectRole)
    host.answer = "Install"
    box.exec_()
    assert box.clickedButton() is install
    assert host.messages[0].buttons == ("Install", "Not now")
    host.answer = "No"
    assert qt.QMessageBox.question(None, "Title", "Really?") == qt.QMessageBox.No


def test_an_answer_that_no_button_offers_is_an_error(host):
    import slicer

    host.answer = "Maybe"
    assert not slicer.util.confirmYesNoDisplay("sure?")
    assert [type(error) for error in host.take_slot_errors()] == [LookupError]


def test_other_modal_dialogs_need_a_user_from_the_test(host):
    import qt

    assert qt.QDialog().exec_() == qt.QDialog.Rejected
    assert [type(error) for error in host.take_slot_errors()] == [RuntimeError]
    host.dialogs.use = lambda dialog: dialog.accept()
    assert qt.QDialog().exec_() == qt.QDialog.Accepted
    with pytest.raises(RuntimeError, match="for ever"):
        qt.QFileDialog.getOpenFileName()


def test_in_testing_mode_slicer_answers_itself_and_messages_are_still_recorded(host):
    import slicer

    host.app.testing = True
    host.answer = "Cancel"
    slicer.util.errorDisplay("bad")
    slicer.util.confirmOkCancelDisplay("sure?")
    assert [m.text for m in host.messages] == ["bad", "sure?"]


def test_without_a_main_window_messages_are_only_logged(host):
    import slicer

    host.main_window = False
    assert slicer.util.mainWindow() is None and slicer.app.commandOptions().noMainWindow
    slicer.util.infoDisplay("finished")
    assert [m.text for m in host.messages] == ["finished"]


def test_volumes_segmentations_tables_and_sequences_are_loaded_and_saved(host, tmp_path):
    import slicer

    array = np.zeros((4, 5, 6), np.int16)
    array[1:3, 1:3, 1:3] = 7
    volume = slicer.util.addVolumeFromArray(array, np.diag([2.0, 3, 4, 1]), name="a")
    for path in (tmp_path / "a.nrrd", tmp_path / "b.nii.gz"):
        assert slicer.util.saveNode(volume, str(path))
        loaded = slicer.util.loadVolume(str(path))
        assert loaded.GetName() == {"a.nrrd": "a_1", "b.nii.gz": "b"}[path.name]
        assert np.array_equal(slicer.util.arrayFromVolume(loaded), array)
    labels = slicer.util.loadVolume(str(tmp_path / "a.nrrd"), {"labelmap": True, "name": "labels"})
    assert labels.IsA("vtkMRMLLabelMapVolumeNode") and labels.GetName() == "labels"
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "s")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, segmentation)
    assert slicer.util.saveNode(segmentation, str(tmp_path / "s.seg.nrrd"))
    assert slicer.util.loadSegmentation(str(tmp_path / "s.seg.nrrd")).GetSegmentation().GetNumberOfSegments() == 1
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "t")
    slicer.util.updateTableFromArray(table, [np.array([1.5, 2.5])], ["x"])
    assert slicer.util.saveNode(table, str(tmp_path / "t.csv"))
    assert slicer.util.loadTable(str(tmp_path / "t.csv")).GetNumberOfRows() == 2
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "q")
    for time in ("0", "1"):
        sequence.SetDataNodeAtValue(volume, time)
    assert slicer.util.saveNode(sequence, str(tmp_path / "q.seq.nrrd"))
    assert slicer.util.loadSequence(str(tmp_path / "q.seq.nrrd")).GetNumberOfDataNodes() == 2


def test_a_file_that_cannot_be_read_is_an_error(host, tmp_path):
    import slicer

    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    for name in ("broken.nii.gz", "missing.nrrd"):
        with pytest.raises(RuntimeError, match="Failed to load"):
            slicer.util.loadVolume(str(tmp_path / name))


def test_a_loaded_volume_is_shown_in_the_slice_views(host, tmp_path):
    import slicer

    volume = slicer.util.addVolumeFromArray(np.ones((3, 3, 3)))
    slicer.util.saveNode(volume, str(tmp_path / "v.nrrd"))
    loaded = slicer.util.loadVolume(str(tmp_path / "v.nrrd"))
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == loaded.GetID()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    assert composite.GetBackgroundVolumeID() == volume.GetID()


def test_layouts_are_set_on_the_scenes_layout_node(host):
    import slicer

    manager, seen = slicer.app.layoutManager(), []
    manager.connect("layoutChanged(int)", seen.append)
    table_layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView
    manager.setLayout(table_layout)
    assert manager.layout == manager.layoutLogic().GetLayoutNode().GetViewArrangement() == table_layout
    manager.layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    assert seen == [table_layout, slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView]
    manager.disconnect("layoutChanged(int)", seen.append)


def test_a_table_is_shown_in_the_table_view(host):
    import slicer

    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView)
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    slicer.app.applicationLogic().GetSelectionNode().SetActiveTableID(table.GetID())
    slicer.app.applicationLogic().PropagateTableSelection()
    view = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableViewNode")
    assert view.GetTableNodeID() == table.GetID()


def test_the_subject_hierarchy_follows_the_scene(host):
    import slicer

    volume = slicer.util.addVolumeFromArray(np.ones((3, 3, 3)), name="scan")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    item = hierarchy.GetItemByDataNode(volume)
    if not item:
        item = hierarchy.CreateItem(study, volume)
    hierarchy.SetItemParent(item, study)
    assert hierarchy.GetItemName(hierarchy.GetItemParent(item)) == "study"


def test_settings_start_empty_and_can_be_set(host):
    import qt
    import slicer

    assert slicer.util.settingsValue("SynthSeg/Device", "auto") == "auto"
    qt.QSettings().setValue("SynthSeg/Device", "cpu")
    slicer.app.settings().setValue("SynthSeg/Fast", True)
    assert slicer.util.settingsValue("SynthSeg/Device", "auto") == "cpu"
    assert slicer.util.settingsValue("SynthSeg/Fast", False, slicer.util.toBool) is True


def test_one_test_leaves_nothing_to_the_next(host):
    import slicer

    assert not host.messages and not host.slot_errors and not host.selected_modules
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert slicer.util.settingsValue("SynthSeg/Device", "auto") == "auto"
    assert len(slicer.app.layoutManager().sliceViewNames()) == 3


def test_waiting_for_what_never_comes_times_out(host):
    with pytest.raises(TimeoutError):
        host.wait_until(lambda: False, timeout_s=0.05)
