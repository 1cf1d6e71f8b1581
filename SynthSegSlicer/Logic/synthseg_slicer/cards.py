"""Which weight files there are, and what their cards say; needs no torch.

The card of ``NAME.pt`` is ``NAME.json`` beside it; what is in it, and what else may lie there, tells :mod:`.weights`.
"""

from __future__ import annotations

import glob
import json
from pathlib import Path

from .errors import WeightsError

CARD_FORMAT = 1
"""Version of the card's layout; a card of another version is refused rather than guessed at."""

MAX_CARD_BYTES = 2**24
"""A larger card is not opened; the bundled ones have some kilobytes."""

_HERE = Path(__file__).resolve()
MODEL_FOLDERS = (
    _HERE.parents[2] / "Resources" / "Models",  # the source tree and Slicer's install tree
    _HERE.parent / "models",  # a wheel
)


def bundled_models() -> dict[str, Path]:
    """Return the bundled models, task name to weight file; experts belong to their task's model."""
    found = {path.stem: path for folder in MODEL_FOLDERS for path in sorted(folder.glob("*.pt"))}
    return {name: path for name, path in found.items() if name.partition("-")[0] not in found.keys() - {name}}


def expert_files(path: str | Path) -> dict[str, Path]:
    """Return the experts beside the weight file ``path``, family of contrasts to weight file."""
    path = Path(path)
    files = sorted(path.parent.glob(f"{glob.escape(path.stem)}-*.pt"))
    return {file.stem.removeprefix(f"{path.stem}-"): file for file in files}


def weight_file(task: str = "brain", path: str | Path | None = None) -> Path:
    """Return the weight file of a bundled model, or the one of your own if ``path`` names it.

    Raises
    ------
    WeightsError
        There is no such bundled model.
    """
    path = bundled_models().get(task) if path is None else Path(path)
    if path is None:
        raise WeightsError(
            f"No bundled weights for the task '{task}' (looked for {task}.pt in "
            f"{' and '.join(map(str, MODEL_FOLDERS))}). Reinstall the package, or name a weight file."
        )
    return path


def read_card(path: str | Path) -> dict:
    """Return the card of the weight file ``path``.

    Raises
    ------
    WeightsError
        The card is missing or damaged, or belongs to another version of this package.
    """
    file = Path(path).with_suffix(".json")
    try:
        if file.stat().st_size > MAX_CARD_BYTES:
            raise ValueError(f"it is larger than {MAX_CARD_BYTES >> 20} MB")
        card = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(card, dict):
            raise ValueError("it lacks all entries")
        missing = {"format", "sha256", "architecture", "options", "labels"} - set(card)
    except OSError as error:
        raise WeightsError(
            f"Cannot read the model card {file}: {error.strerror or error}. A weight file NAME.pt needs NAME.json "
            "beside it."
        ) from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"The model card {file} is damaged: {first_line(error)}") from error
    if missing:
        raise WeightsError(f"The model card {file} lacks {', '.join(sorted(missing))}.")
    if card["format"] != CARD_FORMAT:
        raise another_version(path)
    return card


def another_version(path: str | Path) -> WeightsError:
    """Return the error of a weight file whose card this version does not understand."""
    file = Path(path).with_suffix(".json")
    return WeightsError(f"The model card {file} belongs to another version of this package. Update the package.")


def first_line(error: Exception) -> str:
    """Return the first line of an error, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
