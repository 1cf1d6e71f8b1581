"""PythonQt's conventions, and what the host refuses."""

from __future__ import annotations

from functools import partial

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")

UI = """<ui version="4.0"><class>Form</class>
<widget class="QWidget" name="Form"><layout class="QVBoxLayout" name="box">{items}</layout></widget>
<customwidgets>{custom}</customwidgets><connections>{connections}</connections></ui>"""
ITEM = '<item><widget class="{}" name="{}">{}</widget></item>'
CUSTOM = "<customwidget><class>{}</class><extends>QWidget</extends></customwidget>"


def load_ui(tmp_path, items, custom="", connections=""):
    import slicer

    path = tmp_path / "form.ui"
    path.write_text(UI.format(items=items, custom=custom, connections=connections))
    return slicer.util.loadUI(str(path))


def test_properties_are_attributes_and_getters_of_other_names_are_methods(host):
    import qt

    button = qt.QPushButton("&Apply")
    button.toolTip = "go"
    button.name = "apply"
    assert (button.text, button.toolTip, button.objectName, button.enabled) == ("&Apply", "go", "apply", True)
    assert button.isEnabled() and button.className() == "QPushButton"
    timer = qt.QTimer()
    timer.singleShot = True
    assert timer.singleShot is True and callable(qt.QTimer.singleShot)


@pytest.mark.parametrize(("name", "value"), [("tooltip", "x"), ("value", "no number"), ("text", "read-only")])
def test_wrong_attributes_are_refused(host, name, value):
    import qt

    with pytest.raises(AttributeError):
        setattr(qt.QProgressBar(), name, value)


def test_stand_ins_refuse_wrong_attributes_too(host):
    import ctk
    import slicer

    for widget in (slicer.qMRMLNodeComboBox(), ctk.ctkCollapsibleButton(), slicer.app.layoutManager()):
        with pytest.raises(AttributeError):
            widget.noneEnable = True


def test_signals_are_connected_by_signature_or_by_name(host):
    import qt

    seen = []
    spin = qt.QSpinBox()
    spin.connect("valueChanged(int)", seen.append)
    spin.value = 3
    spin.connect("editingFinished()", lambda: seen.append("done"))
    spin.editingFinished.emit()
    assert spin.disconnect("valueChanged(int)", seen.append)
    spin.valueChanged.connect(lambda value: seen.append(-value))
    spin.value = 4
    assert seen == [3, "done", -4]


def test_actions_and_timers_call_functions(host):
    import qt

    seen, menu = [], qt.QMenu()
    menu.addAction("Run", lambda: seen.append("action")).trigger()
    qt.QShortcut(qt.QKeySequence("F5"), menu, lambda: seen.append("shortcut")).activated.emit()
    for slot in (lambda: seen.append("lambda"), partial(seen.append, "partial")):
        qt.QTimer.singleShot(0, slot)
    host.wait_until(lambda: len(seen) == 4)
    assert seen == ["action", "shortcut", "lambda", "partial"]


def test_slots_get_only_the_arguments_that_they_take(host):
    import qt

    seen = []
    button = qt.QPushButton()
    button.connect("clicked(bool)", lambda: seen.append("none"))
    button.connect("clicked(bool)", lambda checked: seen.append(checked))
    button.connect("clicked()", lambda checked="default": seen.append(checked))
    button.click()
    assert seen == ["none", False, "default"]


def test_unknown_signals_are_refused(host):
    import qt
    import slicer

    with pytest.raises(ValueError, match="no signal"):
        qt.QPushButton().connect("click(bool)", print)
    with pytest.raises(ValueError, match="no signal"):
        slicer.qMRMLNodeComboBox().connect("currentNodeChanged(vtkMRMLScene*)", print)
    with pytest.raises(TypeError):
        qt.QPushButton().connect(print)


def test_errors_in_slots_timers_and_observers_are_recorded(host):
    import qt
    import slicer
    import vtk

    def fail(*_):
        raise KeyError("lost")

    button = qt.QPushButton()
    button.connect("clicked()", fail)
    button.clicked.connect(fail)
    button.click()
    qt.QTimer.singleShot(0, fail)
    host.wait_until(lambda: len(host.slot_errors) == 3)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, fail)
    node.Modified()
    assert [type(error) for error in host.take_slot_errors()] == [KeyError] * 4


def test_byte_arrays_give_bytes_by_data_alone(host):
    import qt

    process = qt.QProcess()
    process.start("PythonSlicer", ["-c", "print('ä', end='')"])
    assert process.waitForFinished(10_000)
    read = process.readAllStandardOutput()
    assert read.data() == "ä".encode() and str(read) == "ä" and read.size() == 2
    with pytest.raises(TypeError):
        bytes(read)


def test_enums_are_integers(host):
    import qt

    assert qt.QProcess.CrashExit == 1 and qt.Qt.LeftButton == 1
    assert qt.QMessageBox.Ok | qt.QMessageBox.Cancel == 0x00400400


def test_pythonslicer_runs_this_python_but_installs_nothing(host):
    import shutil
    import subprocess
    import sys

    import slicer

    python = shutil.which("PythonSlicer")
    assert python.startswith(slicer.app.slicerHome)
    run = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == sys.prefix
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 1
    with pytest.raises(RuntimeError, match="installs no packages"):
        slicer.util.pip_install("numpy")


def test_a_ui_file_with_a_widget_without_stand_in_is_refused(host, tmp_path):
    with pytest.raises(NotImplementedError, match="ctkPathLineEdit"):
        load_ui(tmp_path, ITEM.format("ctkPathLineEdit", "path", ""), CUSTOM.format("ctkPathLineEdit"))


def test_a_ui_file_with_an_undeclared_class_is_refused(host, tmp_path):
    with pytest.raises(ValueError, match="customwidget"):
        load_ui(tmp_path, ITEM.format("ctkCollapsibleButton", "box", ""))


def test_a_ui_file_with_an_unknown_property_is_refused(host, tmp_path):
    wrong = '<property name="noneEnable"><bool>true</bool></property>'
    with pytest.raises(ValueError, match="noneEnable"):
        load_ui(
            tmp_path, ITEM.format("qMRMLNodeComboBox", "selector", wrong), custom=CUSTOM.format("qMRMLNodeComboBox")
        )


def test_a_ui_file_with_a_connection_to_nothing_is_refused(host, tmp_path):
    connection = (
        "<connection><sender>button</sender><signal>clicked()</signal>"
        "<receiver>Form</receiver><slot>{}()</slot></connection>"
    )
    button = ITEM.format("QPushButton", "button", "")
    form = load_ui(tmp_path, button, connections=connection.format("hide"))
    form.show()
    form.findChild(type(form), "button").click()
    assert not form.visible
    with pytest.raises(ValueError, match="unknown"):
        load_ui(tmp_path, button, connections=connection.format("vanish"))


def test_classes_without_stand_in_can_be_named_but_not_made(host):
    import ctk
    import slicer

    assert not isinstance(slicer.app, slicer.qMRMLThreeDView)
    with pytest.raises(NotImplementedError):
        ctk.ctkRangeWidget()
    with pytest.raises(AttributeError):
        slicer.noSuchThing  # noqa: B018
    with pytest.raises(AttributeError):
        slicer.modules.noSuchModule  # noqa: B018
    with pytest.raises(AttributeError):
        slicer.app.layoutManager().threeDWidget  # noqa: B018


def test_a_collapsible_button_folds_and_keeps_what_was_hidden(host):
    import ctk
    import qt

    button = ctk.ctkCollapsibleButton("Advanced")
    layout = qt.QVBoxLayout(button)
    shown, hidden = qt.QLabel("a"), qt.QLabel("b")
    for label in (shown, hidden):
        layout.addWidget(label)
    hidden.hide()
    button.show()
    folded = []
    button.connect("contentsCollapsed(bool)", folded.append)
    button.collapsed = True
    assert not shown.visible
    button.checked = True
    assert shown.visible and not hidden.visible and folded == [True, False] and button.text == "Advanced"
