"""A PNG sheet of one subject in the four sequences over a grid of their times, to judge the physics by eye."""

from __future__ import annotations

from pathlib import Path

from synthseg_slicer.errors import OptionError
from synthseg_slicer.files import atomic

from .maps import QuantitativeMaps
from .sequences import FLAIR, FSE, GRE, MPRAGE, Sequence


def _grids() -> dict[str, list[list[Sequence]]]:
    """Return the rows of each sequence's block."""
    echoes = (0.012, 0.05, 0.1, 0.2)
    return {
        "FSE": [[FSE(tr, te) for te in echoes] for tr in (0.5, 2.0, 6.0)],
        "GRE, 20 degrees": [[GRE(tr, te, 20) for te in (0.003, 0.01, 0.02, 0.04)] for tr in (0.05, 0.2, 0.8)],
        "FLAIR, TR 9 s": [[FLAIR(9, te, ti) for te in echoes] for ti in (1.5, 2.5, 3.5)],
        "MPRAGE, 9 degrees": [[MPRAGE(tr, ti) for ti in (0.6, 0.8, 0.95, 1.1)] for tr in (1.9, 2.3, 2.7)],
    }


def contrast_sheet(maps: QuantitativeMaps, path: str | Path, *, axis: int = 2, index: int | None = None) -> None:
    """Write one slice in FSE, GRE, FLAIR and MPRAGE over a grid of TR, TE and TI, without noise.

    Each picture is scaled from 0 to its 99.5th percentile, as a viewer would.

    Parameters
    ----------
    maps : QuantitativeMaps
        Maps of one subject, in RAS+ order for the usual orientation.
    path : path-like
        The PNG to write.
    axis : int
        Axis across the slice: 0 sagittal, 1 coronal, 2 axial.
    index : int, optional
        Of the slice; the middle one by default.

    Raises
    ------
    OptionError
        There is no such slice.
    OutputError
        The file cannot be written.
    """
    from matplotlib.figure import Figure

    if axis not in (0, 1, 2) or (index is not None and not 0 <= index < maps.shape[axis]):
        raise OptionError(f"There is no slice {index} along axis {axis} of maps of size {list(maps.shape)}.")
    index = maps.shape[axis] // 2 if index is None else index
    stacked = maps.stack().narrow(1 + axis, index, 1).float().cpu()
    maps = QuantitativeMaps.unstack(stacked, check=False)
    figure = Figure(figsize=(16, 13.5), facecolor="black", layout="constrained")
    blocks = figure.subfigures(2, 2)
    for block, (title, rows) in zip(blocks.flat, _grids().items()):
        block.set_facecolor("black")
        block.suptitle(title, color="white", fontsize=12)
        for all_axes, sequences in zip(block.subplots(len(rows), len(rows[0])), rows):
            for axes, sequence in zip(all_axes, sequences):
                image = sequence.signal(maps).select(axis, 0)
                top = max(float(image.flatten().quantile(0.995)), 1e-6)
                axes.imshow(image.T.numpy(), cmap="gray", vmin=0, vmax=top, origin="lower")
                axes.set_axis_off()
                axes.set_title(_caption(sequence), color="white", fontsize=8)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=100)


def _caption(sequence: Sequence) -> str:
    times = {"TR": sequence.tr, "TE": sequence.te, "TI": getattr(sequence, "ti", None)}
    return ", ".join(f"{name} {time * 1e3:.0f}" for name, time in times.items() if time is not None) + " ms"
