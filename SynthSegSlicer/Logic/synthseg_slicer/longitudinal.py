"""Several scans of one head over time: segmented alike in a space halfway between them, and compared.

What Reuter et al. 2012 (https://doi.org/10.1016/j.neuroimage.2012.02.084) found to matter is kept: no timepoint is
treated differently from another. Each is interpolated once, onto a grid halfway between all (:mod:`.midpoint`), cut to
one box and segmented by one network. Exchanging timepoints exchanges their results, to the last bit: they are worked on
in an order that depends on their content alone.
"""

from __future__ import annotations

import os
import warnings as python_warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import comparable, measure, quality, sanity
from . import provenance as records
from .aligned import Aligned, align, canonical_order
from .cancel import CancelToken
from .caught import caught_warnings
from .change import DECREASE, INCREASE, Change, changes, check_years, write_changes_csv
from .contrast import ANY, expert_for
from .errors import OptionError, OutputError
from .files import atomic, check_output
from .inputs import output_names
from .lesions import NOT_TISSUE
from .pipeline import SMOOTHING, Segmentation, posteriors_of
from .postprocess import clean_up, label_map
from .predict import DeviceWarning, resolve_device
from .registration import write_transform
from .report import overlay_picture
from .resampling import labels_on_grid
from .scan import Scan, ScanWarning, read_scan, write_volume
from .stages import Progress, Stages
from .weights import Model, load_model

RECORD = "timepoints.json"
"""Name of the provenance in the output folder."""
SUFFIXES = {"volumes": ".csv", "picture": ".png"}
LOST, GAINED, RELABELLED = 1, 2, 3
CHANGE_COLORS = {LOST: (60, 130, 255), GAINED: (255, 60, 60), RELABELLED: (255, 215, 0)}
"""In the picture: tissue that became fluid or background blue, the reverse red, one structure for another yellow."""
CITATION = (
    "Reuter M. et al. Within-subject template estimation for unbiased longitudinal image analysis. NeuroImage 61 "
    "(2012) 1402-1418. https://doi.org/10.1016/j.neuroimage.2012.02.084"
)


@dataclass(frozen=True, eq=False)
class Timepoint:
    """One scan of several.

    Attributes
    ----------
    scan : Scan
    segmentation : Segmentation
        In the midpoint's space.
    image : float32 array [x, y, z]
        The scan on the grid of ``segmentation.labels``, intensities in [0, 1] as the network saw them.
    transform : float64 array [4, 4]
        Rigid: world mm of the scan to world mm of the midpoint.
    native : array [x, y, z] or None
        The labels on the scan's own grid, if asked for.
    """

    scan: Scan = field(repr=False)
    segmentation: Segmentation = field(repr=False)
    image: np.ndarray = field(repr=False)
    transform: np.ndarray
    native: np.ndarray | None = field(repr=False, default=None)


@dataclass(frozen=True, eq=False)
class Timeline:
    """The result of :func:`segment_timepoints`.

    Attributes
    ----------
    timepoints : list of Timepoint
        In the order given.
    changes : list of Change
        From the first timepoint to each later one, a row a structure.
    agreement : float64 array [n, n]
        Share of the brain's voxels that two timepoints label alike.
    correlation : float64 array [n, n]
        Of their intensities, in the brain of both.
    provenance : dict
    """

    timepoints: list[Timepoint]
    changes: list[Change]
    agreement: np.ndarray
    correlation: np.ndarray
    provenance: dict = field(repr=False)


def segment_timepoints(
    scans: Sequence[Scan | str | os.PathLike],
    output: str | os.PathLike | None = None,
    *,
    years: Sequence[float] | None = None,
    fast: bool = False,
    ct: bool | None = None,
    device: str = "auto",
    native: bool = False,
    contrast: str = "auto",
    refined: bool = True,
    robust: bool | None = None,
    volumes: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    model: Model | str | os.PathLike | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> Timeline:
    """Segment scans of one head taken at different times, and compare the volumes.

    Every pair is registered, rigidly and both ways; all scans are sampled once, on one grid halfway between them; what
    is decided about a scan (network, smoothing, box around the head) is decided for all together. Files are written at
    the end, all of them or none.

    Parameters
    ----------
    scans : sequence of scan or path
        Two or more, from the first to the last, of one contrast and resolution: what differs in the taking looks like
        change.
    output : path, optional
        Folder, made if necessary. For each timepoint it receives ``N_NAME_synthseg.nii.gz`` (labels),
        ``N_NAME_synthseg_image.nii.gz`` (the scan in the midpoint's space; not with ``native``) and
        ``N_NAME_synthseg.tfm`` (transform to the midpoint), and :data:`RECORD`.
    years : sequence of float, optional
        When each scan was taken, for changes per year.
    fast, ct, device, contrast, refined, robust
        See :func:`.pipeline.segment`.
    native : bool
        Labels on each scan's own grid too, and written instead of those on the common one.
    volumes : path, optional
        Table of changes to write, CSV.
    picture : path, optional
        PNG of slices of the last timepoint, with the voxels that were labelled otherwise at the first one; where
        changes are judged against noise, only those of structures whose change is more.
    model : Model or path, optional
        Weights to use instead of the bundled ones.
    progress : callable, optional
        Called with the stage's name and the fraction of the whole job.
    cancel : CancelToken, optional
        Stops the job between its steps.

    Returns
    -------
    Timeline

    Raises
    ------
    ScanError, OutputError, DeviceError, WeightsError, OptionError, Cancelled
        See :mod:`synthseg_slicer.errors`; nothing was written.
    """
    scans = [scans] if isinstance(scans, (Scan, str, os.PathLike)) else list(scans)
    tables = {kind: Path(path) for kind, path in (("volumes", volumes), ("picture", picture)) if path is not None}
    folder = None if output is None else Path(output)
    _check(scans, tables, contrast, years)
    device = str(resolve_device(device))
    stage = Stages(progress, cancel)
    settings = {"fast": fast, "ct": ct, "native": native, "contrast": contrast, "refined": refined, "robust": robust}
    with _made(folder):
        for kind, path in tables.items():
            check_output(path, (SUFFIXES[kind],))
        timeline = _timeline(scans, model, years, device, stage, **settings)
        with stage("write", 0.97, 1.0):
            _write(timeline, folder, tables)
    stage.report("done", 1.0)
    return timeline


def _timeline(
    scans: list,
    model: Model | str | os.PathLike | None,
    years: Sequence[float] | None,
    device: str,
    stage: Stages,
    *,
    fast: bool,
    ct: bool | None,
    native: bool,
    contrast: str,
    refined: bool,
    robust: bool | None,
) -> Timeline:
    """Do all of :func:`segment_timepoints` but the writing."""
    with caught_warnings() as caught:
        with stage("weights", 0.0, 0.01):
            model = model if isinstance(model, Model) else load_model(path=model)
        with stage("read", 0.01, 0.03):
            given = [scan if isinstance(scan, Scan) else read_scan(scan) for scan in scans]
            order = canonical_order(given)
            back = [order.index(place) for place in range(len(order))]
            scans = [given[place] for place in order]
        aligned = align(scans, model, ct=ct, robust=robust, stage=stage, start=0.03, stop=0.4)
        network, families = _one_network(model, aligned, contrast, device)
        family = next(iter(families)) if len(families) == 1 else ANY
        results = _segment_alike(
            aligned, network, model, fast=fast, refined=refined, device=device, stage=stage, start=0.4, stop=0.92
        )
        with stage("compare", 0.92, 0.97):
            labels = [result.labels for result in results]
            agreement, correlation = comparable.similarity(labels, [one.image for one in aligned.conformed])
            doubts = list(comparable.differences(scans, aligned, families, agreement, correlation))
            any_ct = any(one.is_ct for one in aligned.conformed)
            settings = {"ct": any_ct, "fast": fast, "refined": refined, "smoothed": aligned.smoothed}
            obstacle = comparable.unmeasured(scans, model, family, **settings)
            thresholds = {} if doubts or obstacle else model.rescan.thresholds()
            if obstacle and not doubts:
                doubts.append(f"Changes cannot be judged against the noise from scan to scan: {obstacle}.")
            for message in [*doubts, *comparable.missing_parts(scans, aligned, labels)]:
                python_warnings.warn(message, ScanWarning, stacklevel=2)
            timepoints = [_timepoint(place, scans, aligned, results, native) for place in back]
            compared = changes([one.segmentation.volumes for one in timepoints], network.labels, thresholds, years)
    for warning in caught:
        python_warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if any(issubclass(warning.category, DeviceWarning) for warning in caught):
        device = "cpu"
    options = {
        "task": "brain",
        "timepoints": [scan.name for scan in given],
        "years": None if years is None else list(years),
        "fast": fast,
        "ct": [aligned.conformed[place].is_ct for place in back],
        "ct_requested": ct,
        "native": native,
        "contrast": family,
        "contrast_requested": contrast,
        "refined": refined,
        "robust": aligned.smoothed,
        "robust_requested": robust,
        "smoothing_voxels": SMOOTHING,
        "voxel_size_mm": model.voxel_size,
        "ct_window_hu": list(model.ct_window),
    }
    told = (str(warning.message) for warning in caught if issubclass(warning.category, UserWarning))
    warnings = list(dict.fromkeys(told))  # both registrations of a pair may say the same
    for one in timepoints:
        record = records.describe(one.scan, network, device, options, stage.seconds, warnings)
        one.segmentation.provenance.update(record | {"quality": one.segmentation.verdict.scan})
    agreement, correlation = (matrix[np.ix_(back, back)] for matrix in (agreement, correlation))
    closures = {tuple(sorted(order[place] for place in pair)): gap for pair, gap in aligned.closures.items()}
    pairs = [
        {
            "timepoints": [i + 1, j + 1],
            "agreement": round(float(agreement[i, j]), 4),
            "correlation": round(float(correlation[i, j]), 4),
            "registrations_differ_mm": round(gap, 3),
        }
        for (i, j), gap in sorted(closures.items())
    ]
    record = _record(timepoints) | {"pairs": pairs}
    return Timeline(timepoints, compared, agreement, correlation, record)


def _check(scans: list, tables: dict[str, Path], contrast: str, years: Sequence[float] | None) -> None:
    """Refuse what cannot work, before any work."""
    if len(scans) < 2:
        raise OptionError(f"There is {'one timepoint' if scans else 'no timepoint'}. Give two scans or more.")
    if contrast not in ("auto", ANY):
        raise OptionError(f"The contrast is '{contrast}'; choose auto or {ANY}.")
    check_years(years, len(scans))
    taken = {}
    for what, path in [("a scan", scan) for scan in scans if not isinstance(scan, Scan)] + list(tables.items()):
        path = Path(path).absolute()
        if path in taken:
            raise OptionError(f"{path}: this file is given twice, as {taken[path]} and as {what}. Give each its own.")
        taken[path] = what


@contextmanager
def _made(folder: Path | None) -> Iterator[None]:
    """Make a folder for the outputs if there is none; one that was made is removed again where nothing came into it."""
    made = folder is not None and not folder.exists()
    if folder is not None:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file. Several timepoints are written into a folder: name one.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: the folder cannot be made ({error.strerror}). Choose another one.") from error
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{folder}: the folder is not writable. Choose another one.")
    try:
        yield
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _one_network(model: Model, aligned: Aligned, contrast: str, device: str) -> tuple[Model, set[str]]:
    """Return the network for all scans, the expert if all are of its family, and the families that were recognised."""
    if contrast == ANY:
        return model, {ANY}
    found = {}
    for one in aligned.conformed:
        expert, family = expert_for(model, one.image[aligned.crop], one.is_ct, device)
        found[family] = expert
    return (next(iter(found.values())) if len(found) == 1 else model), set(found)


def _segment_alike(
    aligned: Aligned,
    network: Model,
    model: Model,
    *,
    fast: bool,
    refined: bool,
    device: str,
    stage: Stages,
    start: float,
    stop: float,
) -> list[Segmentation]:
    """Segment all scans with one network in one box; ``model`` holds the calibration."""
    number, results = len(aligned.conformed), []
    voxel_volume = model.voxel_size**3
    for place, one in enumerate(aligned.conformed):
        begin, end = (start + (stop - start) * (place + more) / number for more in (0.0, 1.0))
        suffix = f" {place + 1} of {number}"
        middle = end - (end - begin) / 10
        asked = {"fast": fast, "refined": refined, "device": device, "stage": stage, "suffix": suffix}
        top = posteriors_of(network, one.image, aligned.crop, start=begin, stop=middle, **asked)
        with stage(f"clean up{suffix}", middle, end):
            top = clean_up(top, network.topology)
            measured = measure.volumes(top, voxel_volume)
            verdict = quality.judge(top, voxel_volume, network.names, model.calibration)
            labels, intracranial = label_map(top), measure.total_intracranial(measured)
            name = one.source.name
            if not labels.any():
                python_warnings.warn(f"{name}: {sanity.nothing_segmented(network.labels)}", stacklevel=3)
            for message in verdict.warnings + sanity.size_findings(measured):
                python_warnings.warn(f"{name}: {message}", stacklevel=3)
        affine = aligned.space.affine
        results.append(Segmentation(labels, affine, measured, verdict, network.labels, intracranial, {}, top))
    return results


def _timepoint(place: int, scans: list[Scan], aligned: Aligned, results: list[Segmentation], native: bool) -> Timepoint:
    scan, result, transform = scans[place], results[place], aligned.space.transforms[place]
    labels = None
    if native:
        to_index = np.linalg.inv(result.affine) @ transform @ scan.affine
        labels = labels_on_grid(result.top, to_index, scan.shape)
    return Timepoint(scan, result, aligned.conformed[place].image, transform, labels)


def _record(timepoints: list[Timepoint]) -> dict:
    """Return the record of all timepoints: what they share, and what each has of its own."""
    shared = dict(timepoints[0].segmentation.provenance)
    for key in ("input", "quality", "citation"):
        shared.pop(key)
    each = [
        {key: one.segmentation.provenance[key] for key in ("input", "quality")}
        | {"to_midpoint": one.transform.tolist()}
        for one in timepoints
    ]
    return shared | {"timepoints": each, "citations": [records.CITATION, CITATION]}


def _write(timeline: Timeline, folder: Path | None, tables: dict[str, Path]) -> None:
    """Write all outputs under temporary names, then rename them all."""
    with ExitStack() as stack:
        written = {kind: str(path.absolute()) for kind, path in tables.items()}
        if "volumes" in tables:
            write_changes_csv(stack.enter_context(atomic(tables["volumes"])), timeline.changes)
        if "picture" in tables:
            _write_picture(stack.enter_context(atomic(tables["picture"])), timeline)
        for number, one in enumerate(timeline.timepoints if folder is not None else [], 1):
            written |= _write_timepoint(one, number, folder, stack)
        if written:
            beside = records.path_beside(next(iter(tables.values()))) if folder is None else folder / RECORD
            records.write(stack.enter_context(atomic(beside)), {**timeline.provenance, "outputs": written})


def _write_timepoint(one: Timepoint, number: int, folder: Path, stack: ExitStack) -> dict[str, str]:
    """Write one timepoint's labels, image and transform; return what they are and where."""
    source = Path(one.scan.path or one.scan.name)
    labels = output_names([source], folder)[source]
    labels = labels.with_name(f"{number}_{labels.name}")
    stem = labels.name.removesuffix(".nii.gz")
    native = one.native is not None
    shown = (one.native, one.scan.affine) if native else (one.segmentation.labels, one.segmentation.affine)
    write_volume(stack.enter_context(atomic(labels)), *shown)
    paths = {"labels": labels, "transform": folder / f"{stem}.tfm"}
    write_transform(stack.enter_context(atomic(paths["transform"])), one.transform)
    if not native:
        paths["image"] = folder / f"{stem}_image.nii.gz"
        write_volume(stack.enter_context(atomic(paths["image"])), one.image, one.segmentation.affine)
    return {f"{number} {what}": str(path.absolute()) for what, path in paths.items()}


def _write_picture(path: Path, timeline: Timeline) -> None:
    """Paint on the last timepoint what was labelled otherwise at the first; all of it, or that of real changes."""
    first, last = (timeline.timepoints[place] for place in (0, -1))
    before, after = first.segmentation.labels, last.segmentation.labels
    rows = [row for row in timeline.changes if row.later == len(timeline.timepoints)]
    changed = before != after
    if any(row.verdict for row in rows):
        real = [row.label for row in rows if row.verdict in (INCREASE, DECREASE) and row.label is not None]
        changed &= np.isin(before, real) | np.isin(after, real)
    was_tissue, is_tissue = (~np.isin(labels, (0, *NOT_TISSUE)) for labels in (before, after))
    kind = np.select([was_tissue & ~is_tissue, is_tissue & ~was_tissue], [LOST, GAINED], RELABELLED)
    labels = np.where(changed, kind, 0).astype(np.int16)
    region = (before > 0) | (after > 0)
    overlay_picture(
        path, last.image, labels, last.segmentation.affine, opacity=0.9, colors=CHANGE_COLORS, region=region
    )
