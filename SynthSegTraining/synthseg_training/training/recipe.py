"""Recipes: one YAML or JSON file holds every setting of a training, so that the bundled weights can be made again."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthseg_training.losses import DICE_LOSSES, LOSSES
from synthseg_training.training.optimizers import OPTIMIZERS

TASKS = ("anatomy", "stroke")


@dataclass
class Stage:
    """A stretch of training with one kind of sample, one loss and one learning-rate curve.

    Attributes
    ----------
    name : str
        For the progress bar and the log.
    steps : int
        Optimiser steps.
    crop : int
        Edge of the cubic samples in voxels of ``voxel_size``.
    voxel_size : float
        Voxel edge in mm; twice the label maps' own with ``trunk_only``.
    trunk_only : bool
        Train the fast network's half-resolution trunk and coarse head on samples drawn at that resolution: a quarter of
        the time per volume of head.
    batch : int
        Samples a step and process.
    loss : str
        ``dice`` (eq. 27), ``dice_ce`` or ``logits``.
    dice_background : bool
        Whether the Dice of ``dice`` and ``dice_ce`` counts background among the labels. Without it, the Dice of lesion
        against everything else is the lesion's alone; a sample of nothing but background has cross-entropy only.
    rate, final_rate : float
        Learning rate at the start (after ``warmup`` steps of linear growth) and at the end; a half cosine leads from
        one to the other. Constant where ``final_rate`` is None.
    power : float or None
        Polynomial decay ``rate (1 - n / N)^power`` after the warm-up instead.
    coarse_weight : float
        Weight of an additional loss on the coarse logits (deep supervision of the fast network), 0 for none.
    lesion_weight : float
        Task stroke: weight of an additional loss on lesion against everything else
        (:func:`synthseg_training.losses.merge_healthy`), 0 for none. Of six classes' Dice a sixth is the lesion's.
    frozen_norm : bool
        Batch normalisation uses its running statistics, re-estimated when the stage begins, instead of the batch's own:
        the network is trained the way that it is used.
    difficulty : tuple of float
        Scale of the generative model's bounds at the stage's start and at ``difficulty_steps``, 1 being the recipe's
        own.
    realistic_share : tuple of float or None
        Probability of an image with tissue-ordered intensities, likewise; None keeps the generator's.
    difficulty_steps : int or None
        Steps over which ``difficulty`` and ``realistic_share`` move; the whole stage where None.
    generator : dict
        Settings of the generative model that differ from the recipe's in this stage.
    """

    steps: int
    name: str = "training"
    crop: int = 160
    voxel_size: float = 1.0
    trunk_only: bool = False
    batch: int = 1
    loss: str = "dice"
    dice_background: bool = True
    rate: float = 1e-4
    final_rate: float | None = None
    power: float | None = None
    warmup: int = 0
    coarse_weight: float = 0.0
    lesion_weight: float = 0.0
    frozen_norm: bool = False
    difficulty: tuple[float, float] = (1.0, 1.0)
    realistic_share: tuple[float, float] | None = None
    difficulty_steps: int | None = None
    generator: dict[str, Any] = field(default_factory=dict)


@dataclass
class DataFolder:
    """Data of your own that joins the synthetic samples.

    Attributes
    ----------
    folder : str
        Where it lies.
    share : float
        Share of the samples that come from it.
    kind : str
        ``scans``: scans with label maps (:class:`synthseg_training.generation.supervised.LabelledScans`), in the task
        stroke with lesion masks (:class:`synthseg_training.stroke.real.RealScans`); ``maps``: quantitative maps, task
        stroke only (:class:`synthseg_training.stroke.from_maps.MapsGenerator`).
    tesla : float
        Kind ``maps``: field strength at which they were measured, or of the scans that they were estimated from.
    """

    folder: str
    share: float = 0.5
    kind: str = "scans"
    tesla: float = 3.0

    def __post_init__(self) -> None:
        if self.kind not in ("scans", "maps"):
            raise ValueError(f"data: kind {self.kind!r} is none of scans, maps")
        if not 0 <= self.share <= 1:
            raise ValueError(f"data: share {self.share} must lie between 0 and 1")
        if self.tesla != 3.0 and self.kind != "maps":
            raise ValueError("data: only quantitative maps (kind 'maps') have a field strength (tesla)")


@dataclass
class Recipe:
    """Everything that determines a training but the label maps.

    Attributes
    ----------
    name : str
        Task name of the exported weights.
    network : dict
        ``architecture`` and its options, see :func:`synthseg_slicer.network.build`.
    task : str
        ``anatomy`` (SynthSeg's generative model) or ``stroke`` (:mod:`synthseg_training.stroke`).
    generator : dict
        Fields of :class:`synthseg_training.generation.GeneratorConfig`, or of
        :class:`synthseg_training.stroke.StrokeConfig`.
    stages : list of Stage
        In order.
    data : DataFolder or None
        Real scans, or maps for the task stroke.
    names : dict
        Label id to name for the model card, for anatomies other than the brain (whose names are known).
    card : dict
        More entries of the model card, such as ``ct_window``.
    held_out : list of str
        Names of the label maps kept for validation.
    n_maps : int or None
        Train on the first so many of the other maps only; on all where None.
    optimizer : str
        ``adam``, ``adamw`` or ``muon`` (:class:`~synthseg_training.training.optimizers.Muon`).
    betas, weight_decay, clip : tuple of float, float, float or None
        Moment decays, decoupled weight decay (not ``adam``) and the bound on the gradient's norm.
    ema : float or None
        Decay of the running mean of the weights, which is what gets validated and exported; None for none.
    norm_momentum : float or None
        Momentum of batch normalisation's running statistics; None keeps the network's.
    seed : int
        Seed of the weights' initialisation and of the samples.
    validate_every, validation_samples : int
        Steps between validations and synthetic samples of the held-out maps in each.
    """

    name: str
    stages: list[Stage]
    task: str = "anatomy"
    network: dict[str, Any] = field(default_factory=lambda: {"architecture": "fast"})
    generator: dict[str, Any] = field(default_factory=dict)
    data: DataFolder | None = None
    names: dict[int, str] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    held_out: list[str] = field(default_factory=list)
    n_maps: int | None = None
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float | None = None
    ema: float | None = None
    norm_momentum: float | None = None
    seed: int = 0
    validate_every: int = 1000
    validation_samples: int = 8

    def __post_init__(self) -> None:
        for stage in self.stages:
            if stage.loss not in LOSSES:
                raise ValueError(f"stage {stage.name!r}: loss {stage.loss!r} is none of {', '.join(LOSSES)}")
            if not stage.dice_background and stage.loss not in DICE_LOSSES:
                raise ValueError(f"stage {stage.name!r}: dice_background: the loss {stage.loss!r} has no Dice")
            if stage.steps < 1:
                raise ValueError(f"stage {stage.name!r}: steps must be at least 1, not {stage.steps}")
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r} is none of {', '.join(TASKS)}")
        if any(stage.lesion_weight for stage in self.stages) and self.task != "stroke":
            raise ValueError("lesion_weight: only the task stroke has lesions")
        if self.data and self.data.kind == "maps" and self.task != "stroke":
            raise ValueError("data: only the task stroke takes quantitative maps; kind 'scans' suits every task")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer {self.optimizer!r} is none of {', '.join(OPTIMIZERS)}")

    @property
    def draws_from_label_maps(self) -> bool:
        """Whether training needs label maps: not where all samples come from the folder of data."""
        return self.data is None or self.data.share < 1

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[int, Stage, int]:
        """Return index of the stage that holds the given step (counted from 0), the stage, and the step within it."""
        for index, stage in enumerate(self.stages):
            if step < stage.steps:
                return index, stage, step
            step -= stage.steps
        raise IndexError(f"the recipe has {self.steps} steps only")


def load_recipe(path: str | Path, overrides: typing.Sequence[str] = (), kind: type = Recipe) -> Any:
    """Read a recipe file.

    Parameters
    ----------
    path : path
        ``.yaml``, ``.yml`` or ``.json``.
    overrides : sequence of str
        ``key=value`` with dots into nested keys and list indices, such as ``stages.0.steps=100``; values are read as
        YAML (as JSON where PyYAML is absent).
    kind : type
        Dataclass of the settings, :class:`Recipe` or that of another training.

    Raises
    ------
    ValueError
        For a file that cannot be read, unknown settings, wrong types and malformed overrides; the message names the
        file and the setting.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: cannot be read as a recipe ({getattr(error, 'strerror', None) or error}). Give a YAML or JSON "
            "file, such as one of SynthSegTraining/recipes."
        ) from error
    tree = _parse(text, path)
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: a recipe is a mapping of settings; see the recipes folder for examples")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ValueError(f"{override!r}: settings are given as key=value, for example stages.0.steps=100")
        _set(tree, key.split("."), _parse(value, override))
    return from_dict(kind, tree, str(path))


def from_dict(kind: type, tree: dict, where: str, base: Any = None) -> Any:
    """Build a dataclass from nested dictionaries, refusing unknown keys and wrong types.

    ``where`` begins the messages of the :class:`ValueError` that it raises. What the tree leaves out is taken from
    ``base``, an instance; nested, from the default of the field, which need not be that of the field's type.
    """
    hints = typing.get_type_hints(kind)
    unknown = set(tree) - set(hints)
    if unknown:
        raise ValueError(f"{where}: unknown setting {', '.join(sorted(unknown))}; known are {', '.join(sorted(hints))}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    values = {}
    for name, value in tree.items():
        default = _default(fields[name]) if base is None else getattr(base, name)
        values[name] = _convert(hints[name], value, f"{where}: {name}", default)
    if base is not None:
        return dataclasses.replace(base, **values)
    missing = [f.name for f in fields.values() if f.name not in values and _required(f)]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} missing")
    return kind(**values)


def merged(settings: dict, changes: dict) -> dict:
    """Return nested settings with some replaced."""
    result = dict(settings)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _required(f: dataclasses.Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _default(f: dataclasses.Field) -> Any:
    """Return the default of a field; None where there is none."""
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return None if f.default is dataclasses.MISSING else f.default


def _convert(hint: Any, value: Any, where: str, default: Any = None) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        for option in options[:-1]:
            try:
                return _convert(option, value, where, default)
            except ValueError:
                continue
        return _convert(options[-1], value, where, default)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a mapping, not {value!r}")
        return from_dict(hint, value, where, default if isinstance(default, hint) else None)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be a list, not {value!r}")
        if origin is tuple and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise ValueError(f"{where} must have {len(arguments)} entries, not {value!r}")
            return tuple(_convert(a, v, where) for a, v in zip(arguments, value))
        return origin(_convert(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a mapping, not {value!r}")
        return {_convert(arguments[0], k, where): _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        # YAML reads 1e-4 (no dot) as text.
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{where} must be of type {getattr(hint, '__name__', hint)}, not {value!r}")


def _parse(text: str, where: Any) -> Any:
    try:
        import yaml
    except ImportError:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error}); YAML needs PyYAML (pip install pyyaml)") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not YAML ({error})") from error


def _set(tree: Any, keys: list[str], value: Any) -> None:
    *parents, last = keys
    for key in parents:
        tree = tree[int(key)] if isinstance(tree, list) else tree.setdefault(key, {})
    if isinstance(tree, list):
        tree[int(last)] = value
    else:
        tree[last] = value
