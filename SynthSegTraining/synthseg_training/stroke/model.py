"""The generative model of the stroke task: label map, lesions, tissue, signal, scanner; one image and target a draw."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from synthseg_slicer.conform import PERCENTILES, standardise
from synthseg_slicer.errors import OptionError
from synthseg_slicer.labels import LESION_ID, STROKE

from ..generation.anatomy import Anatomy
from ..generation.bias import BiasField
from ..generation.draws import happens, integer
from ..generation.edits import Flip, Lesions, SkullStripping, SkullStrippingParameters
from ..generation.gmm import GaussianMixture
from ..generation.intensity import Gamma
from ..generation.model import deformed_labels, prepared_maps
from ..generation.resolution import Resolution, ResolutionParameters
from ..generation.spatial import Spatial, SpatialParameters
from ..labelmaps import LabelMapSet
from ..lesions import Focus, LesionField, LesionShapes, MaskFolder, MaskParameters, Paste, PasteParameters
from ..physics import (
    LABEL_TISSUES,
    Distribution,
    FieldStrength,
    QuantitativeMaps,
    ReceiveField,
    RicianNoise,
    Sequence,
    SequenceDraw,
)
from .statistics import HeadStatistics
from .tissue import Texture, TissueParameters, shares

APPEARANCES = ("physics", "random")
IDS = tuple(label.id for label in STROKE)
TWO_CLASSES = (0, LESION_ID)
WHITE, GREY, FLUID, BOUNDARY = 2, 3, 24, 299
CLASS_OF_TISSUE = {
    "gm": GREY,
    "thalamus": GREY,
    "striatum": GREY,
    "pallidum": GREY,
    "wm": WHITE,
    "gm_wm": WHITE,
    "gliosis": WHITE,
    "csf": FLUID,
    "plexus": FLUID,
}
"""Target class of each tissue inside the brain; label 25 ('gliosis') is an old person's white matter, no stroke."""
EXTRACEREBRAL_NERVES = (512, 530, 85)
BOUNDARY_SHARE = 0.3
"""Least share of grey and of white matter in a voxel of the boundary class."""
PERCENTILE_STRIDE = 7
"""Percentiles are taken from every so many voxels: a hundred thousand of them are enough."""


def clinical_draw() -> SequenceDraw:
    """Return acquisitions as hospitals make them, where the paper's distributions have hardly any mass.

    Spin echoes from T1 to T2 weighting, inversion recovery near the null of fluid with long echoes, MPRAGE, and
    gradient echoes from T1 to T2* weighting; ranges after common 1.5 and 3 T protocols. ``fse-t1``, whose weight is 0
    unless a recipe gives it one, are T1-weighted spin echoes, of which ``fse`` draws few: repetition and echo times are
    independent there.
    """

    def between(low: float, high: float) -> Distribution:
        return Distribution("uniform", low, high)

    return SequenceDraw(
        weights={"fse": 2.0, "fse-t1": 0.0, "flair": 1.5, "mprage": 1.5, "gre": 1.0},
        distributions={
            "fse": {"tr": Distribution("log_uniform", 0.4, 7.0), "te": Distribution("log_uniform", 0.008, 0.13)},
            "fse-t1": {"tr": between(0.35, 0.8), "te": between(0.007, 0.02)},
            "flair": {"tr": between(6.0, 11.0), "te": between(0.08, 0.15), "ti": between(1.9, 2.9)},
            "mprage": {
                "tr": between(1.6, 2.6),
                "ti": between(0.7, 1.1),
                "tx": between(5e-3, 8e-3),
                "te": between(2e-3, 4.5e-3),
                "flip_deg": between(7, 12),
                "n": between(140, 190),
            },
            "gre": {
                "tr": Distribution("log_uniform", 0.015, 0.9),
                "te": Distribution("log_uniform", 0.003, 0.03),
                "flip_deg": between(10, 40),
            },
        },
        feasible=True,
    )


@dataclass(frozen=True)
class StrokeConfig:
    """Settings of the generative model of the stroke task; a transform's ``probability: 0`` switches it off.

    Attributes
    ----------
    crop, voxel_size
        Edge of the samples in voxels, and voxel size in mm.
    appearance : str
        ``physics``: quantitative maps and signal equations (qSynth); ``random``: SynthSeg's random intensities, lesions
        included ('Synth').
    anatomy : Anatomy
        Roles of the labels.
    healthy_classes : bool
        Whether targets tell healthy tissues apart (six classes), or lesion from everything else (two).
    stroke_probability : float
        Share of samples with lesions.
    clinical_share : float
        Share of acquisitions that are drawn from ``clinical`` instead of ``sequences``; the paper's model has none.
    masks : MaskFolder
        Real lesion masks, and the share of the lesions that take their shape instead of one of ``shapes``.
    spatial, flip, skull_stripping, hyperintensities, shapes, paste, texture, sequences, clinical, field_strength, gain,
    noise, gmm, bias, gamma, resolution, statistics
        The transforms, in order; ``gmm``, ``bias`` and ``gamma`` act on random intensities, ``sequences`` to ``noise``
        on quantitative maps.
    """

    crop: int = 192
    voxel_size: float = 1.0
    appearance: str = "physics"
    anatomy: Anatomy = field(default_factory=Anatomy)
    healthy_classes: bool = True
    stroke_probability: float = 0.9
    clinical_share: float = 0.0
    spatial: Spatial = field(default_factory=Spatial)
    flip: Flip = field(default_factory=Flip)
    skull_stripping: SkullStripping = field(default_factory=lambda: SkullStripping(probability=0.3))
    hyperintensities: Lesions = field(default_factory=Lesions)
    shapes: LesionShapes = field(default_factory=LesionShapes)
    masks: MaskFolder = field(default_factory=MaskFolder)
    paste: Paste = field(default_factory=Paste)
    texture: Texture = field(default_factory=Texture)
    sequences: SequenceDraw = field(default_factory=SequenceDraw)
    clinical: SequenceDraw = field(default_factory=clinical_draw)
    field_strength: FieldStrength = field(default_factory=FieldStrength)
    gain: ReceiveField = field(default_factory=ReceiveField)
    noise: RicianNoise = field(default_factory=RicianNoise)
    gmm: GaussianMixture = field(default_factory=GaussianMixture)
    bias: BiasField = field(default_factory=BiasField)
    gamma: Gamma = field(default_factory=Gamma)
    resolution: Resolution = field(default_factory=lambda: Resolution(probability=0.6))
    statistics: HeadStatistics = field(default_factory=HeadStatistics)

    def __post_init__(self) -> None:
        if self.appearance not in APPEARANCES:
            raise OptionError(f"The appearance is {self.appearance!r}; choose {' or '.join(APPEARANCES)}.")

    @property
    def output_ids(self) -> tuple[int, ...]:
        """Classes in the order of the network's channels."""
        return IDS if self.healthy_classes else TWO_CLASSES

    @property
    def extent(self) -> float:
        """Edge of the samples in mm."""
        return self.crop * self.voxel_size

    def scaled(self, difficulty: float) -> StrokeConfig:
        """Return the settings of an easier task, for a curriculum; 1 for these, 0 for no deformation, noise, blur."""
        if not 0 <= difficulty <= 1:
            raise OptionError(f"The difficulty is {difficulty}; it must lie between 0 and 1.")
        names = ("spatial", "noise", "gmm", "bias", "gamma", "resolution")
        return replace(self, **{name: getattr(self, name).scaled(difficulty) for name in names})


@dataclass(frozen=True)
class StrokeParameters:
    """Everything random about one sample, which replays exactly with the same settings on the same kind of device."""

    map_index: int
    seed: int
    spatial: SpatialParameters
    flipped: tuple[int, ...]
    skull_stripping: SkullStrippingParameters
    hyperintensities: bool
    foci: tuple[Focus | MaskParameters, ...]
    paste: PasteParameters
    tissue: TissueParameters
    sequence: Sequence | None
    field_strength: float
    gain: Tensor | None
    noise: float
    gamma: float
    resolution: ResolutionParameters
    statistics: tuple[float, float] | None


class StrokeGenerator:
    """Draws synthetic scans of stroke patients with their segmentations from healthy label maps.

    Targets have six classes as in Chalcroft et al. 2024: background, white matter, grey matter, fluid, lesion, and the
    boundary of grey and white matter (:data:`synthseg_slicer.labels.STROKE`). Images are conformed and standardised as
    for inference. Samples are made on the device of the label maps.

    Parameters
    ----------
    label_maps : LabelMapSet
        Whole-head maps with the labels of :data:`synthseg_training.physics.LABEL_TISSUES`; unknown labels are soft
        tissue outside the brain.
    config : StrokeConfig, optional
        Settings; qSynth's by default. Lesion masks are read once, from the folder that they name here.

    Raises
    ------
    ScanError
        What :class:`~synthseg_training.lesions.LesionMasks` raises for the folder of lesion masks.
    """

    def __init__(self, label_maps: LabelMapSet, config: StrokeConfig | None = None):
        self.config = config or StrokeConfig()
        self.labels, self.map_voxel = label_maps.labels, label_maps.voxel_size
        self._masks = self.config.masks.read(self.config.voxel_size)
        self.maps, self._boxes = prepared_maps(label_maps, self.config.anatomy)
        classes = []
        for label in self.labels:
            wanted = CLASS_OF_TISSUE.get(LABEL_TISSUES.get(label, ""), 0)
            if label in EXTRACEREBRAL_NERVES:
                wanted = 0
            classes.append(wanted)
        # vessels inside the brain are perivascular spaces of white matter
        classes = [WHITE if label in (30, 62) else wanted for label, wanted in zip(self.labels, classes)]
        self._classes = torch.tensor(classes)

    @property
    def device(self) -> torch.device:
        """Where samples are made."""
        return self.maps[0].device

    def draw(self, rng: torch.Generator) -> StrokeParameters:
        """Draw the parameters of one sample from a generator on the CPU."""
        config = self.config
        index = integer(rng, len(self.maps))
        physics = config.appearance == "physics"
        return StrokeParameters(
            map_index=index,
            seed=integer(rng, 2**62),
            spatial=config.spatial.draw(rng, config.extent, self._boxes[index], self.map_voxel),
            flipped=config.flip.draw(rng),
            skull_stripping=config.skull_stripping.draw(rng),
            hyperintensities=config.hyperintensities.draw(rng),
            foci=self._draw_foci(rng) if happens(rng, config.stroke_probability) else (),
            paste=config.paste.draw(rng),
            tissue=config.texture.draw_physics(rng, self.labels)
            if physics
            else config.texture.draw_random(rng, self.labels, config.anatomy, config.gmm),
            sequence=self._draw_sequence(rng) if physics else None,
            field_strength=config.field_strength.draw(rng),
            gain=config.gain.draw(rng, config.extent) if physics else config.bias.draw(rng, config.extent),
            noise=config.noise.draw(rng),
            gamma=config.gamma.draw(rng),
            resolution=config.resolution.draw(rng),
            statistics=config.statistics.draw(rng),
        )

    def _draw_foci(self, rng: torch.Generator) -> tuple[Focus | MaskParameters, ...]:
        masked = self._masks is not None and happens(rng, self.config.masks.share)
        return (self._masks if masked else self.config.shapes).draw(rng)

    def _draw_sequence(self, rng: torch.Generator) -> Sequence:
        config = self.config
        return (config.clinical if happens(rng, config.clinical_share) else config.sequences).draw(rng)

    @torch.no_grad()
    def apply(self, parameters: StrokeParameters) -> tuple[Tensor, Tensor]:
        """Make the sample that the parameters describe.

        Returns
        -------
        image : Tensor
            float32 ``[1, N, N, N]``, standardised.
        target : Tensor
            uint8 ``[N, N, N]``, indices into ``config.output_ids``.
        """
        with torch.autocast(self.device.type, enabled=False):
            maps, target = self.tissue(parameters)
            image = self._random(maps[0], parameters) if parameters.sequence is None else self._scan(maps, parameters)
            image = self.config.resolution.apply(image, parameters.resolution, self.config.voxel_size)
            return self.config.statistics.apply(conformed(image), parameters.statistics)[None], target

    def sample(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw and make one sample."""
        return self.apply(self.draw(rng))

    def tissue(self, parameters: StrokeParameters) -> tuple[Tensor, Tensor]:
        """Return the maps and the target of a sample.

        Returns
        -------
        maps : Tensor
            ``[5, N, N, N]``: PD, R1, R2, R2*, MT; with random appearance ``[1, N, N, N]``, intensities in 0-255.
        target : Tensor
            uint8 ``[N, N, N]``.
        """
        config = self.config
        labels, table = self._deformed(parameters)
        table_here = table.to(labels.device)
        fields = self._lesions(labels, parameters, self._ids(table))
        whole = torch.ones((1, *labels.shape), device=labels.device)
        lesions, is_lesion = config.paste.apply(whole, fields, parameters.paste, config.voxel_size)
        maps = config.texture.apply(labels, lesions, parameters.tissue, table, parameters.seed, config.voxel_size)
        return maps, self._target(table_here[labels.reshape(-1).long()].reshape(labels.shape), is_lesion)

    def _lesions(self, labels: Tensor, parameters: StrokeParameters, ids: list[int]) -> list[LesionField]:
        config, foci = self.config, parameters.foci
        source = self._masks if foci and isinstance(foci[0], MaskParameters) else config.shapes
        # Territories are told by the place in the head: it has to face forward and stand upright.
        turned = [axis for axis in parameters.flipped if axis]
        fields = source.apply(config.flip.apply(labels, turned), foci, config.voxel_size, ids=ids)
        return [
            LesionField(config.flip.apply(one.core, turned), config.flip.apply(one.rim, turned), one.stage)
            for one in fields
        ]

    def quantitative(self, parameters: StrokeParameters) -> QuantitativeMaps:
        """Return the quantitative maps of a sample of physical appearance, at 3 T."""
        return QuantitativeMaps.unstack(self.tissue(parameters)[0], check=False)

    def _ids(self, table: Tensor) -> list[int]:
        return [self.labels[index] for index in table.tolist()]

    def _deformed(self, parameters: StrokeParameters) -> tuple[Tensor, Tensor]:
        config = self.config
        edits = config.hyperintensities.changes(parameters.hyperintensities, config.anatomy)
        return deformed_labels(config, self.maps[parameters.map_index], parameters, edits, self.labels, self.map_voxel)

    def _target(self, labels: Tensor, is_lesion: Tensor) -> Tensor:
        config, device = self.config, labels.device
        if not config.healthy_classes:
            return is_lesion.to(torch.uint8)
        channel = torch.tensor([IDS.index(one) for one in self._classes.tolist()], dtype=torch.uint8)
        target = channel.to(device)[labels.reshape(-1).long()].reshape(labels.shape)
        sigma = max(config.texture.mixing, 0.6) / config.voxel_size
        grey, white = (shares(labels, self._classes == one, sigma) for one in (GREY, WHITE))
        brain = (target == IDS.index(GREY)) | (target == IDS.index(WHITE))
        target[brain & (torch.minimum(grey, white) > BOUNDARY_SHARE)] = IDS.index(BOUNDARY)
        target[is_lesion] = IDS.index(LESION_ID)
        return target

    def _scan(self, maps: Tensor, parameters: StrokeParameters) -> Tensor:
        """Return the magnitude image that the sequence makes of the maps."""
        config = self.config
        quantities = QuantitativeMaps.unstack(maps, check=False)
        quantities = config.field_strength.apply(quantities, parameters.field_strength)
        gain = config.gain.gain(parameters.gain, config.crop, maps.device)
        image = parameters.sequence.signal(quantities, gain)
        return config.noise.apply(image, parameters.noise, parameters.seed + 101)

    def _random(self, image: Tensor, parameters: StrokeParameters) -> Tensor:
        image = self.config.bias.apply(image, parameters.gain)
        return self.config.gamma.apply(image, parameters.gamma)


def conformed(image: Tensor) -> Tensor:
    """Scale the percentiles of :mod:`synthseg_slicer.conform` to 0 and 1, clip, standardise."""
    some = image.reshape(-1)[::PERCENTILE_STRIDE].float()
    ranks = [max(1, min(len(some), round(len(some) * percent / 100))) for percent in PERCENTILES]
    low, high = (some.kthvalue(rank).values for rank in ranks)
    image = image.sub(low).div_((high - low).clamp_(min=1e-12)).clamp_(0, 1)
    return standardise(image)
