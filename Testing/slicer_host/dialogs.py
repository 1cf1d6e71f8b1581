"""Modal dialogs without a user: what they show is recorded, and the test's answer presses a button.

The dialogs are Qt's own and run their own event loop; only the press comes from here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakSet

import slicer.util
from PySide6 import QtCore, QtWidgets
from PySide6.QtWidgets import QDialog, QMessageBox

_LEVELS = {
    QMessageBox.Information: "info",
    QMessageBox.Warning: "warning",
    QMessageBox.Critical: "error",
    QMessageBox.Question: "question",
}
_LOG_LEVELS = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}


@dataclass(frozen=True)
class Message:
    """A message as the user saw it (or, in testing mode, would have seen it)."""

    level: str  # "info", "warning", "error", "question" or "" (no icon)
    text: str
    title: str = ""
    details: str = ""  # the text behind "Show Details..."
    informative: str = ""
    buttons: tuple[str, ...] = ()


@dataclass
class Dialogs:
    """The messages shown, and what the user would do.

    Attributes
    ----------
    messages
        What message boxes showed, in order.
    answer
        The button that is pressed: its text ("Yes", "Install", ...), or a function of the Message that returns the
        text; None presses the default button, or else the accepting one.
    use
        What happens in another modal dialog: called with the dialog once it is open. None: such a dialog is an error.
    """

    messages: list[Message] = field(default_factory=list)
    answer: str | Callable[[Message], str | None] | None = None
    use: Callable[[QDialog], None] | None = None

    def reset(self) -> None:
        self.messages.clear()
        self.answer = self.use = None


def _plain(text: str) -> str:
    return text.replace("&", "").strip()


def _press(box: QMessageBox, dialogs: Dialogs) -> None:
    buttons = {_plain(button.text): button for button in box.buttons()}
    level = _LEVELS.get(box.icon, "")
    message = Message(
        level, box.text, box.windowTitle.strip(), box.detailedText, box.informativeText, tuple(sorted(buttons))
    )
    dialogs.messages.append(message)
    answer = dialogs.answer(message) if callable(dialogs.answer) else dialogs.answer
    if answer is not None and answer not in buttons:
        box.reject()
        raise LookupError(f"no button {answer!r} in the message {message.text!r}; it has {sorted(buttons)}")
    accepting = (QMessageBox.AcceptRole, QMessageBox.YesRole)
    usual = box.defaultButton() or next((b for b in box.buttons() if box.buttonRole(b) in accepting), None)
    (buttons[answer] if answer is not None else usual or box.buttons()[0]).click()


def _handle(dialog: QDialog, dialogs: Dialogs) -> None:
    try:
        if isinstance(dialog, QMessageBox):
            _press(dialog, dialogs)
        elif dialogs.use is None:
            raise RuntimeError(f"a modal {dialog.className()} {dialog.windowTitle!r} would wait for the user for ever")
        else:
            dialogs.use(dialog)
    finally:
        if dialog.isVisible():
            dialog.reject()


def _record_testing_mode(dialogs: Dialogs) -> None:
    """In testing mode `slicer.util` shows no box: record what it logs instead."""
    original = slicer.util._messageDisplay

    def display(level, text, testing_value, mainWindowNeeded=False, parent=None, windowTitle=None, **keywords):
        if slicer.app.testingEnabled() or (mainWindowNeeded and slicer.util.mainWindow() is None):
            level_name = _LEVELS.get(keywords.get("icon"), _LOG_LEVELS[level])
            dialogs.messages.append(Message(level_name, text, windowTitle or "", keywords.get("detailedText", "")))
        return original(level, text, testing_value, mainWindowNeeded, parent, windowTitle, **keywords)

    slicer.util._messageDisplay = display


def _static(icon: QMessageBox.Icon, usual: QMessageBox.StandardButton):
    """A replacement of `QMessageBox.warning` and the like, which run inside Qt."""

    def show(parent, title, text, buttons=usual, default=QMessageBox.NoButton):
        box = QMessageBox(icon, title, text, buttons, parent)
        if default != QMessageBox.NoButton:
            box.setDefaultButton(default)
        return box.exec_()

    return staticmethod(show)


def _refused(name: str):
    def show(*_, **__):
        raise RuntimeError(f"{name} would wait for the user for ever")

    return staticmethod(show)


def install(dialogs: Dialogs) -> None:
    """Let modal dialogs of this process be answered by `dialogs`; once per process."""
    run, delete_later = QDialog.exec, QDialog.deleteLater
    dying = WeakSet()

    def marked_delete_later(self) -> None:
        dying.add(self)
        delete_later(self)

    def execute(self) -> int:
        # slicer.util calls deleteLater() before exec_(): in the application, where an event loop runs outside, the
        # dialog outlives its own loop. Without one Qt would delete it at once.
        if self in dying:
            QtCore.QCoreApplication.removePostedEvents(self, QtCore.QEvent.DeferredDelete)
        QtCore.QTimer.singleShot(0, lambda: _handle(self, dialogs))
        result = int(run(self))
        if self in dying:
            delete_later(self)
        return result

    QDialog.deleteLater = marked_delete_later
    QDialog.exec = QDialog.exec_ = execute
    QMessageBox.information = _static(QMessageBox.Information, QMessageBox.Ok)
    QMessageBox.warning = _static(QMessageBox.Warning, QMessageBox.Ok)
    QMessageBox.critical = _static(QMessageBox.Critical, QMessageBox.Ok)
    QMessageBox.question = _static(QMessageBox.Question, QMessageBox.Yes | QMessageBox.No)
    for name in ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory"):
        setattr(QtWidgets.QFileDialog, name, _refused(f"QFileDialog.{name}"))
    for name in ("getText", "getInt", "getDouble", "getItem", "getMultiLineText"):
        setattr(QtWidgets.QInputDialog, name, _refused(f"QInputDialog.{name}"))
    _record_testing_mode(dialogs)
