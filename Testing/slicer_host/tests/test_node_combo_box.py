"""The node selector: what it lists, and what happens to its current node."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")


@pytest.fixture
def selector(host):
    """A selector of volumes (exactly, no labelmaps) without actions, with its scene."""
    import slicer

    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.showChildNodeTypes = box.addEnabled = box.removeEnabled = False
    box.setMRMLScene(slicer.mrmlScene)
    return box


def add(name: str, kind: str = "vtkMRMLScalarVolumeNode"):
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass(kind, name)


def test_only_nodes_that_pass_the_filter_are_listed(host, selector):
    a = add("a")
    add("labels", "vtkMRMLLabelMapVolumeNode")
    hidden = add("hidden")
    hidden.SetHideFromEditors(True)
    assert [selector.nodeFromIndex(i) for i in range(selector.nodeCount())] == [a]
    selector.showChildNodeTypes = selector.showHidden = True
    assert selector.nodeCount() == 3
    selector.addAttribute("vtkMRMLScalarVolumeNode", "kind", "scan")
    assert selector.nodeCount() == 0
    hidden.SetAttribute("kind", "scan")
    selector.showHidden = False
    selector.showHidden = True
    assert selector.nodeCount() == 1


def test_the_first_node_is_selected_if_there_is_nothing_else_to_select(host, selector):
    seen = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", seen.append)
    a = add("a")
    add("b")
    assert selector.currentNode() is a and selector.currentNodeID == a.GetID() and seen == [a]


def test_with_actions_or_none_no_node_is_selected_by_itself(host, selector):
    selector.addEnabled = True
    add("a")
    assert selector.currentNode() is None
    selector.addEnabled, selector.noneEnabled = False, True
    add("b")
    assert selector.currentNode() is None and selector.currentNodeID == ""


def test_a_scene_that_comes_later_has_the_node_that_was_asked_for(host):
    import slicer

    add("a")
    b = add("b")
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    assert not box.enabled
    box.setCurrentNodeID(b.GetID())
    box.setMRMLScene(slicer.mrmlScene)
    assert box.currentNode() is b and box.enabled


def test_signals_tell_node_id_and_validity(host, selector):
    seen = []
    a = add("a")
    selector.noneEnabled = True
    selector.connect("currentNodeChanged(bool)", seen.append)
    selector.connect("currentNodeIDChanged(QString)", seen.append)
    selector.setCurrentNode(None)
    selector.setCurrentNode(a)
    assert seen == [False, "", True, a.GetID()]


def test_removing_the_current_node_selects_another_or_none(host, selector):
    import slicer

    a, b = add("a"), add("b")
    selector.setCurrentNode(b)
    slicer.mrmlScene.RemoveNode(b)
    assert selector.currentNode() is a
    slicer.mrmlScene.RemoveNode(a)
    assert selector.currentNode() is None and selector.nodeCount() == 0


def test_removing_the_current_node_with_none_enabled_never_leaves_a_dead_node(host, selector):
    import slicer

    selector.noneEnabled = True
    a = add("a")
    selector.setCurrentNode(a)
    seen = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", seen.append)
    slicer.mrmlScene.RemoveNode(a)
    assert selector.currentNode() is None and seen == [None]


def test_closing_the_scene_empties_the_selector(host, selector):
    import slicer

    add("a")
    slicer.mrmlScene.Clear(0)
    assert selector.currentNode() is None and selector.nodeCount() == 0


def test_renaming_a_node_keeps_it_selected(host, selector):
    a = add("a")
    seen = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", seen.append)
    a.SetName("renamed")
    assert selector.currentNode() is a and not seen


def test_the_user_can_create_a_node(host, selector):
    seen = []
    selector.connect("nodeAddedByUser(vtkMRMLNode*)", seen.append)
    selector.baseName = "Scan"
    selector.addEnabled = True
    selector.addAttribute("vtkMRMLScalarVolumeNode", "kind", "scan")
    node = selector.addNode()
    assert seen == [node] and selector.currentNode() is node
    assert node.GetName() == "Scan" and node.GetAttribute("kind") == "scan"
    assert selector.addNode("vtkMRMLModelNode") is None


def test_a_selector_that_is_gone_no_longer_follows_the_scene(host):
    import slicer

    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.setMRMLScene(slicer.mrmlScene)
    a = add("a")
    box.delete()
    a.SetName("b")
    add("c")
