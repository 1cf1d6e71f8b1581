"""Network weights: where the bundled ones lie, how a weight file is checked, loaded and saved.

A model is two files side by side: ``NAME.pt`` (weights, nothing else) and ``NAME.json`` (its card: SHA-256 of the
weights, architecture, labels, where it came from). The card is checked first; a weight file is opened only when its
SHA-256 is the card's, and then with ``weights_only=True``, so that no file can run code. ``NAME-CONTRAST.pt`` beside
``NAME.pt`` is an expert for one family of contrasts (:mod:`synthseg_slicer.contrast`) with the same labels, and
``NAME-quality.json`` the calibration of its quality scores, ``NAME-rescan.json`` the noise of its volumes.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .calibration import Calibration
from .cards import CARD_FORMAT, another_version, expert_files, first_line, read_card, weight_file
from .conform import CT_WINDOW_HU
from .errors import WeightsError
from .files import atomic
from .labels import BRAIN, Label
from .network import ARCHITECTURES, build, fold_batch_norm
from .rescan import RescanNoise

MAX_WEIGHTS_BYTES = 2**30
"""Larger weights are not opened; the bundled ones have 8 MB."""
VOXEL_SIZES_MM = 0.2, 10.0
"""Of the images that a network may have been trained on."""


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
    rescan : RescanNoise or None
        How far volumes of one head differ from scan to scan.
    """

    network: nn.Module
    labels: tuple[Label, ...]
    sha256: str
    card: dict
    experts: dict[str, Model] = field(default_factory=dict)
    calibration: Calibration | None = None
    rescan: RescanNoise | None = None

    @property
    def all_sha256(self) -> list[str]:
        """SHA-256 of the weight file and of its experts', sorted: what measurements of the weights are bound to."""
        return sorted(model.sha256 for model in (self, *self.experts.values()))

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

    @property
    def voxel_size(self) -> float:
        """Voxel edge in mm of the images that the network was trained on; 1 where the card does not say."""
        return float(self.card.get("voxel_size", 1.0))

    @property
    def mirrored(self) -> bool:
        """Whether the network may see the mirrored scan too, as heads; not where anatomy has no mirror image, as in the
        chest.
        """
        return bool(self.card.get("mirrored", True))

    @property
    def ct_window(self) -> tuple[float, float]:
        """Hounsfield units that CT is clipped to; those of a brain where the card does not say."""
        low, high = self.card.get("ct_window", CT_WINDOW_HU)
        return float(low), float(high)


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
    path = weight_file(task, path)
    model = _load(path, device)
    experts = {family: _load(file, device) for family, file in expert_files(path).items()}
    for family, expert in experts.items():
        if expert.labels != model.labels:
            raise WeightsError(f"The weights {expert_files(path)[family]} have other labels than {path}. Remove them.")
    model = replace(model, experts=experts)
    return replace(
        model,
        calibration=_measured(path, "quality", Calibration, model),
        rescan=_measured(path, "rescan", RescanNoise, model),
    )


def _measured(path: Path, what: str, kind: type, model: Model):
    """Return what was measured of weights, ``NAME-WHAT.json`` beside them, if it was with them and their experts."""
    file = path.with_name(f"{path.stem}-{what}.json")
    if not file.exists():
        return None
    measured = kind.load(file)
    return measured if measured.weights == model.all_sha256 else None


def _load(path: Path, device: str | torch.device) -> Model:
    card = read_card(path)
    if str(card["architecture"]) not in ARCHITECTURES:
        raise another_version(path)
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_WEIGHTS_BYTES else b""
    except OSError as error:
        raise WeightsError(f"Cannot read the weights {path}: {error.strerror or error}.") from error
    if size > MAX_WEIGHTS_BYTES:
        raise WeightsError(f"The weights {path} are larger than {MAX_WEIGHTS_BYTES >> 20} MB. Use other ones.")
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card["sha256"]:
        raise WeightsError(
            f"The weights {path} are damaged or not those of their card (SHA-256 {sha256[:12]}…, the card says "
            f"{str(card['sha256'])[:12]}…). Copy or download both files again."
        )
    try:
        _check_claims(card, content)
        network = build(card["architecture"], **card["options"])
        state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")["state"]
        network.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in state.items()})
        labels = tuple(Label(**{**entry, "color": tuple(entry["color"])}) for entry in card["labels"])
    except Exception as error:  # whatever torch or the constructors find wrong with a foreign file
        raise WeightsError(f"The weights {path} do not fit their card: {first_line(error)}") from error
    if network.n_labels != len(labels):
        raise WeightsError(f"The weights {path} have {network.n_labels} channels, but their card {len(labels)} labels.")
    return Model(fold_batch_norm(network).to(device), labels, sha256, card)


def _check_claims(card: dict, content: bytes) -> None:
    """Refuse, before memory is taken, an archive that unpacks to more than it weighs and a card of absurd numbers."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(content):  # torch stores, it does not compress
            raise ValueError("the archive is compressed, which weights of this package are not")
    numbers = np.array([n for option in card["options"].values() for n in np.ravel(option)], dtype=np.float64)
    if not 27 * (numbers**2).sum() <= 4 * len(content) + 2**20:  # a kernel of 3 x 3 x 3 from each width to itself
        raise ValueError(f"the card describes a network that {len(content):,} bytes cannot fill")
    model = Model(nn.Identity(), (), "", card)
    low, high = model.ct_window
    if not (VOXEL_SIZES_MM[0] <= model.voxel_size <= VOXEL_SIZES_MM[1] and low < high):
        raise ValueError(f"the card speaks of voxels of {model.voxel_size} mm and a CT window of {low} to {high} HU")


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
        (version, training data, licence, ...), and optionally ``labels`` (default: the 33 brain labels),
        ``voxel_size``, ``mirrored`` and ``ct_window`` (see :class:`Model`). ``format`` and ``sha256`` are filled in.

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
