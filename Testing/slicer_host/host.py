"""The host: one application per process, with the conveniences of tests."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import slicer
import slicer.util
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from . import dialogs, mrml, parameter_node, pythonqt, scripted_module, views
from .application import Application, MainWindow
from .mrml import terminology_folder
from .node_combo_box import qMRMLNodeComboBox
from .scripted_module import LoadedModule
from .ui_loader import FOREIGN, STAND_INS, UiLoader, placeholder
from .widgets import qMRMLWidget


class Module(SimpleNamespace):
    """`slicer.modules.volumes` and the like: a name and a logic, no widget."""

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        return None


class Host:
    """A Slicer without its application; make one by `start`.

    Attributes
    ----------
    app, scene
        `slicer.app` and `slicer.mrmlScene`.
    slot_errors
        Exceptions that left a slot or a VTK observer: Qt and VTK swallow them, so tests must look here.
    dialogs
        The messages shown, and what the user answers.
    """

    def __init__(self, app: Application, made: mrml.Mrml, window: MainWindow, answers: dialogs.Dialogs) -> None:
        self.app, self._mrml, self._window, self.dialogs = app, made, window, answers
        self.scene = made.scene
        self.slot_errors: list[BaseException] = []
        self._modules: list[LoadedModule] = []
        self._processes: list[QtCore.QProcess] = []

    # ---- messages

    @property
    def messages(self) -> list[dialogs.Message]:
        """The messages that the user saw, in order."""
        return self.dialogs.messages

    @property
    def answer(self):
        """The button that the user presses in message boxes: see `Dialogs.answer`."""
        return self.dialogs.answer

    @answer.setter
    def answer(self, value) -> None:
        self.dialogs.answer = value

    @property
    def selected_modules(self) -> list[str]:
        """The modules that were selected, in order; "" for none."""
        return self._window.moduleSelector().history

    @property
    def main_window(self) -> bool:
        """Whether there is a main window (`--no-main-window` otherwise)."""
        return self._window.objectName == "qSlicerMainWindow"

    @main_window.setter
    def main_window(self, exists: bool) -> None:
        self._window.objectName = "qSlicerMainWindow" if exists else ""

    def take_slot_errors(self) -> list[BaseException]:
        """The slot errors so far, which the fixture then does not complain about."""
        taken, self.slot_errors[:] = list(self.slot_errors), []
        return taken

    # ---- modules

    def load_module(self, path: str | Path) -> LoadedModule:
        """Load a scripted module from its .py file; create its widget, set it up and enter it."""
        loaded = scripted_module.load(Path(path).resolve())
        self._modules.append(loaded)
        self._window.moduleSelector().selectModule(loaded.parent.name)
        self.app.processEvents()
        return loaded

    def unload(self, loaded: LoadedModule) -> None:
        """Unload a module: exit, cleanup, gone."""
        if self.selected_modules[-1:] == [loaded.parent.name]:
            loaded.parent.widgetRepresentation().exit()
            self.selected_modules.append("")
        scripted_module.unload(loaded)
        parameter_node.release()
        self._modules.remove(loaded)
        self.wait_until(lambda: not self.running_processes)  # killed ones need a moment
        self.app.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)

    @property
    def running_processes(self) -> list[QtCore.QProcess]:
        """The child processes that modules have started and that run."""
        return [process for process in self._processes if process.state() != QtCore.QProcess.NotRunning]

    # ---- time

    def wait_until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Run the event loop until the condition holds.

        Raises
        ------
        TimeoutError
            It did not hold in time.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not so after {timeout_s} s; slot errors: {self.slot_errors}")
            self.app.processEvents(QtCore.QEventLoop.AllEvents | QtCore.QEventLoop.WaitForMoreEvents, 20)
            self.app.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)  # as the application's event loop does

    # ---- pictures

    def slice_view(self, background=None, **options) -> np.ndarray:
        """Picture of a slice view: see `views.slice_view`. Only where `slicer_host.can_render()`."""
        return views.slice_view(self._mrml, background, **options)

    def view_3d(self, **options) -> np.ndarray:
        """Picture of the 3D view: see `views.view_3d`. Only where `slicer_host.can_render()`."""
        return views.view_3d(self._mrml, **options)

    # ---- between tests

    def reset(self) -> None:
        """Unload modules, empty the scene, and forget messages, errors and answers."""
        self.main_window = True
        for loaded in reversed(self._modules.copy()):
            self.unload(loaded)
        self.scene.SetUndoOff()
        self.scene.ClearUndoStack()
        self.scene.ClearRedoStack()
        self.scene.Clear(0)
        self.app.processEvents()
        self.dialogs.reset()
        self.selected_modules.clear()
        self._processes.clear()
        self.take_slot_errors()
        self.app.testing, self.app.pauses = False, 0
        self.app.settings().clear()
        while self.app.overrideCursor():
            self.app.restoreOverrideCursor()


def _qt_module() -> ModuleType:
    module = ModuleType("qt")
    for source in (QtCore, QtGui, QtWidgets):
        module.__dict__.update({name: getattr(source, name) for name in dir(source) if name.startswith("Q")})
    module.QUiLoader = UiLoader
    module.Signal, module.Slot = QtCore.Signal, QtCore.Slot
    return module


def _missing(name: str):
    if name.startswith(FOREIGN):
        return placeholder(name)
    raise AttributeError(name)


def _no_installs(*_, **__):
    raise RuntimeError("the test host installs no packages")


def _clean_slicer_namespace() -> None:
    """slicer-core also lays slicer.util's functions into `slicer`, where Slicer has none of them."""
    for name, member in vars(slicer.util).items():
        if callable(member) and not name.startswith("_") and vars(slicer).get(name) is member:
            delattr(slicer, name)


def _install_modules(made: mrml.Mrml) -> None:
    sys.modules["qt"] = _qt_module()
    ctk = sys.modules["ctk"] = ModuleType("ctk")
    ctk.__getattr__ = slicer.__getattr__ = _missing
    for name, cls in STAND_INS.items():
        setattr(ctk if name.startswith("ctk") else slicer, name, cls)
    slicer.qMRMLWidget, slicer.qMRMLNodeComboBox = qMRMLWidget, qMRMLNodeComboBox
    slicer.modules = sys.modules["slicer.modules"] = ModuleType("slicer.modules")
    slicer.moduleNames, slicer.selfTests = SimpleNamespace(), {}
    for name, logic in made.logics.items():
        setattr(slicer.modules, name.lower(), Module(name=name, path="", _logic=logic))
        setattr(slicer.moduleNames, name, name)
    slicer.util.pip_install = slicer.util.pip_uninstall = _no_installs


def start(folder: str | Path | None = None, terminologies: str | Path | None = None) -> Host:
    """Start the host: `slicer.app`, `slicer.mrmlScene`, and the modules qt, ctk, slicer.* of this process.

    Parameters
    ----------
    folder
        An empty folder for settings and temporary files; None: a new one.
    terminologies
        Folder of terminology files; None: those of trame-slicer, if it is installed.

    Raises
    ------
    RuntimeError
        There is a QApplication already: the host must be the application.
    """
    if QtWidgets.QApplication.instance():
        raise RuntimeError("the Slicer host must be started before any other QApplication")
    folder = Path(folder or tempfile.mkdtemp(prefix="slicer-host-"))
    os.environ["XDG_CONFIG_HOME"] = str(folder)
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, str(folder))
    pythonqt.install(QtCore, QtGui, QtWidgets)
    answers = dialogs.Dialogs()
    dialogs.install(answers)
    app = slicer.app = Application(folder)
    terms = Path(terminologies) if terminologies else terminology_folder()
    made = mrml.boot(Path(app.slicerHome), Path(app.temporaryPath), terms)
    slicer.mrmlScene = made.scene
    app.attach(made)
    _clean_slicer_namespace()
    _install_modules(made)
    scripted_module.install()
    parameter_node.install()
    host = Host(app, made, MainWindow(), answers)
    _record_errors(host)
    _record_processes(host)
    return host


def _record_processes(host: Host) -> None:
    start_process = QtCore.QProcess.start

    def start(self: QtCore.QProcess, *arguments) -> None:
        host._processes.append(self)
        start_process(self, *arguments)

    QtCore.QProcess.start = start


def _record_errors(host: Host) -> None:
    """Qt and VTK report exceptions of Python callbacks through sys.excepthook."""
    original = sys.excepthook

    def record(kind, error, traceback) -> None:
        host.slot_errors.append(error)
        original(kind, error, traceback)

    sys.excepthook = record
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_ERROR)
