"""Stand-ins for Slicer's pure-Python base classes, its translation functions, and the module factory."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import unittest
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import slicer
from PySide6 import QtWidgets

from .widgets import qSlicerScriptedLoadableModuleWidget


@dataclass(slots=True)
class qSlicerScriptedLoadableModule:
    """What a scripted module gets as `parent`; attributes that Slicer's class lacks are refused."""

    name: str
    path: str
    title: str = ""
    categories: list[str] = field(default_factory=list)
    dependencies: list[str] = field(default_factory=list)
    contributors: list[str] = field(default_factory=list)
    associatedNodeTypes: list[str] = field(default_factory=list)
    helpText: str = ""
    acknowledgementText: str = ""
    icon: object = None
    index: int = -1
    hidden: bool = False
    widgetRepresentationCreationEnabled: bool = True
    _widget: object = None
    _logic: object = None

    def widgetRepresentation(self):
        return self._widget

    def logic(self):
        return self._logic


class ScriptedLoadableModule:
    """Base of the module class."""

    def __init__(self, parent) -> None:
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.categories, parent.dependencies, parent.contributors = "", [], [], []
        parent.helpText = parent.acknowledgementText = "This module was created from a template."
        for ending in (".svg", ".png"):
            icon = self.resourcePath(f"Icons/{self.moduleName}{ending}")
            if os.path.isfile(icon):
                parent.icon = slicer.app.windowIcon.__class__(icon)
                break
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename: str) -> str:
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        url = slicer.app.moduleDocumentationUrl(self.moduleName)
        url = slicer.app.documentationBaseUrl + docPage if docPage else url
        return f'<p>For more information see the <a href="{url}">online documentation</a>.</p>'

    def runTest(self, msec: int = 100, **keywords) -> None:
        case = getattr(sys.modules[type(self).__module__], f"{self.moduleName}Test")()
        case.messageDelay = msec
        case.runTest(**keywords)


class ScriptedLoadableModuleWidget:
    """Base of the module's widget class."""

    def __init__(self, parent=None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        self.parent = parent or slicer.qMRMLWidget()
        if not parent:
            self.parent.setLayout(QtWidgets.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if not parent:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self) -> None:
        """Real: adds the developer section if it is enabled."""

    def cleanup(self) -> None:
        """For subclasses."""

    def enter(self) -> None:
        """For subclasses."""

    def exit(self) -> None:
        """For subclasses."""

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    """Base of the module's logic class: the parameter node."""

    def __init__(self, parent=None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node and node.GetAttribute("ModuleName") != self.moduleName:  # closing the scene takes it away
                node.SetAttribute("ModuleName", self.moduleName)
        else:
            node = next(iter(self.getAllParameterNodes()), None)
        return node or slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self) -> list:
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self):
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)  # the Python variable owns it now
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Base of the module's self test."""

    messageDelay = 0

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        slicer.util.delayDisplay(message, 0)

    def runTest(self) -> None:
        logging.warning("No test is defined in %s", type(self).__name__)


def tr(text: str) -> str:
    """`slicer.i18n.tr`: the text, unchanged."""
    return slicer.app.translate("", text)


def translate(context: str, text: str) -> str:
    """`slicer.i18n.translate`."""
    return slicer.app.translate(context, text)


class SampleDataLogic:
    """The registration half of Slicer's SampleData module: keeps what is registered, downloads nothing."""

    sources: dict[str, list[dict]] = {}  # category -> keyword arguments of the registrations  # noqa: RUF012

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFiles=None,
        loadFileProperties=None,
        checksums=None,
        loadFileType=None,
    ) -> None:
        SampleDataLogic.sources.setdefault(category, []).append({k: v for k, v in locals().items() if v is not None})


def _module(name: str, **members) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module
    return module


def install() -> None:
    """Register `slicer.ScriptedLoadableModule`, `slicer.i18n` and `SampleData`."""
    bases = (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )
    names = {base.__name__: base for base in bases}
    slicer.ScriptedLoadableModule = _module("slicer.ScriptedLoadableModule", __all__=list(names), **names)
    slicer.i18n = _module("slicer.i18n", tr=tr, translate=translate)
    _module("SampleData", SampleDataLogic=SampleDataLogic)
    slicer.qSlicerScriptedLoadableModule = qSlicerScriptedLoadableModule
    slicer.qSlicerScriptedLoadableModuleWidget = qSlicerScriptedLoadableModuleWidget


@dataclass
class LoadedModule:
    """A scripted module as the application has it: the Python module, the module object, and its widget."""

    module: ModuleType
    instance: ScriptedLoadableModule
    widget: ScriptedLoadableModuleWidget
    parent: qSlicerScriptedLoadableModule


def load(path: Path) -> LoadedModule:
    """Load a scripted module as the module factory does, create its widget and set it up."""
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parent = qSlicerScriptedLoadableModule(name, str(path))
    parent._logic = slicer.vtkSlicerScriptedLoadableModuleLogic()
    instance = getattr(module, name)(parent)
    setattr(slicer.modules, name.lower(), parent)
    setattr(slicer.modules, f"{name}Instance", instance)
    setattr(slicer.moduleNames, name, name)
    slicer.app.startupCompleted.emit()
    holder = qSlicerScriptedLoadableModuleWidget()
    holder.setLayout(QtWidgets.QVBoxLayout())
    holder.setMRMLScene(slicer.mrmlScene)
    parent._widget = holder
    widget = holder._python = getattr(module, f"{name}Widget")(holder)
    setattr(slicer.modules, f"{name}Widget", widget)
    widget.setup()
    return LoadedModule(module, instance, widget, parent)


def unload(loaded: LoadedModule) -> None:
    """Unload a module: cleanup(), as when the application quits, and no trace in `slicer.modules`."""
    name = loaded.parent.name
    slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(name)
    for attribute in (name.lower(), f"{name}Instance", f"{name}Widget"):
        delattr(slicer.modules, attribute)
    delattr(slicer.moduleNames, name)
    slicer.selfTests.pop(name, None)
    sys.modules.pop(name, None)
    sys.path.remove(str(Path(loaded.parent.path).parent))
    loaded.parent._widget.deleteLater()
