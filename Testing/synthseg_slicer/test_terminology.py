"""Terms of labels: every code against the list that it names, and Slicer's own reading of our entries."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest

from synthseg_slicer import terminology
from synthseg_slicer.labels import BRAIN
from synthseg_slicer.terminology import DICOM_LIST, OWN_LIST, STROKE_LESION, TISSUE, Code, Term, entry, serialize, term

OWN_FILE = Path(__file__).parents[2] / "SynthSegSlicer" / "Resources" / "Terminologies" / "SynthSegSlicer.term.json"
STRUCTURES = [label for label in BRAIN if label.id]
TERMS = {**{label.name: term(label.id) for label in STRUCTURES}, "stroke lesion": STROKE_LESION, "tissue": TISSUE}

# The format of Slicer's terminology files, as dcmqi publishes it; codes are required here.
_CODE = {
    "CodingSchemeDesignator": {"enum": ["SCT", "DCM"]},
    "CodeValue": {"type": "string", "maxLength": 16},
    "CodeMeaning": {"type": "string", "maxLength": 64},
    "cid": {"type": "string"},
    "contextGroupName": {"type": "string"},
    "UMLSConceptUID": {"type": "string", "pattern": r"^C\d{7}$"},
    "SNOMEDCTConceptID": {"type": "string"},
    "recommendedDisplayRGBValue": {
        "type": "array",
        "minItems": 3,
        "maxItems": 3,
        "items": {"type": "integer", "minimum": 0, "maximum": 255},
    },
}


def _coded(**properties) -> dict:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["CodingSchemeDesignator", "CodeValue", "CodeMeaning"],
        "properties": {**_CODE, **properties},
    }


_TYPE = _coded(Modifier={"type": "array", "items": _coded()})
_CATEGORY = _coded(showAnatomy={"type": "boolean"}, Type={"type": "array", "items": _TYPE})
FORMAT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["SegmentationCategoryTypeContextName", "@schema", "SegmentationCodes"],
    "properties": {
        "SegmentationCategoryTypeContextName": {"const": OWN_LIST},
        "@schema": {"type": "string"},
        "SegmentationCodes": {"properties": {"Category": {"type": "array", "items": _CATEGORY}}},
    },
}


def slicer_file(name: str) -> Path:
    """Return one of Slicer's terminology files from the trame-slicer wheel, which is not imported."""
    spec = importlib.util.find_spec("trame_slicer")
    if spec is None:
        pytest.skip("Slicer's terminology files are not installed: pip install trame-slicer")
    return Path(spec.submodule_search_locations[0]) / "resources" / "terminologies" / f"{name}-DICOM-Master.term.json"


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    """List name to the file that holds it."""
    return {DICOM_LIST: slicer_file("SegmentationCategoryTypeModifier"), OWN_LIST: OWN_FILE}


def find(code: Code, entries: list[dict]) -> dict:
    """Return the one entry that has exactly this code."""
    wanted = (code.scheme, code.value, code.meaning)
    (found,) = (e for e in entries if (e["CodingSchemeDesignator"], e["CodeValue"], e["CodeMeaning"]) == wanted)
    return found


@pytest.mark.parametrize("name", TERMS)
def test_every_code_stands_in_the_list_that_the_term_names(name, files):
    wanted = TERMS[name]
    content = json.loads(files[wanted.context].read_text())
    assert content["SegmentationCategoryTypeContextName"] == wanted.context
    category = find(wanted.category, content["SegmentationCodes"]["Category"])
    kind = find(wanted.type, category["Type"])
    if wanted.modifier:
        find(wanted.modifier, kind["Modifier"])


def test_the_region_of_a_stroke_lesion_stands_in_the_list_of_regions():
    content = json.loads(slicer_file("AnatomicRegionAndModifier").read_text())
    assert content["AnatomicContextName"] == terminology.REGION_LIST
    find(STROKE_LESION.region, content["AnatomicCodes"]["AnatomicRegion"])


@pytest.mark.parametrize(
    "name", ["InferiorHornOfLateralVentricle", "CerebellarWhiteMatter", "CerebellarCortex", "VentralDiencephalon"]
)
def test_codes_of_the_own_list_are_those_of_the_dicom_standard(name):
    standard = getattr(pytest.importorskip("pydicom.sr.codedict").codes.cid7140, name)
    own = {wanted.type for wanted in TERMS.values() if wanted.context == OWN_LIST}
    assert Code(standard.scheme_designator, standard.value, standard.meaning) in own


def test_the_own_list_has_the_format_of_slicers_lists():
    jsonschema.validate(json.loads(OWN_FILE.read_text()), FORMAT)


def test_the_own_list_holds_nothing_that_no_label_uses():
    categories = json.loads(OWN_FILE.read_text())["SegmentationCodes"]["Category"]
    listed = [(category["CodeValue"], kind["CodeValue"]) for category in categories for kind in category["Type"]]
    used = {(wanted.category.value, wanted.type.value) for wanted in TERMS.values() if wanted.context == OWN_LIST}
    assert sorted(listed) == sorted(used)


@pytest.mark.parametrize("label", [label for label in STRUCTURES if term(label.id).context == OWN_LIST])
def test_colours_of_the_own_list_are_freesurfers(label):
    wanted = term(label.id)
    category = find(wanted.category, json.loads(OWN_FILE.read_text())["SegmentationCodes"]["Category"])
    kind = find(wanted.type, category["Type"])
    for item in (kind, find(wanted.modifier, kind["Modifier"])):
        assert tuple(item["recommendedDisplayRGBValue"]) == label.color


def test_no_two_structures_share_an_entry():
    assert len({entry(label.id) for label in STRUCTURES}) == len(STRUCTURES)


@pytest.mark.parametrize("label", [label for label in STRUCTURES if label.side == "left"])
def test_a_pair_differs_only_in_its_side(label):
    left, right = term(label.id), term(label.partner)
    assert (left.modifier.meaning, right.modifier.meaning) == ("Left", "Right")
    assert Term(left.category, left.type, None, left.context) == Term(right.category, right.type, None, right.context)


def test_structures_on_the_midline_have_no_side():
    assert all(term(label.id).modifier is None for label in STRUCTURES if label.side == "none")


@pytest.mark.parametrize("label_id", [0, 99999])
def test_labels_without_a_term_are_tissue(label_id):
    assert term(label_id) == TISSUE


def test_an_entry_is_written_as_slicer_writes_it():
    assert entry(17) == (
        "Segmentation category and type - DICOM master list~SCT^123037004^Anatomical Structure~SCT^5366008^Hippocampus"
        "~SCT^7771000^Left~Anatomic codes - DICOM master list~^^~^^"
    )
    assert serialize(STROKE_LESION).endswith(
        "~SCT^49755003^Morphologically Altered Structure~SCT^55641003^Infarct~^^"
        "~Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"
    )


@pytest.fixture(scope="module")
def logic():
    """Slicer's own terminology logic with our list loaded."""
    slicer = pytest.importorskip("slicer")
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    assert logic.LoadTerminologyFromFile(str(OWN_FILE)) == OWN_LIST
    return logic


@pytest.fixture(scope="module")
def all_lists(logic, files):
    """The same with Slicer's list."""
    assert logic.LoadTerminologyFromFile(str(files[DICOM_LIST])) == DICOM_LIST
    return logic


@pytest.mark.parametrize("name", TERMS)
def test_an_entry_survives_slicers_reading_and_writing(logic, name):
    import slicer

    parsed = slicer.vtkSlicerTerminologyEntry()
    assert logic.DeserializeTerminologyEntry(serialize(TERMS[name]), parsed)
    assert parsed.GetTypeObject().GetCodeValue() == TERMS[name].type.value
    assert logic.SerializeTerminologyEntry(parsed) == serialize(TERMS[name])


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_found_in_the_list_that_it_names(all_lists, name):
    wanted = TERMS[name]
    codes = [code or Code("", "", "") for code in (wanted.category, wanted.type, wanted.modifier)]
    arguments = [text for code in codes for text in (code.scheme, code.value)]
    assert all_lists.FindTerminologyNames(*arguments, [wanted.context]) == (wanted.context,)


def test_a_wrong_code_is_not_found(all_lists):
    arguments = ("SCT", "123037004", "SCT", "1", "", "")
    assert all_lists.FindTerminologyNames(*arguments, [DICOM_LIST, OWN_LIST]) == ()


def test_slicer_takes_the_colour_from_the_own_list(logic):
    import slicer

    parsed = slicer.vtkSlicerTerminologyEntry()
    logic.DeserializeTerminologyEntry(entry(28), parsed)
    assert logic.UpdateEntryFromLoadedTerminologies(parsed, [], [])
    color = next(label.color for label in STRUCTURES if label.id == 28)
    assert parsed.GetTypeModifierObject().GetRecommendedDisplayRGBValue() == color
