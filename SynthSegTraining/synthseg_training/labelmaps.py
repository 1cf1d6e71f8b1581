"""Training label maps: read once, oriented, cropped and packed into one small file that loads in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from synthseg_slicer.errors import OptionError, ScanError
from synthseg_slicer.files import atomic

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")

ISOTROPY_TOLERANCE = 0.05
"""Relative spread of the voxel sizes of one map, and between maps, that still counts as the same isotropic grid."""


@dataclass(frozen=True)
class LabelMapSet:
    """Label maps that share one list of labels.

    Attributes
    ----------
    maps : list of torch.Tensor
        uint8 ``[x, y, z]`` in RAS+ order; values index :attr:`labels`, 0 is background. The outermost layer of every
        map is background.
    labels : tuple of int
        All labels of all maps in ascending order, background (0) first.
    names : list of str
        One name a map: its file name without suffix.
    voxel_size : float
        Isotropic voxel size in mm.
    source, licence : str
        Where the maps come from and under which terms; carried on into the model card of whatever is trained on them.
    """

    maps: list[Tensor]
    labels: tuple[int, ...]
    names: list[str]
    voxel_size: float = 1.0
    source: str = ""
    licence: str = ""

    def __len__(self) -> int:
        return len(self.maps)

    @classmethod
    def load(cls, path: str | Path) -> LabelMapSet:
        """Read a cache written by :func:`prepare`.

        Raises
        ------
        ScanError
            The file is missing or is no such cache.
        """
        try:
            with np.load(path, allow_pickle=False) as cache:
                names = [str(name) for name in cache["names"]]
                return cls(
                    maps=[torch.from_numpy(cache[f"map_{index}"]) for index in range(len(names))],
                    labels=tuple(int(label) for label in cache["labels"]),
                    names=names,
                    voxel_size=float(cache["voxel_size"]),
                    source=str(cache["source"]),
                    licence=str(cache["licence"]),
                )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            message = f"{path} is no label-map cache ({error}). Write one with 'synthseg-train prepare'."
            raise ScanError(message) from error

    def save(self, path: str | Path) -> None:
        """Write one compressed ``.npz``; the file appears complete or not at all.

        Raises
        ------
        OutputError
            The folder does not exist or cannot be written.
        """
        with atomic(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(
                file,
                names=np.array(self.names),
                labels=np.array(self.labels, np.int32),
                voxel_size=np.float64(self.voxel_size),
                source=np.array(self.source),
                licence=np.array(self.licence),
                **{f"map_{index}": label_map.cpu().numpy() for index, label_map in enumerate(self.maps)},
            )

    def subset(self, which: Sequence[int | str]) -> LabelMapSet:
        """Return the maps with these names or indices, in this order; the labels stay those of the whole set."""
        try:
            indices = [self.names.index(item) if isinstance(item, str) else range(len(self))[item] for item in which]
        except (ValueError, IndexError) as error:
            raise OptionError(f"No such label map in {list(which)}; there are {self.names}.") from error
        return replace(self, maps=[self.maps[i] for i in indices], names=[self.names[i] for i in indices])

    def to(self, device: str | torch.device) -> LabelMapSet:
        """Return the set with all maps on ``device``."""
        return replace(self, maps=[label_map.to(device) for label_map in self.maps])


def prepare(folder: str | Path, out: str | Path, *, source: str = "", licence: str = "") -> LabelMapSet:
    """Pack a folder of label maps (NIfTI or MGZ) into one cache.

    Each map is brought to RAS order by axis permutation and flips, cropped to the head with a background layer one
    voxel thick around it, and stored as uint8 indices into the common list of labels.

    Parameters
    ----------
    folder : path
        Folder with the label maps; every volume in it is used, in the order of the names.
    out : path
        The ``.npz`` to write.
    source, licence : str
        Kept in the cache, see :class:`LabelMapSet`.

    Returns
    -------
    LabelMapSet
        What was written.

    Raises
    ------
    ScanError
        No maps, an unreadable one, voxels that are not isotropic or differ between maps, values that are not whole
        numbers >= 0, no label but background, or more than 256 labels in all.
    OutputError
        The cache cannot be written.
    """
    paths = sorted(path for path in Path(folder).glob("*") if path.name.endswith(SUFFIXES))
    if not paths:
        raise ScanError(f"No label maps ({', '.join(SUFFIXES)}) in {folder}.")
    volumes, voxel_sizes = zip(*(_read(path) for path in paths))
    if max(voxel_sizes) > (1 + ISOTROPY_TOLERANCE) * min(voxel_sizes):
        raise ScanError(f"The maps in {folder} differ in voxel size ({min(voxel_sizes):g}-{max(voxel_sizes):g} mm).")
    result = pack(
        volumes,
        [_stem(path) for path in paths],
        round(float(np.median(voxel_sizes)), 3),
        where=str(folder),
        source=source,
        licence=licence,
    )
    result.save(out)
    return result


def pack(
    volumes: Sequence[np.ndarray],
    names: Sequence[str],
    voxel_size: float,
    *,
    where: str,
    source: str = "",
    licence: str = "",
) -> LabelMapSet:
    """Make a set of label maps in memory.

    Parameters
    ----------
    volumes : sequence of numpy.ndarray
        Integers >= 0, ``[x, y, z]`` in RAS+ order, the outermost layer background.
    names : sequence of str
        One a map.
    voxel_size : float
        In mm.
    where : str
        Where the maps come from, for the error message.
    source, licence : str
        See :class:`LabelMapSet`.

    Raises
    ------
    ScanError
        There are more than 256 labels in all.
    """
    labels = np.unique(np.concatenate([[0], *(np.unique(volume) for volume in volumes)]))
    if len(labels) > 256:
        raise ScanError(f"{len(labels)} labels in {where}; at most 256 are supported. Are these label maps?")
    index_of = np.zeros(labels[-1] + 1, np.uint8)
    index_of[labels] = np.arange(len(labels))
    return LabelMapSet(
        maps=[torch.from_numpy(index_of[volume]) for volume in volumes],
        labels=tuple(int(label) for label in labels),
        names=list(names),
        voxel_size=voxel_size,
        source=source,
        licence=licence,
    )


def _read(path: Path) -> tuple[np.ndarray, float]:
    """Return the labels, cropped to the head with one layer of background, and the voxel size in mm."""
    import nibabel as nib  # not needed to train from a cache on a bare machine
    from nibabel.filebasedimages import ImageFileError

    try:
        image = nib.as_closest_canonical(nib.load(path))
        values = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise ScanError(f"Cannot read the label map {path}: {error}.") from error
    sizes = np.array(image.header.get_zooms()[:3], float)
    if values.ndim != 3 or sizes.max() > (1 + ISOTROPY_TOLERANCE) * sizes.min():
        raise ScanError(f"{path} has shape {values.shape} and voxels of {sizes} mm; isotropic 3D maps are needed.")
    volume = np.rint(values).astype(np.int32)
    if not np.array_equal(volume, values) or volume.min() < 0:
        raise ScanError(f"{path} is no label map: it holds values that are not whole numbers >= 0.")
    if not volume.any():
        raise ScanError(f"{path} holds background only.")
    head = []
    for axis in range(3):
        inside = np.flatnonzero(volume.any(axis=tuple({0, 1, 2} - {axis})))
        head.append(slice(inside[0], inside[-1] + 1))
    return np.pad(volume[tuple(head)], 1), float(sizes.mean())


def _stem(path: Path) -> str:
    return next(path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.endswith(suffix))
