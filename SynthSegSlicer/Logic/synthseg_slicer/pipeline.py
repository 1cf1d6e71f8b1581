"""The one path from a scan to its segmentation; the only caller of the other rooms."""

from __future__ import annotations

import os
import warnings as python_warnings
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from . import measure, orientation, quality, sanity
from . import provenance as records
from .cancel import CancelToken
from .caught import caught_warnings
from .conform import conform, crop_to_head
from .contrast import ANY, expert_for
from .errors import OptionError, OutputError
from .files import SLICER_SUFFIXES, atomic, check_output, suffix_of
from .labels import Label
from .pages import write_scan_page
from .pages.document import SUFFIXES as PAGE_SUFFIXES
from .posteriors import SUFFIXES as POSTERIOR_SUFFIXES
from .posteriors import write_posteriors
from .postprocess import GridMap, clean_up, label_map, resample_labels
from .predict import DeviceWarning, TopPosteriors, predict, resolve_device
from .refine import refine
from .report import overlay_picture
from .robust import NOISY, denoised, noise_level
from .scan import WRITE_SUFFIXES, Scan, ScanWarning, read_scan, write_volume
from .stages import Progress, Stages
from .weights import Model, load_model

SMOOTHING = 0.5
"""Standard deviation in voxels of the Gaussian that smooths posteriors (SynthSeg's value)."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of :func:`segment`.

    Attributes
    ----------
    labels : uint8 or int16 array [x, y, z]
        FreeSurfer label ids.
    affine : float64 array [4, 4]
        Voxel index to RAS+ world in mm.
    volumes : dict
        Label id to mm³, from the soft posteriors on the network's grid, whatever grid ``labels`` has.
    verdict : Verdict
        How good the result probably is (:mod:`synthseg_slicer.quality`).
    structures : tuple of Label
        What the label ids mean, background included.
    intracranial : float
        Total intracranial volume in mm³.
    provenance : dict
        What :mod:`synthseg_slicer.provenance` records.
    top : TopPosteriors
        The cleaned posteriors on the network's grid.
    grid : GridMap or None
        From the grid of ``labels`` to the network's grid; None where they are the same.
    """

    labels: np.ndarray
    affine: np.ndarray
    volumes: dict[int, float]
    verdict: quality.Verdict
    structures: tuple[Label, ...]
    intracranial: float
    provenance: dict
    top: TopPosteriors = field(repr=False)
    grid: GridMap | None = field(repr=False, default=None)

    @property
    def names(self) -> dict[int, str]:
        """Label id to name."""
        return {label.id: label.name for label in self.structures}

    @property
    def rows(self) -> list[measure.Row]:
        """One row a structure: volume, share, asymmetry, quality, interval; the last one is the intracranial total."""
        expected = {**self.verdict.structures, None: self.verdict.scan}
        return measure.rows(self.volumes, expected, self.structures, self.verdict.intervals)

    def posterior(self, label: int) -> np.ndarray:
        """Return the posterior probability of a label id on the grid of ``labels``, float32 [x, y, z]."""
        volume = self.top.posterior(self.top.ids.index(label))
        return volume if self.grid is None else self.grid.sample(volume)

    def save(self, path: str | Path, scan: Scan | None = None) -> None:
        """Write the labels, and the provenance as JSON beside them; both or none.

        Parameters
        ----------
        path : path
            Target, replaced if it exists.
        scan : Scan, optional
            What was segmented; files of 3D Slicer (.seg.nrrd, .mrb) need it.

        Raises
        ------
        OutputError
            They cannot be written.
        OptionError
            The scan is missing.
        """
        if scan is None and suffix_of(Path(path), SLICER_SUFFIXES):
            raise OptionError(f"{path}: this format refers to the scan. Give it as second argument.")
        self._write({"output": Path(path)}, None, scan)

    def _write(self, outputs: dict[str, Path], image: np.ndarray | None, scan: Scan | None) -> None:
        """Write all outputs under temporary names, then rename them all."""
        with ExitStack() as stack:
            temporary = {kind: stack.enter_context(atomic(path)) for kind, path in outputs.items()}
            if "output" in temporary:
                write_labels(self, scan, temporary["output"], outputs["output"])
            if "posteriors" in temporary:
                shape = (*self.labels.shape, len(self.top.ids))
                write_posteriors(temporary["posteriors"], map(self.posterior, self.top.ids), shape, self.affine)
            if "volumes" in temporary:
                measure.write_volumes_csv(temporary["volumes"], self.rows)
            if "picture" in temporary:
                overlay_picture(temporary["picture"], image, self.labels, self.affine)
            if "report" in temporary:
                write_scan_page(temporary["report"], scan, self, image=image)
            if outputs:
                record = {**self.provenance, "outputs": {kind: str(path.absolute()) for kind, path in outputs.items()}}
                beside = records.path_beside(next(iter(outputs.values())))
                records.write(stack.enter_context(atomic(beside)), record)


def segment(
    scan: Scan | str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    task: str = "brain",
    fast: bool = False,
    ct: bool | None = None,
    device: str = "auto",
    native: bool = False,
    contrast: str = "auto",
    refined: bool = True,
    robust: bool | None = None,
    posteriors: str | os.PathLike | None = None,
    volumes: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    report: str | os.PathLike | None = None,
    model: Model | str | os.PathLike | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> Segmentation:
    """Segment a head scan.

    All files are written at the end, all of them or none; the provenance goes beside the first of them, with the suffix
    .json.

    Parameters
    ----------
    scan : Scan or path
        A scan in memory, a file, or a DICOM folder.
    output : path, optional
        Label volume to write; or a segmentation (.seg.nrrd) or scene (.mrb) of 3D Slicer, which need slicer-core.
    task : str
        Bundled model to use.
    fast : bool
        One pass instead of the mean of two (with the mirrored scan): half the time, a little less accurate. Weights
        for an anatomy without mirror image always take one.
    ct : bool, optional
        Whether the scan is CT; judged from its intensities by default.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    native : bool
        Labels (and posteriors) in the scan's own grid instead of the grid that the network works on (1 mm, or what
        the card of the weights says).
    contrast : str
        ``auto`` lets a network that was trained on the scan's family of contrasts take over where there is one
        (:mod:`synthseg_slicer.contrast`); ``any`` keeps the general network.
    refined : bool
        Sharpen borders by the scan's own intensities (:mod:`synthseg_slicer.refine`).
    robust : bool, optional
        Smooth the scan first, against noise (:mod:`synthseg_slicer.robust`); by default only a noisy scan.
    posteriors : path, optional
        Soft posteriors to write, 4D NIfTI in channel order (the ids are in the provenance). The four largest of each
        voxel are kept.
    volumes : path, optional
        Table of volumes in mm³ to write.
    picture : path, optional
        PNG of slices with contours to write.
    report : path, optional
        HTML page to write: pictures, volumes, warnings, provenance (:mod:`synthseg_slicer.pages`).
    model : Model or path, optional
        Weights to use instead of the bundled ones.
    progress : callable, optional
        Called with the stage's name and the fraction of the whole job.
    cancel : CancelToken, optional
        Stops the job between its steps.

    Returns
    -------
    Segmentation

    Raises
    ------
    ScanError, OutputError, DeviceError, WeightsError, OptionError, Cancelled
        See :mod:`synthseg_slicer.errors`; nothing was written.
    """
    given = {"output": output, "posteriors": posteriors, "volumes": volumes, "picture": picture, "report": report}
    outputs = {kind: Path(path) for kind, path in given.items() if path is not None}
    if contrast not in ("auto", ANY):
        raise OptionError(f"The contrast is '{contrast}'; choose auto or {ANY}.")
    _check_outputs(outputs, scan)
    device = str(resolve_device(device))
    stage = Stages(progress, cancel)
    with caught_warnings() as caught:
        with stage("weights", 0.0, 0.01):
            model = model if isinstance(model, Model) else load_model(task, model)
            calibration = model.calibration
        with stage("read", 0.01, 0.03):
            scan = scan if isinstance(scan, Scan) else read_scan(scan)
        with stage("conform", 0.03, 0.05):
            conformed = conform(scan, ct=ct, voxel_size=model.voxel_size, ct_window=model.ct_window)
            content = sanity.check(scan, conformed.image, model.voxel_size) if model.mirrored else None
            smoothed = noise_level(conformed.image) > NOISY if robust is None else robust
            if smoothed:
                conformed = replace(conformed, image=denoised(conformed.image, model.voxel_size))
            crop = crop_to_head(conformed.image)
            family = ANY
            if contrast == "auto":
                model, family = expert_for(model, conformed.image[crop], conformed.is_ct, device)
        top = posteriors_of(
            model, conformed.image, crop, fast=fast, refined=refined, device=device, stage=stage, start=0.05, stop=0.9
        )
        with stage("clean up", 0.9, 0.95):
            top = clean_up(top, model.topology)
            grid = GridMap(scan.shape, scan.affine, conformed.affine) if native else None
            labels = label_map(top) if grid is None else resample_labels(top, grid)
            voxel_volume = float(abs(np.linalg.det(conformed.affine[:3, :3])))
            measured = measure.volumes(top, voxel_volume)
            verdict = quality.judge(top, voxel_volume, model.names, calibration)
            if not labels.any():
                python_warnings.warn(sanity.nothing_segmented(model.labels), stacklevel=2)
            for message in verdict.warnings + sanity.size_findings(measured):
                python_warnings.warn(message, stacklevel=2)
        if content and quality.failed(verdict) and sanity.no_head(content) is None:
            with stage("orientation", 0.95, 0.97) as step:
                lies = conformed, content.sideways, verdict.scan
                turn = orientation.upright(model, calibration, *lies, device, step)
                if turn is not None:
                    message = f"{scan.name}: {orientation.message(turn, scan.affine)}"
                    python_warnings.warn(message, ScanWarning, stacklevel=2)
    for warning in caught:
        python_warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if any(issubclass(warning.category, DeviceWarning) for warning in caught):
        device = "cpu"
    options = {
        "task": task,
        "fast": fast,
        "ct": conformed.is_ct,
        "ct_requested": ct,
        "native": native,
        "contrast": family,
        "contrast_requested": contrast,
        "refined": refined,
        "robust": smoothed,
        "robust_requested": robust,
        "smoothing_voxels": SMOOTHING,
        "voxel_size_mm": model.voxel_size,
        "ct_window_hu": list(model.ct_window),
    }
    messages = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    segmentation = Segmentation(
        labels,
        scan.affine if native else conformed.affine,
        measured,
        verdict,
        model.labels,
        measure.total_intracranial(measured),
        records.describe(scan, model, device, options, stage.seconds, messages) | {"quality": verdict.scan},
        top,
        grid,
    )
    with stage("write", 0.97, 1.0):
        segmentation._write(outputs, scan.data if native else conformed.image, scan)
    stage.report("done", 1.0)
    return segmentation


def posteriors_of(
    model: Model,
    image: np.ndarray,
    crop: tuple[slice, slice, slice],
    *,
    fast: bool,
    refined: bool,
    device: str,
    stage: Stages,
    start: float,
    stop: float,
    suffix: str = "",
) -> TopPosteriors:
    """Return the posteriors of a conformed image, not cleaned up yet.

    Parameters
    ----------
    model : Model
    image : float32 array [x, y, z]
        Conformed.
    crop : tuple of slice
        The part of it that the network sees; the rest is background.
    fast, refined, device
        See :func:`segment`.
    stage : Stages
        Is told the stages "predict" and "refine".
    start, stop : float
        Their share of the whole job.
    suffix : str
        Of their names.
    """
    middle = stop - (stop - start) / 17  # refinement takes a seventeenth
    with stage(f"predict{suffix}", start, middle) as step:
        flip = model.mirrored and not fast
        top = predict(model, image[crop], flip=flip, device=device, smoothing=SMOOTHING, progress=step)
        box = tuple(slice(b.start + c.start, b.stop + c.start) for b, c in zip(top.box, crop))
        top = replace(top, box=box, shape=image.shape)
    with stage(f"refine{suffix}", middle, stop) as step:
        return refine(top, image, model.partners, progress=step) if refined else top


def _check_outputs(outputs: dict[str, Path], scan: Scan | str | os.PathLike) -> None:
    """Refuse outputs that could not be written, before any work."""
    labels = SLICER_SUFFIXES + WRITE_SUFFIXES
    suffixes = {
        "output": labels,
        "posteriors": POSTERIOR_SUFFIXES,
        "volumes": (".csv",),
        "picture": (".png",),
        "report": PAGE_SUFFIXES,
    }
    taken = {} if isinstance(scan, Scan) else {Path(scan).absolute(): "the scan itself"}
    for kind, path in outputs.items():
        if check_output(path, suffixes[kind]) in SLICER_SUFFIXES:
            slicer_room(path)
        if path.absolute() in taken:
            raise OptionError(f"{path}: this file is also {taken[path.absolute()]}. Give each output its own name.")
        taken[path.absolute()] = f"the target of '{kind}'"


def write_labels(result, scan: Scan | None, temporary: Path, path: Path) -> None:
    """Write a result's labels, of either task, in the format that the suffix of ``path`` names, into ``temporary``."""
    suffix = suffix_of(path, SLICER_SUFFIXES)
    if suffix == ".mrb":
        slicer_room(path).save_scene(result, scan, temporary, name=path.stem)
    elif suffix == ".seg.nrrd":
        slicer_room(path).save_seg_nrrd(result, scan, temporary)
    else:
        write_volume(temporary, result.labels, result.affine)


def slicer_room(path: Path):
    """Return the room that writes files of 3D Slicer; asked for before any work, because slicer-core is optional."""
    try:
        from . import mrml
    except ImportError as error:
        raise OutputError(
            f"{path}: writing this format needs slicer-core ({error}). Install it (pip install "
            "'synthseg-slicer[slicer]'), or choose .nii.gz."
        ) from error
    return mrml
