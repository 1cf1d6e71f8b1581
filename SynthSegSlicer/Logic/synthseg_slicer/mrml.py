"""Slicer's nodes to :class:`.scan.Scan`, and results back to nodes; the only file here that imports ``slicer``.

Works in the Slicer application and with the package slicer-core alone. A *result* is anything with ``labels``,
``affine``, ``rows`` and ``provenance``: :class:`.pipeline.Segmentation` or :class:`.job.Result`. A *result of lesions*
has ``lesions``, ``loads`` and ``anatomy`` in place of rows: :class:`.stroke.LesionSegmentation` or
:class:`.job.LesionResult`.

The network must see a head upright. Where a volume lies under a linear parent transform, scans are therefore handed out
turned by the orthogonal part of that transform (:func:`upright`), and results are turned back into the volume's own
coordinates and put under the same transform. Nodes made here can be undone where the scene has undo switched on.
"""

from __future__ import annotations

import colorsys
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from .errors import ScanError
from .files import atomic, suffix_of
from .geometry import orthogonal_part, right_handed
from .labels import BRAIN, LESION_ID, STROKE
from .scan import READ_SUFFIXES, Scan
from .table import Column, columns, lesion_columns, load_columns
from .terminology import entry

ATTRIBUTE = "SynthSegSlicer."
"""Prefix of the node attributes that hold a result's provenance."""

FILL_OPACITY, OUTLINE_OPACITY = 0.4, 0.8
"""In slices: the scan stays visible under the structures."""
SMOOTHING = "0.5"
"""Slicer's default: removes the steps of 1 mm voxels, keeps the small nuclei."""
CSF = 24
"""Its surface would hide the brain."""
LESION_FILL = 0.7
FAINT_FILL, FAINT_OUTLINE, FAINT_SURFACE = 0.05, 0.4, 0.1
"""Opacities of the anatomy around lesions, which are to be seen through it."""
LESION = "Lesion"
"""Name of the segment that holds all lesions."""

_LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
_SURFACE = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
_COLORS = {label.id: tuple(channel / 255 for channel in label.color) for label in (*STROKE, *BRAIN)}


class LesionNodes(NamedTuple):
    """The nodes that hold a result of lesions.

    Attributes
    ----------
    segmentation : vtkMRMLSegmentationNode
        With one segment, which holds all lesions.
    table : vtkMRMLTableNode
        A row a lesion.
    anatomy : vtkMRMLSegmentationNode or None
    loads : vtkMRMLTableNode or None
        A row a structure; how much of it is lesion.
    probability : vtkMRMLScalarVolumeNode or None
        Of lesion, 0 to 1.
    """

    segmentation: Any
    table: Any
    anatomy: Any = None
    loads: Any = None
    probability: Any = None


def upright(node) -> np.ndarray:
    """Return the orthogonal part of a node's linear parent transform, float64 [4, 4]; the identity without one.

    Transforms that are not linear are ignored.
    """
    return orthogonal_part(_to_world(node))


def _to_world(node) -> np.ndarray:
    parent = node.GetParentTransformNode()
    if parent is None or not parent.IsTransformToWorldLinear():
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def scan_from_node(volume_node, *, rotation: np.ndarray | None = None, name: str | None = None) -> Scan:
    """Return the scan that a volume node holds.

    Parameters
    ----------
    volume_node : vtkMRMLScalarVolumeNode
        Scalar volume or label map, with or without a parent transform.
    rotation : array [4, 4], optional
        Orthogonal matrix to turn the scan by; :func:`upright` of the node by default.
    name : str, optional
        What messages call it; the node's name by default.

    Returns
    -------
    Scan
        Its voxels may be the node's own memory, not a copy. Its path is the file that the node was read from, unless
        the node was changed since.

    Raises
    ------
    ScanError
        The node is empty, holds several values a voxel, or what it holds is no scan of a head.
    """
    name = name or volume_node.GetName() or "volume"
    image = volume_node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise ScanError(f"{name}: the volume is empty. Load the scan again.")
    components = image.GetNumberOfScalarComponents()
    if components != 1:
        raise ScanError(
            f"{name}: the volume holds {components} values a voxel (colour, vectors or frames), not one scan. Take one "
            "component out (module 'Vector to Scalar Volume'), or load frames as a sequence."
        )
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    rotation = upright(volume_node) if rotation is None else rotation
    affine = rotation @ slicer.util.arrayFromVTKMatrix(matrix)
    data = slicer.util.arrayFromVolume(volume_node).transpose(2, 1, 0)
    return Scan(data, affine, _file_of(volume_node), name=name)


def scans_of_head(volume_nodes: Sequence) -> list[Scan]:
    """Return the scans that the volume nodes of one head hold, where they lie relative to the first.

    As :func:`scan_from_node`, but of the others the whole linear parent transforms count, translations included: they
    may be registrations to the first.

    Raises
    ------
    ScanError
        One of them is no scan of a head, or its transform shears it.
    """
    first = volume_nodes[0]
    world_to_scan = upright(first) @ np.linalg.inv(_to_world(first))
    others = [scan_from_node(node, rotation=world_to_scan @ _to_world(node)) for node in volume_nodes[1:]]
    return [scan_from_node(first), *others]


def write_segmentation(result, volume_node, segmentation_node=None, *, surfaces=False, rotation=None, name=None):
    """Write a result's labels into a segmentation node.

    All segments share one label image of FreeSurfer ids. Only labels that occur become segments; of a result of lesions
    there is always one, which is empty if there are none, for the user to draw in.

    Parameters
    ----------
    result : Segmentation, Result, LesionSegmentation or LesionResult
        Of the scan that :func:`scan_from_node` gave.
    volume_node : vtkMRMLScalarVolumeNode
        The scan; becomes the reference volume. The grid is that of the labels, so that no save resamples them.
    segmentation_node : vtkMRMLSegmentationNode, optional
        Node to fill: its segments go, its name and display settings stay. A new one by default.
    surfaces : bool
        Whether to make closed surfaces for the 3D views. Always done where the given node has them.
    rotation : array [4, 4], optional
        What the scan was turned by; :func:`upright` of the volume by default. Give it where the transform may have
        changed since.
    name : str, optional
        Of a new node.

    Returns
    -------
    vtkMRMLSegmentationNode
    """
    name = name or f"{volume_node.GetName()} {'lesions' if _is_of_lesions(result) else 'segmentation'}"
    node = segmentation_node or _add(volume_node.GetScene(), "vtkMRMLSegmentationNode", name)
    with slicer.util.NodeModify(node):
        _fill(node, result, upright(volume_node) if rotation is None else rotation, surfaces)
        _attach(node, volume_node)
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
            _style(node.GetDisplayNode())
        _show_all_but_csf(node)
    return node


def write_table(result, table_node=None, *, name: str = "Volumes", scene=None):
    """Write a result's measures into a table node, with the columns of :mod:`.table`.

    Parameters
    ----------
    result : Segmentation or Result
        Its rows are written.
    table_node : vtkMRMLTableNode, optional
        Node whose content is replaced; its name stays. A new one by default.
    name : str
        Name of a new node.
    scene : vtkMRMLScene, optional
        Where a new node goes; the application's scene by default.

    Returns
    -------
    vtkMRMLTableNode
    """
    node = table_node or _add(scene or slicer.mrmlScene, "vtkMRMLTableNode", name)
    return _tabulate(node, columns(result.rows), result.provenance)


def write_lesions(
    result, volume_node, segmentation_node=None, table_node=None, *, surfaces=False, probability=False, rotation=None
) -> LesionNodes:
    """Write a result of lesions: segmentation and table of the lesions, anatomy and table of loads if it has them.

    The segmentation refers to the other nodes (:func:`lesion_nodes`). Where it is filled anew, so are they; a table of
    loads or a probability map that the new result lacks is removed.

    Parameters
    ----------
    result : LesionSegmentation or LesionResult
        Of the scans that :func:`scans_of_head` gave.
    volume_node : vtkMRMLScalarVolumeNode
        The first scan.
    segmentation_node : vtkMRMLSegmentationNode, optional
        Receives the lesions; a new one by default.
    table_node : vtkMRMLTableNode, optional
        Receives a row a lesion; a new one by default.
    surfaces : bool
        Whether to make closed surfaces for the 3D views.
    probability : bool
        Whether to write the probability of lesion as a volume.
    rotation : array [4, 4], optional
        What the first scan was turned by; :func:`upright` of the volume by default.

    Returns
    -------
    LesionNodes
    """
    scene, name = volume_node.GetScene(), volume_node.GetName()
    options = {"surfaces": surfaces, "rotation": upright(volume_node) if rotation is None else rotation}
    old = lesion_nodes(segmentation_node) if segmentation_node else LesionNodes(None, None)
    segmentation = write_segmentation(result, volume_node, segmentation_node, **options)
    if not segmentation_node:
        segmentation.GetDisplayNode().SetOpacity2DFill(LESION_FILL)
    table = table_node or _add(scene, "vtkMRMLTableNode", f"{name} lesion table")
    _tabulate(table, lesion_columns(result.lesions), result.provenance)
    anatomy = loads = soft = None
    if result.anatomy is not None:
        anatomy = write_segmentation(result.anatomy, volume_node, old.anatomy, name=f"{name} anatomy", **options)
        if not old.anatomy:
            display = anatomy.GetDisplayNode()
            display.SetOpacity2DFill(FAINT_FILL)
            display.SetOpacity2DOutline(FAINT_OUTLINE)
            display.SetOpacity3D(FAINT_SURFACE)
        loads = old.loads or _add(scene, "vtkMRMLTableNode", f"{name} lesion loads")
        _tabulate(loads, load_columns(result.loads), result.provenance)
    if probability:
        soft = old.probability or _add(scene, "vtkMRMLScalarVolumeNode", f"{name} lesion probability")
        _fill_volume(soft, result.probability, options["rotation"].T @ result.affine)
        soft.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
        _record(soft, result.provenance)
    nodes = LesionNodes(segmentation, table, anatomy, loads, soft)
    for role, node in nodes._asdict().items():
        if role != "segmentation":
            segmentation.SetNodeReferenceID(_role(role), node.GetID() if node else None)
    for stale in {old.loads, old.probability} - {None, loads, soft}:
        scene.RemoveNode(stale)
    return nodes


def lesion_nodes(segmentation_node) -> LesionNodes:
    """Return a segmentation of lesions and what it refers to."""
    roles = LesionNodes._fields[1:]
    return LesionNodes(segmentation_node, *(segmentation_node.GetNodeReference(_role(role)) for role in roles))


def file_under_study(volume_node, *nodes) -> None:
    """Put nodes beside a volume in the subject hierarchy: under the patient's study, or the folder that it is in."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume_node.GetScene())
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(volume_node)) if hierarchy else 0
    if not parent:
        return
    for node in nodes:
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node), parent)


def frames_of(sequence_node) -> list[tuple[str, Scan]]:
    """Return the index value and the scan of each frame of a sequence of volumes.

    A parent transform is that of the volume which shows the sequence in the scene.

    Raises
    ------
    ScanError
        The sequence is empty, or a frame is no volume or no scan of a head.
    """
    name, rotation = sequence_node.GetName(), _sequence_rotation(sequence_node)
    count = sequence_node.GetNumberOfDataNodes()
    if not count:
        raise ScanError(f"{name}: the sequence is empty. Load it again.")
    frames = []
    for number in range(count):
        index, node = sequence_node.GetNthIndexValue(number), sequence_node.GetNthDataNode(number)
        frame = f"{name} [{sequence_node.GetIndexName()} {index} {sequence_node.GetIndexUnit()}]"
        if not node.IsA("vtkMRMLScalarVolumeNode"):
            raise ScanError(f"{frame}: is no volume. Choose a sequence of volumes.")
        frames.append((index, scan_from_node(node, rotation=rotation, name=frame)))
    return frames


def write_sequence(results: Sequence, sequence_node, *, surfaces=False, rotation=None):
    """Write one result a frame, and let a sequence browser play them together with the scans.

    Parameters
    ----------
    results : sequence of Segmentation or Result
        In the order of :func:`frames_of`.
    sequence_node : vtkMRMLSequenceNode
        The scans; its index values, name and unit are taken over.
    surfaces : bool
        Whether to make closed surfaces for the 3D views.
    rotation : array [4, 4], optional
        What the frames were turned by; by default that of now.

    Returns
    -------
    segmentations, tables : vtkMRMLSequenceNode
    browser : vtkMRMLSequenceBrowserNode
        The one that plays the scans already, or a new one.

    Raises
    ------
    ValueError
        Not as many results as frames.
    """
    if len(results) != sequence_node.GetNumberOfDataNodes():
        raise ValueError(f"{len(results)} results for {sequence_node.GetNumberOfDataNodes()} frames")
    scene, name = sequence_node.GetScene(), sequence_node.GetName()
    before = _nodes(scene)
    rotation = _sequence_rotation(sequence_node) if rotation is None else rotation
    segmentations, tables = (
        _add(scene, "vtkMRMLSequenceNode", f"{name} {kind}") for kind in ("segmentation", "volumes")
    )
    for number, result in enumerate(results):
        index, segmentation = sequence_node.GetNthIndexValue(number), slicer.vtkMRMLSegmentationNode()
        _fill(segmentation, result, rotation, surfaces)
        segmentations.SetDataNodeAtValue(segmentation, index)
        tables.SetDataNodeAtValue(write_table(result, slicer.vtkMRMLTableNode()), index)
    logic = _sequences_logic(scene)
    browser = logic.GetFirstBrowserNodeForSequenceNode(sequence_node)
    if browser is None:
        browser = _add(scene, "vtkMRMLSequenceBrowserNode", f"{name} browser")
        browser.AddSynchronizedSequenceNode(sequence_node)
    for sequence in (segmentations, tables):
        sequence.SetIndexName(sequence_node.GetIndexName())
        sequence.SetIndexUnit(sequence_node.GetIndexUnit())
        sequence.SetIndexType(sequence_node.GetIndexType())
        browser.AddSynchronizedSequenceNode(sequence)
    logic.UpdateProxyNodesFromSequences(browser)
    segmentation = browser.GetProxyNode(segmentations)
    _attach(segmentation, browser.GetProxyNode(sequence_node))
    _style(segmentation.GetDisplayNode())
    _show_all_but_csf(segmentation)
    for node in _nodes(scene) - before:  # also those that the browser made to show the frames
        node.SetUndoEnabled(True)
    return segmentations, tables, browser


def save_scene(result, scan: Scan, path: str | os.PathLike, *, name: str | None = None) -> None:
    """Write a Slicer scene bundle (.mrb) with scan, segmentations and tables, whole or not at all.

    Needs no Slicer application and no display. Opened in Slicer, the slice views show the scan.

    Parameters
    ----------
    result : Segmentation or Result
        Of this scan.
    scan : Scan
        The scan.
    path : path
        Target, replaced if it exists.
    name : str, optional
        Of the scene, if it is not to be the file's.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    path = Path(path).absolute()
    with _own_scene(result, scan) as (scene, volume, messages), atomic(path) as temporary:
        _show_in_slices(scene, volume)
        if _is_of_lesions(result):
            write_lesions(result, volume, scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))
        else:
            write_table(result, name=f"{volume.GetName()} volumes", scene=scene)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".", ignore_cleanup_errors=True) as folder:
            bundle = Path(folder) / f"{name or path.stem}.mrb"  # the writer names the scene inside after the file
            if not scene.WriteToMRB(str(bundle)) or not _is_complete(bundle, scene):
                raise OSError(messages() or "the scene is incomplete")
            os.replace(bundle, temporary)


def save_seg_nrrd(result, scan: Scan, path: str | os.PathLike) -> None:
    """Write a Slicer segmentation file (.seg.nrrd), whole or not at all; needs no Slicer application.

    Its voxels are FreeSurfer ids; names, colours and terminology are in its header.

    Parameters
    ----------
    result : Segmentation or Result
        Of this scan.
    scan : Scan
        The scan.
    path : path
        Target, replaced if it exists.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    with _own_scene(result, scan) as (scene, _, messages), atomic(path) as temporary:
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(temporary))
        if not storage.WriteData(scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")):
            raise OSError(messages() or "Slicer's writer failed")
        sitk.ReadImage(str(temporary))  # writers do not report that the last flush failed


#
# Contents of nodes
#


def _fill(node, result, rotation: np.ndarray, surfaces: bool) -> None:
    """Replace what a segmentation node holds, in the coordinates from before ``rotation``."""
    segmentation = node.GetSegmentation()
    surfaces = surfaces or segmentation.ContainsRepresentation(_SURFACE)
    segmentation.RemoveAllSegments()
    segmentation.SetSourceRepresentationName(_LABELMAP)
    image = _label_image(*right_handed(result.labels, rotation.T @ result.affine))
    for label, name in _names(result).items():
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetColor(*_color(label))
        segment.SetNameAutoGenerated(False)
        segment.SetColorAutoGenerated(False)
        segment.SetTag(segment.GetTerminologyEntryTagName(), entry(label))
        segment.SetLabelValue(label)
        segment.AddRepresentation(_LABELMAP, image)
        segmentation.AddSegment(segment, _segment_id(label))
    # Slicer saves, and edits, on the grid named here. The scan's would be coarser than 1 mm labels of thick slices.
    converter = slicer.vtkSegmentationConverter
    geometry = converter.SerializeImageGeometry(image)
    segmentation.SetConversionParameter(converter.GetReferenceImageGeometryParameterName(), geometry)
    if surfaces:
        rule = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule
        segmentation.SetConversionParameter(rule.GetSmoothingFactorParameterName(), SMOOTHING)
        node.CreateClosedSurfaceRepresentation()
    _record(node, result.provenance)


def _is_of_lesions(result) -> bool:
    return hasattr(result, "lesions")


def _names(result) -> dict[int, str]:
    """Return label id to name of what becomes a segment."""
    if _is_of_lesions(result):
        return {LESION_ID: LESION}
    names = {row.label: row.name for row in result.rows}
    return {label: names.get(label, f"Label {label}") for label in map(int, np.unique(result.labels)) if label}


def _fill_volume(node, data: np.ndarray, affine: np.ndarray) -> None:
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(data.transpose(2, 1, 0)))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))
    node.CreateDefaultDisplayNodes()


def _tabulate(node, table: Sequence[Column], provenance: dict):
    """Replace what a table node holds."""
    with slicer.util.NodeModify(node):
        node.RemoveAllColumns()
        for column in table:
            node.AddColumn(_array(column))
            node.SetColumnTitle(column.name, column.title)
            node.SetColumnUnitLabel(column.name, column.unit)
            node.SetColumnDescription(column.name, column.description)
        node.SetUseColumnTitleAsColumnHeader(True)
        _record(node, provenance)
    return node


def _label_image(labels: np.ndarray, affine: np.ndarray):
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*labels.shape)
    labels = labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.int16, copy=False)
    image.GetPointData().SetScalars(numpy_to_vtk(labels.ravel(order="F"), deep=True))
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(affine))
    return image


def _segment_id(label: int) -> str:
    return f"SynthSeg_{label}"


def _color(label: int) -> tuple[float, float, float]:
    """Return FreeSurfer's colour, or one that differs from those of neighbouring ids (golden angle of hue)."""
    return _COLORS.get(label) or colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.6, 0.9)


def _attach(node, volume_node) -> None:
    """Let a segmentation node refer to a volume and move with it."""
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volume_node.GetID())
    node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())


def _style(display) -> None:
    display.SetUndoEnabled(True)
    display.SetOpacity2DFill(FILL_OPACITY)
    display.SetOpacity2DOutline(OUTLINE_OPACITY)


def _show_all_but_csf(node) -> None:
    if node.GetSegmentation().GetSegment(_segment_id(CSF)):
        node.GetDisplayNode().SetSegmentVisibility3D(_segment_id(CSF), False)


def _array(column: Column):
    kinds = {str: vtk.vtkStringArray, int: vtk.vtkIntArray, float: vtk.vtkDoubleArray}
    array = kinds[type(column.values[0]) if column.values else str]()
    array.SetName(column.name)
    for value in column.values:
        array.InsertNextValue(value)
    return array


def _record(node, provenance: dict) -> None:
    """Keep the provenance as attributes of a node; they are saved with the scene."""
    values = {
        "Weights": provenance.get("weights", {}).get("sha256"),
        "Version": provenance.get("version"),
        "Device": provenance.get("device"),
        "Options": json.dumps(provenance.get("options", {})),
        "Citation": provenance.get("citation"),
        "Created": provenance.get("created"),
        "Warnings": json.dumps(provenance.get("warnings", [])),
    }
    for key, value in values.items():
        node.SetAttribute(ATTRIBUTE + key, value)


def _role(kind: str) -> str:
    """Return under which name a segmentation refers to a node that belongs to the same result."""
    return ATTRIBUTE + kind.capitalize()


def _add(scene, kind: str, name: str):
    node = scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(name))
    node.SetUndoEnabled(True)
    return node


def _nodes(scene) -> set:
    return {scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())}


def _file_of(node) -> Path | None:
    """Return the file that a volume node was read from, None if there is none or the node was changed since."""
    storage = node.GetStorageNode()
    if storage is None or not storage.GetFileName() or node.GetModifiedSinceRead():
        return None
    return Path(storage.GetFullNameFromFileName())


#
# Sequences
#


def _sequences_logic(scene):
    """Return the application's logic, or without the application one of our own."""
    module = getattr(getattr(slicer, "modules", None), "sequences", None)
    if module is not None:
        return module.logic()
    logic = slicer.vtkSlicerSequencesLogic()
    logic.SetMRMLScene(scene)
    return logic


def _sequence_rotation(sequence_node) -> np.ndarray:
    browser = _sequences_logic(sequence_node.GetScene()).GetFirstBrowserNodeForSequenceNode(sequence_node)
    proxy = browser and browser.GetProxyNode(sequence_node)
    return upright(proxy) if proxy else np.eye(4)


#
# Files without the application
#


@contextmanager
def _own_scene(result, scan: Scan) -> Iterator[tuple]:
    """Give a scene with scan and segmentation, the volume node, and a function that returns what VTK complained of."""
    window, before = vtk.vtkStringOutputWindow(), vtk.vtkOutputWindow.GetInstance()
    verbosity = vtk.vtkLogger.GetCurrentVerbosityCutoff()
    vtk.vtkOutputWindow.SetInstance(window)
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    try:
        scene = slicer.vtkMRMLScene()
        logic = slicer.vtkSlicerSegmentationsModuleLogic()  # registers the node classes
        logic.SetMRMLScene(scene)
        file = Path(scan.name)
        volume = _add(scene, "vtkMRMLScalarVolumeNode", file.name.removesuffix(suffix_of(file, READ_SUFFIXES) or ""))
        _fill_volume(volume, scan.data, scan.affine)
        write_segmentation(result, volume)
        yield scene, volume, lambda: window.GetOutput().strip()
    finally:
        vtk.vtkLogger.SetStderrVerbosity(verbosity)
        vtk.vtkOutputWindow.SetInstance(before)


def _show_in_slices(scene, volume) -> None:
    """Add the three slice views that Slicer's usual layouts have, showing a volume."""
    node = slicer.vtkMRMLSliceNode
    node.AddDefaultSliceOrientationPresets(scene, True)
    views = (
        ("Red", "Axial", node.GetRedColor()),
        ("Green", "Coronal", node.GetGreenColor()),
        ("Yellow", "Sagittal", node.GetYellowColor()),
    )
    for name, orientation, color in views:
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLScene(scene)
        view = logic.AddSliceNode(name)
        view.SetOrientation(orientation)
        view.SetLayoutColor(*color)
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        logic.FitSliceToBackground()


def _is_complete(bundle: Path, scene) -> bool:
    """Tell whether a scene bundle holds the scene, scan, segmentations, tables; its writer leaves out what failed."""
    with zipfile.ZipFile(bundle) as archive:
        names = [name for name in archive.namelist() if not name.endswith(".schema.tsv")]
    volumes, segmentations, tables = (
        scene.GetNumberOfNodesByClass(f"vtkMRML{kind}Node") for kind in ("ScalarVolume", "Segmentation", "Table")
    )
    wanted = {".mrml": 1, ".seg.nrrd": segmentations, ".nrrd": volumes + segmentations, ".tsv": tables}
    return all(sum(name.endswith(suffix) for name in names) == count for suffix, count in wanted.items())
