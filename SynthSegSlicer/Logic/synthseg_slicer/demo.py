"""A first segmentation with nothing of one's own: the MNI152 template that the nilearn package carries."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .errors import OptionError, OutputError
from .files import atomic
from .pipeline import Segmentation, segment
from .stages import Progress
from .weights import load_model


def run_demo(folder: str | Path, *, device: str = "auto", progress: Progress | None = None) -> Segmentation:
    """Write the template, its labels, volumes and an overlay picture into a folder, made if necessary.

    Parameters
    ----------
    folder : path
        Gets ``mni152.nii.gz`` (the T1 template at 1 mm: the average of 152 skull-stripped heads),
        ``mni152_synthseg.nii.gz``, ``.json``, ``.csv`` and ``.png``.
    device : str
        See :func:`synthseg_slicer.segment`.
    progress : callable, optional
        See :func:`synthseg_slicer.segment`.

    Raises
    ------
    OptionError
        nilearn is not installed.
    WeightsError
        The bundled weights are missing.
    OutputError
        The folder cannot be written.
    """
    try:
        from nilearn.datasets import load_mni152_template
    except ImportError as error:
        raise OptionError(
            "The demo needs the nilearn package, which carries the scan: pip install synthseg-slicer[demo]"
        ) from error
    model = load_model()
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as scratch:
        template = Path(scratch) / "mni152.nii.gz"
        load_mni152_template(resolution=1).to_filename(template)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: the folder cannot be made ({error.strerror}). Choose another one.") from error
        scan = folder / template.name
        with atomic(scan) as temporary:
            temporary.write_bytes(template.read_bytes())
    stem = folder / "mni152_synthseg"
    return segment(
        scan,
        stem.with_suffix(".nii.gz"),
        volumes=stem.with_suffix(".csv"),
        picture=stem.with_suffix(".png"),
        device=device,
        model=model,
        progress=progress,
    )
