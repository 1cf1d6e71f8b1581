"""Every text that the module shows goes through ``_()``, as a plain literal that Slicer's translators can collect."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TRANSLATORS = {"_", "translate"}
SHOWN_ATTRIBUTES = {
    *("text", "toolTip", "title", "helpText", "acknowledgementText", "placeholderText", "windowTitle", "statusTip"),
    *("whatsThis", "detailedText", "informativeText"),
}
SHOWING_CALLS = {
    *("errorDisplay", "warningDisplay", "infoDisplay", "messageBox", "showStatusMessage", "confirmOkCancelDisplay"),
    *("confirmYesNoDisplay", "confirmRetryCloseDisplay", "setText", "setToolTip", "setTitle", "setWindowTitle"),
    *("setDetailedText", "setInformativeText", "setPlaceholderText", "addItem", "addButton", "setFormat"),
    *("QPushButton", "QLabel", "QAction", "createProgressDialog", "tryWithErrorDisplay"),
}


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and any(map(str.isalpha, node.value))


def literals(node: ast.AST) -> list[ast.Constant]:
    """Return the texts in an expression that are shown as they stand: not arguments of other calls, not keys."""
    if is_text(node):
        return [node]
    if isinstance(node, ast.Call):
        if name_of(node) in TRANSLATORS:
            return []
        parts = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        if name_of(node) in {"format", "join"}:
            parts += [*node.args, *(keyword.value for keyword in node.keywords)]
    elif isinstance(node, ast.IfExp):
        parts = [node.body, node.orelse]
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.JoinedStr | ast.List | ast.Tuple):
        parts = ast.iter_child_nodes(node)
    else:
        parts = []
    return [text for part in parts for text in literals(part)]


def mistakes(source: str) -> list[str]:
    """Return what is wrong with the texts of a module, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        shown: list[ast.AST] = []
        if isinstance(node, ast.Call) and name_of(node) in TRANSLATORS:
            for argument in node.args:
                if not is_text(argument):
                    found.append(f"{node.lineno}: not a plain text inside {name_of(node)}()")
                elif "{}" in argument.value:
                    found.append(f"{node.lineno}: a placeholder without a name")
        elif isinstance(node, ast.Call) and name_of(node) in SHOWING_CALLS:
            shown = [*node.args, *(keyword.value for keyword in node.keywords)]
            if name_of(node) == "addItem":
                del shown[1:]  # an item's data is not shown
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Attribute) and target.attr in SHOWN_ATTRIBUTES for target in targets):
                shown = [node.value]
        found += [f"{text.lineno}: {text.value!r} is not translated" for part in shown for text in literals(part)]
    return found


@pytest.mark.parametrize(
    "source",
    [
        "button.text = 'Apply'",
        "button.toolTip = 'a' if x else _('b')",
        "self.parent.helpText += 'more'",
        "slicer.util.errorDisplay(f'No {name}')",
        "box.addItem('all ' + name)",
        "label.text = _('{what}').format(what='brain')",
        "label.text = _(f'{x} structures')",
        "label.text = _('a' + b)",
        "label.text = _('{} structures').format(x)",
    ],
)
def test_a_mistake_is_found(source):
    assert mistakes(source)


@pytest.mark.parametrize(
    "source",
    [
        "button.text = _('Apply')",
        "button.text = _('Apply ' 'now') if x else ''",
        "label.text = _('{n} of {all}').format(n=found['n'], all=count('x'))",
        "box.addItem(_('Automatic'), 'auto')",
        "slicer.util.errorDisplay(str(error), detailedText=job.log)",
        "self.parent.categories = [translate('qSlicerAbstractCoreModule', 'Segmentation')]",
        "logging.info('done')",
    ],
)
def test_what_is_right_is_not_called_a_mistake(source):
    assert mistakes(source) == []


def test_every_text_of_the_module_is_translated(root: Path):
    module = root / "SynthSegSlicer" / "SynthSegSlicer.py"
    assert mistakes(module.read_text(encoding="utf-8")) == []
