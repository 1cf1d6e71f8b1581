"""parameterNodeWrapper: how values are kept, and which widgets can show them."""

from __future__ import annotations

import enum
from typing import Annotated, Union

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")


class Color(enum.Enum):
    RED = 1
    GREEN = 2

    def label(self) -> str:
        return self.name.title()


@pytest.fixture
def node(host):
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")


@pytest.fixture
def wrapper(node):
    """A wrapper with one parameter of each kind."""
    from slicer import vtkMRMLModelNode, vtkMRMLScalarVolumeNode
    from slicer.parameterNodeWrapper import Choice, Default, Minimum, WithinRange, parameterNodeWrapper

    class Parameters:
        __annotations__ = {  # written out: typing cannot look up the names of local classes
            "volume": vtkMRMLScalarVolumeNode,
            "either": Union[vtkMRMLScalarVolumeNode, vtkMRMLModelNode],  # noqa: UP007
            "flag": bool,
            "count": Annotated[int, Minimum(1), Default(4)],
            "size": Annotated[float, WithinRange(0, 1), Default(0.5)],
            "text": str,
            "color": Color,
            "device": Annotated[str, Choice(["auto", "cpu"])],
        }
        flag = True
        color = Color.GREEN
        device = "auto"

    return parameterNodeWrapper(Parameters)(node)


def test_values_start_with_their_defaults(wrapper):
    assert (wrapper.volume, wrapper.either, wrapper.flag, wrapper.count, wrapper.size) == (None, None, True, 4, 0.5)
    assert (wrapper.text, wrapper.color, wrapper.device) == ("", Color.GREEN, "auto")
    assert wrapper.default("count").value == 4 and wrapper.getValue("flag") is True


def test_values_are_kept_as_slicer_keeps_them(wrapper, node):
    import slicer

    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    wrapper.volume, wrapper.either, wrapper.flag, wrapper.color, wrapper.size = volume, model, False, Color.RED, 1
    assert node.GetNodeReference("volume") is volume and node.GetNodeReference("either.1") is model
    assert [node.GetParameter(name) for name in ("flag", "color", "size", "count")] == ["False", "RED", "1", "4"]
    wrapper.either = volume
    assert node.GetNodeReference("either.0") is volume and node.GetNodeReference("either.1") is None
    assert type(wrapper)(node).either is volume


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("count", 0, ValueError),
        ("count", 1.5, TypeError),
        ("size", 2.0, ValueError),
        ("device", "gpu", ValueError),
        ("flag", 1, TypeError),
        ("text", None, TypeError),
        ("color", "RED", TypeError),
        ("volume", "vtkMRMLScalarVolumeNode1", TypeError),
        ("missing", 1, ValueError),
    ],
)
def test_wrong_values_are_refused_and_the_old_ones_stay(wrapper, name, value, error):
    with pytest.raises(error):
        wrapper.setValue(name, value)
    assert wrapper.count == 4


def test_changes_of_the_node_are_seen_and_can_be_observed(wrapper, node):
    import vtk

    seen = []
    tag = wrapper.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: seen.append(wrapper.count))
    node.SetParameter("count", "9")
    assert seen == [9]
    modified = wrapper.StartModify()
    wrapper.count, wrapper.flag = 5, False
    assert seen == [9]
    wrapper.EndModify(modified)
    assert seen == [9, 5]
    wrapper.RemoveObserver(tag)


def test_types_that_slicer_does_not_know_are_refused(host):
    from slicer import vtkMRMLModelNode, vtkMRMLScalarVolumeNode
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    class Bar:
        __annotations__ = {"node": vtkMRMLScalarVolumeNode | vtkMRMLModelNode}

    class Unknown:
        __annotations__ = {"thing": object}

    class Reserved:
        __annotations__ = {"connectGui": int}

    for cls, error in ((Bar, TypeError), (Unknown, TypeError), (Reserved, ValueError)):
        with pytest.raises(error):
            parameterNodeWrapper(cls)


def test_widgets_and_parameters_follow_each_other(wrapper):
    import ctk
    import qt
    import slicer

    widgets = {"flag": qt.QCheckBox(), "count": qt.QSpinBox(), "size": ctk.ctkSliderWidget(), "text": qt.QLineEdit()}
    widgets |= {"color": qt.QComboBox(), "device": qt.QComboBox(), "either": slicer.qMRMLNodeComboBox()}
    widgets["color"].addItem("an item of the .ui file")
    widgets["either"].setMRMLScene(slicer.mrmlScene)
    tag = wrapper.connectParametersToGui(widgets)
    assert widgets["flag"].checked and (widgets["count"].value, widgets["count"].minimum) == (4, 1)
    assert (widgets["size"].value, widgets["size"].maximum) == (0.5, 1)
    assert [widgets["color"].itemText(i) for i in range(2)] == ["Red", "Green"] and widgets["color"].count == 2
    assert widgets["color"].currentText == "Green"
    assert widgets["either"].nodeTypes == ["vtkMRMLScalarVolumeNode", "vtkMRMLModelNode"]

    widgets["flag"].checked, widgets["count"].value, widgets["size"].value = False, 7, 0.25
    widgets["text"].text, widgets["color"].currentIndex, widgets["device"].currentIndex = "hello", 0, 1
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    widgets["either"].setCurrentNode(model)
    assert (wrapper.flag, wrapper.count, wrapper.size, wrapper.text) == (False, 7, 0.25, "hello")
    assert (wrapper.color, wrapper.device, wrapper.either) == (Color.RED, "cpu", model)

    wrapper.color, wrapper.text, wrapper.either = Color.GREEN, "bye", None
    assert (widgets["color"].currentText, widgets["text"].text) == ("Green", "bye")
    assert widgets["either"].currentNode() is None

    wrapper.disconnectGui(tag)
    widgets["flag"].checked = True
    wrapper.count = 2
    assert wrapper.flag is False and widgets["count"].value == 7


def test_connect_gui_finds_widgets_by_property_and_returns_no_tag(wrapper):
    import qt

    panel = qt.QWidget()
    box = qt.QCheckBox(panel)
    box.setProperty("SlicerParameterName", "flag")
    assert wrapper.connectGui(panel) is None  # Slicer issue 7547
    box.checked = False
    assert wrapper.flag is False


@pytest.mark.parametrize(
    ("name", "widget"),
    [
        ("flag", "QRadioButton"),
        ("flag", "ctkCollapsibleButton"),
        ("size", "QSpinBox"),
        ("text", "QPlainTextEdit"),
        ("text", "QComboBox"),  # without the annotation Choice
        ("volume", "QComboBox"),
        ("count", "QSlider"),  # without an upper bound
    ],
)
def test_pairs_that_slicer_cannot_bind_are_refused(wrapper, name, widget):
    import ctk
    import qt

    made = getattr(ctk if widget.startswith("ctk") else qt, widget)()
    with pytest.raises(RuntimeError):
        wrapper.connectParametersToGui({name: made})
