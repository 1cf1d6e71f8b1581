"""What a segment is, in codes: a label id to a SNOMED CT or DICOM term, and to Slicer's terminology entry.

Codes and spelling are those of Slicer's copy of the DICOM master list. What that list lacks stands in the module's own
``Resources/Terminologies/SynthSegSlicer.term.json``: the inferior horn of the lateral ventricle, the cerebellar cortex
and the ventral diencephalon with their codes in DICOM's CID 7140 (brain structures for volumetric measurement),
the cerebellar white matter (listed by Slicer, but without sides) and the infarct.
"""

from __future__ import annotations

from dataclasses import dataclass

from .labels import BRAIN, LESION_ID, Label

DICOM_LIST = "Segmentation category and type - DICOM master list"
"""Name of the list that every Slicer has."""

OWN_LIST = "Segmentation category and type - SynthSegSlicer"
"""Name of the list in ``SynthSegSlicer.term.json``, which the module loads."""

REGION_LIST = "Anatomic codes - DICOM master list"
"""Slicer's list of anatomic regions; part of every entry, even of one that names no region."""


@dataclass(frozen=True)
class Code:
    """A coded concept.

    Attributes
    ----------
    scheme : str
        DICOM coding scheme designator: ``SCT`` is SNOMED CT, ``DCM`` DICOM's own.
    value : str
        Identifier in this scheme.
    meaning : str
        Name, spelled as in the list.
    """

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Term:
    """What a segment shows.

    Attributes
    ----------
    category : Code
        Kind of thing.
    type : Code
        The thing.
    modifier : Code or None
        Side, of a structure that exists twice.
    context : str
        Name of the list that holds category, type and modifier.
    region : Code or None
        Where in the body, when the type does not tell.
    """

    category: Code
    type: Code
    modifier: Code | None
    context: str
    region: Code | None = None


ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
ALTERED = Code("SCT", "49755003", "Morphologically Altered Structure")
_TISSUE = Code("SCT", "85756007", "Tissue")
_SIDES = {
    "left": Code("SCT", "7771000", "Left"),
    "right": Code("SCT", "24028007", "Right"),
    "none": None,
}

# FreeSurfer's name without the side: list and type. The thalamus has the code of the whole structure, 42695009; the
# 119406000 that also goes by this name is SNOMED CT's "Thalamus part".
_TYPES = {
    "Cerebral-White-Matter": (DICOM_LIST, Code("SCT", "68523003", "Cerebral White Matter")),
    "Cerebral-Cortex": (DICOM_LIST, Code("SCT", "40146001", "Cerebral cortex")),
    "Lateral-Ventricle": (DICOM_LIST, Code("SCT", "66720007", "Lateral ventricle")),
    "Inf-Lat-Vent": (OWN_LIST, Code("SCT", "53118009", "Inferior Horn of Lateral Ventricle")),
    "Cerebellum-White-Matter": (OWN_LIST, Code("SCT", "33060004", "Cerebellar White Matter")),
    "Cerebellum-Cortex": (OWN_LIST, Code("SCT", "25991003", "Cerebellar Cortex")),
    "Thalamus": (DICOM_LIST, Code("SCT", "42695009", "Thalamus")),
    "Caudate": (DICOM_LIST, Code("SCT", "11000004", "Caudate nucleus")),
    "Putamen": (DICOM_LIST, Code("SCT", "89278009", "Putamen")),
    "Pallidum": (DICOM_LIST, Code("SCT", "14738005", "Globus pallidus")),
    "3rd-Ventricle": (DICOM_LIST, Code("SCT", "49841001", "Third ventricle")),
    "4th-Ventricle": (DICOM_LIST, Code("SCT", "35918002", "Fourth ventricle")),
    "Brain-Stem": (DICOM_LIST, Code("SCT", "119238007", "Brain stem")),
    "Hippocampus": (DICOM_LIST, Code("SCT", "5366008", "Hippocampus")),
    "Amygdala": (DICOM_LIST, Code("SCT", "4958002", "Amygdala")),
    "CSF": (DICOM_LIST, Code("SCT", "280371009", "Brain cerebrospinal fluid pathway")),
    "Accumbens-area": (DICOM_LIST, Code("SCT", "427667007", "Nucleus accumbens")),
    "VentralDC": (OWN_LIST, Code("DCM", "110700", "Ventral Diencephalon")),
}

TISSUE = Term(_TISSUE, _TISSUE, None, DICOM_LIST)
"""Term of a label without a known one; Slicer gives it to every new segment."""

STROKE_LESION = Term(
    ALTERED, Code("SCT", "55641003", "Infarct"), None, OWN_LIST, region=Code("SCT", "12738006", "Brain")
)
"""Term of a stroke lesion: SNOMED CT's morphologic abnormality, in the brain."""


def _term(label: Label) -> Term:
    context, kind = _TYPES[label.name.removeprefix("Left-").removeprefix("Right-")]
    return Term(ANATOMY, kind, _SIDES[label.side], context)


_TERMS = {LESION_ID: STROKE_LESION, **{label.id: _term(label) for label in BRAIN if label.id}}


def term(label_id: int) -> Term:
    """Return the term of a FreeSurfer label id.

    Parameters
    ----------
    label_id : int
        FreeSurfer label id.

    Returns
    -------
    Term
        :data:`TISSUE` for the background and for ids that are neither in :data:`.labels.BRAIN` nor that of a lesion, as
        networks for other anatomies have them.
    """
    return _TERMS.get(label_id, TISSUE)


def entry(label_id: int) -> str:
    """Return Slicer's terminology entry of a FreeSurfer label id, the value of a segment's terminology tag.

    Parameters
    ----------
    label_id : int
        FreeSurfer label id.

    Returns
    -------
    str
        :func:`serialize` of :func:`term`.
    """
    return serialize(term(label_id))


def serialize(term: Term) -> str:
    """Return a term as Slicer writes it.

    Parameters
    ----------
    term : Term
        The term.

    Returns
    -------
    str
        ``list~category~type~modifier~list of regions~region~modifier of the region``, where a code is
        ``scheme^value^meaning`` and a missing one ``^^``.
    """
    parts = (term.context, term.category, term.type, term.modifier, REGION_LIST, term.region, None)
    return "~".join(part if isinstance(part, str) else _serialize_code(part) for part in parts)


def _serialize_code(code: Code | None) -> str:
    return "^^" if code is None else f"{code.scheme}^{code.value}^{code.meaning}"
