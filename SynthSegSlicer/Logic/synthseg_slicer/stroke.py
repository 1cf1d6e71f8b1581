"""The path from scans of one head to its stroke lesions: the lesion task's counterpart of :mod:`.pipeline`."""

from __future__ import annotations

import os
import warnings as python_warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from . import lesions, registration, sanity
from . import provenance as records
from .cancel import CancelToken
from .caught import caught_warnings
from .conform import Conformed, conform, crop_to_head, standardise
from .errors import DeviceError, OptionError, ScanWarning
from .files import SLICER_SUFFIXES, atomic, check_output
from .labels import LESION_ID
from .pages import write_scan_page
from .pages.document import SUFFIXES as PAGE_SUFFIXES
from .pipeline import Segmentation, segment, slicer_room, write_labels
from .posteriors import SUFFIXES as POSTERIOR_SUFFIXES
from .posteriors import write_posteriors
from .postprocess import GridMap
from .predict import out_of_memory, resolve_device
from .report import overlay_picture
from .resampling import sample
from .scan import WRITE_SUFFIXES, Scan, read_scan
from .stages import Progress, Stages
from .weights import Model, load_model
from .windows import FLIPS, window_logits

TASK = "stroke"
TISSUE = (2, 3, 299)
"""Classes of the stroke network that are brain tissue."""
FAR_BELOW = -30.0
"""Logit of everything but background where nothing was computed, outside the box around the head."""
LOOKS_LIKE_CT = (
    "This looks like CT, and the stroke weights were trained on MR only. Do not trust the result: leave this scan out; "
    "or if it is MR, say so with --no-ct (ct=False)."
)
CITATION = (
    "Chalcroft L. et al. Domain-Agnostic Stroke Lesion Segmentation Using Physics-Constrained Synthetic Data. MICCAI "
    "2025, 163-173. https://doi.org/10.1007/978-3-032-04965-0_16"
)


@dataclass(frozen=True, eq=False)
class LesionSegmentation:
    """The result of :func:`segment_lesions`.

    Attributes
    ----------
    labels : uint8 array [x, y, z]
        99 (:data:`~synthseg_slicer.labels.LESION_ID`) in lesions, else 0.
    probability : float32 array [x, y, z]
        Of lesion, on the grid of ``labels``.
    affine : float64 array [4, 4]
        Voxel index to RAS+ world in mm.
    lesions : list of Lesion
        Largest first.
    loads : list of Load
        Share of each structure, hemisphere and of the brain that is lesion; empty without anatomy.
    anatomy : Segmentation or None
        The brain task's result for the first scan.
    transforms : list of array [4, 4]
        World mm of each scan to world mm of the first.
    provenance : dict
    """

    labels: np.ndarray
    probability: np.ndarray
    affine: np.ndarray
    lesions: list[lesions.Lesion]
    loads: list[lesions.Load]
    anatomy: Segmentation | None
    transforms: list[np.ndarray]
    provenance: dict = field(repr=False)

    @property
    def volume(self) -> float:
        """Volume of all lesions in mm³."""
        return float(sum(one.volume for one in self.lesions))


def segment_lesions(
    scans: Sequence[Scan | str | os.PathLike] | Scan | str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    anatomy: bool = True,
    fast: bool = False,
    flips: int | None = None,
    ct: bool | None = None,
    device: str = "auto",
    native: bool = False,
    register: bool = True,
    fewest: float = lesions.FEWEST_MM3,
    probability: str | os.PathLike | None = None,
    volumes: str | os.PathLike | None = None,
    loads: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    report: str | os.PathLike | None = None,
    model: Model | str | os.PathLike | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> LesionSegmentation:
    """Segment stroke lesions from one or several scans of a head.

    Each scan is conformed, standardised and segmented by itself; the logits of all are brought to the first scan's
    grid and averaged (Chalcroft et al. 2024, section 3). Files are written at the end, all of them or none.

    Parameters
    ----------
    scans : scan, path, or several
        Of one head, of any sequences. The first gives the grid and the anatomy: give the one that shows it best.
    output : path, optional
        Lesion map to write; or a segmentation (.seg.nrrd) or scene (.mrb, with anatomy and tables) of 3D Slicer, which
        need slicer-core.
    anatomy : bool
        Segment the first scan's anatomy too, for loads, sides and structures.
    fast : bool
        One pass a scan, and one for the anatomy.
    flips : {1, 2, 8}, optional
        Passes a scan: as it is; mirrored too; mirrored along all combinations of axes. By default what the weights
        were trained for.
    ct : bool, optional
        False keeps MR scans from being taken for CT, which is judged from their intensities. The weights are for MR:
        a scan that is taken for CT gets a :class:`.ScanWarning`, and True is refused.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    native : bool
        Result in the first scan's own grid instead of 1 mm: logits are interpolated, then compared.
    register : bool
        Register scans whose grid differs from the first's (rigidly); else trust the headers.
    fewest : float
        Lesions below this volume in mm³ are dropped.
    probability : path, optional
        Lesion probability to write, NIfTI.
    volumes : path, optional
        CSV, a row a lesion.
    loads : path, optional
        CSV, a row a structure; needs the anatomy.
    picture : path, optional
        PNG of slices.
    report : path, optional
        HTML page: pictures, lesions, loads, volumes, warnings, provenance (:mod:`synthseg_slicer.pages`).
    model : Model or path, optional
        Weights to use instead of the bundled ones.
    progress : callable, optional
        Called with the stage's name and the fraction of the whole job.
    cancel : CancelToken, optional
        Stops the job between its steps.

    Raises
    ------
    ScanError, OutputError, DeviceError, WeightsError, OptionError, Cancelled
        See :mod:`synthseg_slicer.errors`; nothing was written.
    """
    scans = [scans] if isinstance(scans, (Scan, str, os.PathLike)) else list(scans)
    given = {"output": output, "probability": probability, "volumes": volumes, "loads": loads}
    given |= {"picture": picture, "report": report}
    outputs = {kind: Path(path) for kind, path in given.items() if path is not None}
    _check(scans, outputs, anatomy, fast, flips, ct)
    device = str(resolve_device(device))
    stage = Stages(progress, cancel)
    with caught_warnings() as caught:
        with stage("weights", 0.0, 0.01):
            model = model if isinstance(model, Model) else load_model(TASK, model)
            if LESION_ID not in model.ids:
                raise OptionError("These weights segment no lesions (no label 99). Use weights of the task 'stroke'.")
            flips = 1 if fast else flips or known_flips(model)
        with stage("read", 0.01, 0.04):
            scans = [scan if isinstance(scan, Scan) else read_scan(scan) for scan in scans]
        transforms, kinds, reference, total, cover = [], [], None, None, None
        share = (0.6 if anatomy else 0.9) / len(scans)
        for number, scan in enumerate(scans):
            begin = 0.04 + number * share
            suffix = f" {number + 1} of {len(scans)}" if len(scans) > 1 else ""
            with stage(f"register{suffix}", begin, begin + 0.2 * share):
                conformed = conform(scan, ct=ct)
                kinds.append(conformed.is_ct)
                if conformed.is_ct:
                    python_warnings.warn(f"{scan.name}: {LOOKS_LIKE_CT}", ScanWarning, stacklevel=2)
                if number or not anatomy:  # the anatomy looks at the first one
                    sanity.check(scan, conformed.image)
                reference = reference or conformed
                aligned = number == 0 or not register or registration.same_grid(scan, scans[0])
                transforms.append(np.eye(4) if aligned else registration.register(scan, scans[0]))
            with stage(f"predict{suffix}", begin + 0.2 * share, begin + share) as step:
                logits = _logits(model, conformed, flips, device, step)
                logits, inside = _on_grid(logits, conformed, transforms[-1], reference)
                total = logits if total is None else np.add(total, logits, out=total)
                cover = inside if cover is None else cover + inside
        total /= cover
        brain = None
        if anatomy:
            with stage("anatomy", 0.64, 0.94):
                brain = segment(
                    scans[0],
                    fast=fast,
                    ct=ct,
                    device=device,
                    native=native,
                    progress=lambda name, fraction: stage.report(f"anatomy: {name}", 0.64 + 0.3 * fraction),
                    cancel=stage.cancel,
                )
        with stage("measure", 0.94, 0.98):
            grid = GridMap(scans[0].shape, scans[0].affine, reference.affine) if native else None
            affine = scans[0].affine if native else reference.affine
            labels, soft = classify(total, model.ids, grid)
            if brain is not None:
                labels = lesions.in_tissue(labels, brain.labels > 0)
            numbered = lesions.components(labels, float(abs(np.linalg.det(affine[:3, :3]))), fewest)
            result = _measured(numbered, soft, affine, brain, transforms)
    for warning in caught:
        python_warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    options = {
        "task": TASK,
        "scans": [scan.name for scan in scans],
        "anatomy": anatomy,
        "fast": fast,
        "flips": flips,
        "ct_requested": ct,
        "native": native,
        "register": register,
        "fewest_mm3": fewest,
    }
    messages = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    record = records.describe(scans[0], model, device, options, stage.seconds, messages)
    record |= {
        "inputs": [{"name": scan.name, "sha256": scan.sha256, "ct": is_ct} for scan, is_ct in zip(scans, kinds)],
        "transforms": [matrix.tolist() for matrix in transforms],
        "lesions": len(result.lesions),
        "lesion_mm3": result.volume,
        "citation": CITATION,
    }
    result.provenance.update(record)
    with stage("write", 0.98, 1.0):
        _write(result, outputs, scans[0].data if native else reference.image, scans[0])
    stage.report("done", 1.0)
    return result


def known_flips(model: Model) -> int:
    """Return how many mirrored passes the weights were trained for, as their card says: 8, 2 (without a word) or 1."""
    return int(model.card.get("flips", 2))


def _check(
    scans: list, outputs: dict[str, Path], anatomy: bool, fast: bool, flips: int | None, ct: bool | None
) -> None:
    """Refuse what cannot work, before any work."""
    if not scans:
        raise OptionError("There is no scan. Give at least one.")
    if flips is not None and flips not in FLIPS:
        raise OptionError(f"There are {flips} flips; choose {', '.join(map(str, FLIPS))}.")
    if fast and flips not in (None, 1):
        raise OptionError(f"Fast means one pass, not {flips} flips. Leave out --fast, or --flips.")
    if ct:
        raise OptionError(
            "The task stroke is for MR scans. Leave out --ct (ct=True; in Slicer, the kind of scan CT), and CT scans."
        )
    if "loads" in outputs and not anatomy:
        raise OptionError("Loads need the anatomy. Leave out --no-anatomy, or the loads.")
    suffixes = {
        "output": SLICER_SUFFIXES + WRITE_SUFFIXES,
        "probability": POSTERIOR_SUFFIXES,
        "volumes": (".csv",),
        "loads": (".csv",),
        "picture": (".png",),
        "report": PAGE_SUFFIXES,
    }
    taken = {Path(scan).absolute(): "a scan itself" for scan in scans if not isinstance(scan, Scan)}
    for kind, path in outputs.items():
        if check_output(path, suffixes[kind]) in SLICER_SUFFIXES:
            slicer_room(path)
        if path.absolute() in taken:
            raise OptionError(f"{path}: this file is also {taken[path.absolute()]}. Give each output its own name.")
        taken[path.absolute()] = f"the target of '{kind}'"


def _logits(model: Model, conformed: Conformed, flips: int, device: str, step: Callable[[float], None]) -> np.ndarray:
    """Return logits ``[classes, x, y, z]`` on the conformed grid."""
    image = standardise(torch.from_numpy(conformed.image)).numpy()
    crop = crop_to_head(conformed.image)
    try:
        inner = window_logits(model.network, image[crop], flips=flips, device=device, progress=step)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise DeviceError(
            f"{conformed.source.name}: the memory of the device {device} does not suffice. Choose --device cpu, or "
            "crop the scan around the head."
        ) from error
    if inner.shape[1:] == image.shape:
        return inner
    logits = np.full((len(inner), *image.shape), FAR_BELOW, np.float32)
    logits[model.ids.index(0)] = 0
    logits[(slice(None), *crop)] = inner
    return logits


def _on_grid(
    logits: np.ndarray, conformed: Conformed, transform: np.ndarray, reference: Conformed
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits interpolated on the reference's grid, 0 outside the scan, and 1 where the scan reaches, else 0."""
    shape = reference.image.shape
    if conformed is reference:
        return logits, np.ones(shape, np.float32)
    to_index = np.linalg.inv(conformed.affine) @ np.linalg.inv(transform) @ reference.affine
    if logits.shape[1:] == shape and np.abs(to_index - np.eye(4)).max() < 1e-4:
        return logits, np.ones(shape, np.float32)
    moved, inside = sample(logits, to_index, shape)
    return moved, inside.astype(np.float32)


def classify(logits: np.ndarray, ids: tuple[int, ...], grid: GridMap | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return where lesion is the most probable class, and its probability, on the target grid.

    Only in brain tissue of the network's own classes: what looks like a lesion in the neck is none. Nor are lesions of
    which the network is nowhere sure; these keep their probability.

    Parameters
    ----------
    logits : float32 array [classes, x, y, z]
    ids : tuple of int
        Label id of each class.
    grid : GridMap, optional
        Onto the target grid; by default the logits' own.

    Returns
    -------
    bool array [x, y, z], float32 array [x, y, z]
    """
    if grid is not None:
        logits = np.stack([grid.sample(one) for one in logits])
    channel = ids.index(LESION_ID)
    highest = logits.max(0)
    total = np.zeros(logits.shape[1:], np.float32)
    for one in logits:
        total += np.exp(one - highest)
    soft = np.exp(logits[channel] - highest) / total
    found = logits[channel] >= highest
    lesion = lesions.in_tissue(found, np.isin(np.array(ids)[logits.argmax(0)], TISSUE))
    soft = np.where(found & ~lesion, 0, soft).astype(np.float32)
    return lesions.certain(lesion, soft), soft


def _measured(
    numbered: np.ndarray,
    soft: np.ndarray,
    affine: np.ndarray,
    brain: Segmentation | None,
    transforms: list[np.ndarray],
) -> LesionSegmentation:
    nearest, rows, labels = None, [], ()
    if brain is not None:
        labels = brain.structures
        nearest = lesions.nearest_labels(brain.labels, numbered > 0)
        voxel_volume = float(abs(np.linalg.det(affine[:3, :3])))
        rows = lesions.loads(brain.labels, nearest, labels, voxel_volume)
    found = lesions.describe(numbered, soft, affine, nearest, labels)
    mask = np.where(numbered > 0, np.uint8(LESION_ID), np.uint8(0))
    return LesionSegmentation(mask, soft, affine, found, rows, brain, transforms, {})


def _write(result: LesionSegmentation, outputs: dict[str, Path], image: np.ndarray, scan: Scan) -> None:
    """Write all outputs under temporary names, then rename them all."""
    with ExitStack() as stack:
        temporary = {kind: stack.enter_context(atomic(path)) for kind, path in outputs.items()}
        if "output" in temporary:
            write_labels(result, scan, temporary["output"], outputs["output"])
        if "probability" in temporary:
            write_posteriors(temporary["probability"], [result.probability], (*result.labels.shape, 1), result.affine)
        if "volumes" in temporary:
            lesions.write_lesions_csv(temporary["volumes"], result.lesions)
        if "loads" in temporary:
            lesions.write_loads_csv(temporary["loads"], result.loads)
        if "picture" in temporary:
            colors = {LESION_ID: (255, 80, 40)}
            overlay_picture(
                temporary["picture"], image, result.labels, result.affine, slices=6, colors=colors, region=image > 0.2
            )
        if "report" in temporary:
            write_scan_page(temporary["report"], scan, result, image=image)
        if outputs:
            kept = {kind: str(path.absolute()) for kind, path in outputs.items()}
            beside = records.path_beside(next(iter(outputs.values())))
            records.write(stack.enter_context(atomic(beside)), {**result.provenance, "outputs": kept})
