"""First use without torch, and other ways of not getting started."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")


@pytest.fixture
def no_torch(monkeypatch):
    """A Python without torch."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "torch" else real(name, *more))


@pytest.fixture
def extension(monkeypatch):
    """A function that puts a PyTorch extension with the given ``installTorch`` into place."""

    def put(install):
        module = ModuleType("PyTorchUtils")
        module.PyTorchUtilsLogic = type("PyTorchUtilsLogic", (), {"installTorch": staticmethod(install)})
        monkeypatch.setitem(sys.modules, "PyTorchUtils", module)

    return put


@pytest.fixture
def started(panel, monkeypatch):
    """What the panel started."""
    runs = []
    monkeypatch.setattr(panel.logic, "process", lambda *nodes, **options: runs.append(options))
    return runs


def test_without_the_pytorch_extension_it_says_where_to_get_it(no_torch, host, panel, add_head, click, started):
    add_head()
    click(panel.ui.applyButton)
    (message,) = host.messages
    assert "PyTorch" in message.text and "Extensions Manager" in message.text
    assert not started and panel.ui.applyButton.text == "Apply"


def test_nothing_is_installed_without_consent(no_torch, extension, host, panel, add_head, click, started):
    installed = []
    extension(lambda **options: installed.append(options))
    host.answer = "Cancel"
    add_head()
    click(panel.ui.applyButton)
    (message,) = host.messages
    assert message.level == "question" and "gigabytes" in message.text
    assert not installed and not started


def test_torch_is_installed_through_the_extension_and_the_run_starts(
    no_torch, extension, host, panel, add_head, click, started
):
    installed = []

    def install(askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):
        installed.append((askConfirmation, torchVersionRequirement))
        return ModuleType("torch")

    extension(install)
    host.answer = "OK"
    add_head()
    click(panel.ui.applyButton)
    assert installed == [(False, ">=2.4")] and len(started) == 1


def test_an_older_extension_is_asked_in_its_own_way(no_torch, extension, host, panel, add_head, click, started):
    extension(lambda askConfirmation=False: ModuleType("torch"))
    host.answer = "OK"
    add_head()
    click(panel.ui.applyButton)
    assert len(started) == 1


def test_a_failed_installation_is_told(no_torch, extension, host, panel, add_head, click, started):
    def install():
        raise RuntimeError("pip ran\nno space left on device")

    extension(install)
    host.answer = "OK"
    add_head()
    click(panel.ui.applyButton)
    assert "no space left on device" in host.messages[-1].text
    assert not started and panel.ui.applyButton.text == "Apply"


def test_opening_the_module_does_not_import_torch(host):
    """In a process of its own, because the tests themselves import torch."""
    import subprocess
    from pathlib import Path

    testing = Path(__file__).resolve().parents[1]
    program = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("slicer_host", {str(testing / "slicer_host" / "__init__.py")!r},
                                              submodule_search_locations=[{str(testing / "slicer_host")!r}])
module = sys.modules["slicer_host"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
host = module.start()
loaded = host.load_module({str(testing.parent / "SynthSegSlicer" / "SynthSegSlicer.py")!r})
import slicer, numpy
slicer.util.addVolumeFromArray(numpy.arange(27000, dtype='int16').reshape(30, 30, 30))
host.app.processEvents()
assert loaded.widget.ui.applyButton.enabled
print("torch" in sys.modules)
host.unload(loaded)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8")
    assert run.stdout.strip().endswith("False"), run.stdout + run.stderr
