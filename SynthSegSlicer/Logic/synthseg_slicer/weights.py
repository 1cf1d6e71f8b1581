"""Network weights: where the bundled ones lie, how a weight file is checked, loaded and saved.

A model is two files side by side: ``NAME.pt`` (weights, nothing else) and ``NAME.json`` (its card: SHA-256 of the
weights, architecture, labels, where it came from). The card is checked first; a weight file is opened only when its
SHA-256 is the card's, and then with ``weights_only=True``, so that no file can run code. ``NAME-CONTRAST.pt`` beside
``NAME.pt`` is an expert for one family of contrasts (:mod:`synthseg_slicer.contrast`) with the same labels, and
``NAME-quality.json`` the calibration of its quality scores.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from .calibration import Calibration
from .errors import WeightsError
from .files import atomic
from .labels import BRAIN, Label
from .network import ARCHITECTURES, build, fold_batch_norm

CARD_FORMAT = 1
"""Version of the card's layout; a card of another version is refused rather than guessed at."""

_HERE = Path(__file__).resolve()
MODEL_FOLDERS = (
    _HERE.parents[2] / "Resources" / "Models",  # the source tree and Slicer's install tree
    _HERE.parent / "models",  # a wheel
)


@dataclass(frozen=True)
class Model:
    """A network ready for inference and what its channels mean.

    Attributes
    ----------
    network : nn.Module
        Evaluation mode, batch normalisation folded; maps ``[1, 1, X, Y, Z]`` to logits ``[1, labels, X, Y, Z]``.
    labels : tuple of Label
        One per channel, in channel order.
    sha256 : str
        Of the weight file.
    card : dict
        The model card as read.
    experts : dict of str to Model
        Family of contrasts to the model that segments it better.
    calibration : Calibration or None
        What the quality of results is judged against.
    """

    network: nn.Module
    labels: tuple[Label, ...]
    sha256: str
    card: dict
    experts: dict[str, Model] = field(default_factory=dict)
    calibration: Calibration | None = None

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Label ids in channel order."""
        return tuple(label.id for label in self.labels)

    @cached_property
    def names(self) -> dict[int, str]:
        """Label id to name."""
        return {label.id: label.name for label in self.labels}

    @cached_property
    def partners(self) -> dict[int, int]:
        """Label id to the id of its mirror structure."""
        return {label.id: label.partner for label in self.labels}

    @cached_property
    def topology(self) -> dict[int, int]:
        """Label id to topology class (0: none)."""
        return {label.id: label.topology for label in self.labels}


def bundled_models() -> dict[str, Path]:
    """Return the bundled models, task name to weight file; experts belong to their task's model."""
    found = {path.stem: path for folder in MODEL_FOLDERS for path in sorted(folder.glob("*.pt"))}
    return {name: path for name, path in found.items() if name.partition("-")[0] not in found.keys() - {name}}


def expert_files(path: str | Path) -> dict[str, Path]:
    """Return the experts beside the weight file ``path``, family of contrasts to weight file."""
    path = Path(path)
    files = sorted(path.parent.glob(f"{glob.escape(path.stem)}-*.pt"))
    return {file.stem.removeprefix(f"{path.stem}-"): file for file in files}


def load_model(task: str = "brain", path: str | Path | None = None, device: str | torch.device = "cpu") -> Model:
    """Check and load weights, and the experts beside them.

    Parameters
    ----------
    task : str
        Name of a bundled model; ignored when ``path`` is given.
    path : path, optional
        A weight file of your own, ``NAME.pt`` with its card ``NAME.json`` beside it.
    device : torch.device or str
        Where the network is put.

    Raises
    ------
    WeightsError
        The weights or the card are missing, damaged, do not belong together, or belong to another version.
    """
    if path is None:
        path = bundled_models().get(task)
        if path is None:
            raise WeightsError(
                f"No bundled weights for the task '{task}' (looked for {task}.pt in "
                f"{' and '.join(map(str, MODEL_FOLDERS))}). Reinstall the package, or name a weight file."
            )
    model = _load(Path(path), device)
    experts = {family: _load(file, device) for family, file in expert_files(path).items()}
    for family, expert in experts.items():
        if expert.labels != model.labels:
            raise WeightsError(f"The weights {expert_files(path)[family]} have other labels than {path}. Remove them.")
    return replace(model, experts=experts, calibration=_calibration(Path(path), model, experts))


def _calibration(path: Path, model: Model, experts: dict[str, Model]) -> Calibration | None:
    """Return the calibration beside the weights if it was made with them and with the experts."""
    file = path.with_name(f"{path.stem}-quality.json")
    if not file.exists():
        return None
    calibration = Calibration.load(file)
    return calibration if calibration.weights == sorted(m.sha256 for m in (model, *experts.values())) else None


def _load(path: Path, device: str | torch.device) -> Model:
    card = read_card(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"Cannot read the weights {path}: {error.strerror or error}.") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card["sha256"]:
        raise WeightsError(
            f"The weights {path} are damaged or not those of their card (SHA-256 {sha256[:12]}…, the card says "
            f"{str(card['sha256'])[:12]}…). Copy or download both files again."
        )
    try:
        network = build(card["architecture"], **card["options"])
        state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")["state"]
        network.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in state.items()})
        labels = tuple(Label(**{**entry, "color": tuple(entry["color"])}) for entry in card["labels"])
    except Exception as error:  # whatever torch or the constructors find wrong with a foreign file
        raise WeightsError(f"The weights {path} do not fit their card: {_first_line(error)}") from error
    if network.n_labels != len(labels):
        raise WeightsError(f"The weights {path} have {network.n_labels} channels, but their card {len(labels)} labels.")
    return Model(fold_batch_norm(network).to(device), labels, sha256, card)


def read_card(path: str | Path) -> dict:
    """Return the card of the weight file ``path``.

    Raises
    ------
    WeightsError
        The card is missing or damaged, or belongs to another version of this package.
    """
    file = Path(path).with_suffix(".json")
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        missing = {"format", "sha256", "architecture", "options", "labels"} - set(card)
    except OSError as error:
        raise WeightsError(
            f"Cannot read the model card {file}: {error.strerror or error}. A weight file NAME.pt needs NAME.json "
            "beside it."
        ) from error
    except (ValueError, TypeError) as error:
        raise WeightsError(f"The model card {file} is damaged: {_first_line(error)}") from error
    if missing:
        raise WeightsError(f"The model card {file} lacks {', '.join(sorted(missing))}.")
    if card["format"] != CARD_FORMAT or card["architecture"] not in ARCHITECTURES:
        raise WeightsError(f"The model card {file} belongs to another version of this package. Update the package.")
    return card


def save_model(path: str | Path, network: nn.Module, card: dict) -> Path:
    """Write weights and card side by side.

    Matrices and kernels are stored in half precision (their rounding is far below the noise of training), vectors
    such as biases and normalisation statistics in full, because a variance may exceed the range of half precision.

    Parameters
    ----------
    path : path
        Weight file to write, ``NAME.pt``; the card becomes ``NAME.json``.
    network : nn.Module
        Not folded, so that a later training can continue from it.
    card : dict
        ``architecture`` and ``options`` (what :func:`synthseg_slicer.network.build` needs), any facts to record
        (version, training data, licence, ...), and optionally ``labels`` (default: the 33 brain labels). ``format``
        and ``sha256`` are filled in.

    Returns
    -------
    Path
        The weight file.
    """
    path = Path(path)
    state = {
        key: tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for key, tensor in ((key, tensor.detach().cpu().contiguous()) for key, tensor in network.state_dict().items())
    }
    buffer = io.BytesIO()
    torch.save({"state": state}, buffer)
    content = buffer.getvalue()
    labels = [asdict(label) if isinstance(label, Label) else label for label in card.get("labels", BRAIN)]
    card = {**card, "format": CARD_FORMAT, "sha256": hashlib.sha256(content).hexdigest(), "labels": labels}
    with atomic(path) as weights_file, atomic(path.with_suffix(".json")) as card_file:
        weights_file.write_bytes(content)
        card_file.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return path


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
