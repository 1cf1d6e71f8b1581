"""Files that claim too much, name other files, or are none: refused at once, without memory, with a reason."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed_scans import write_dicom

from synthseg_slicer.dicom_elements import DESCRIPTION, FRAMES, ROWS, image_elements
from synthseg_slicer.errors import ScanError, ScanWarning
from synthseg_slicer.inputs import find_scans
from synthseg_slicer.scan import read_scan, write_volume
from synthseg_slicer.textheader import read_text_header

SHAPE = (24, 20, 16)
AFFINE = np.diag([2.0, 2.5, 3.0, 1.0]) + 7 * np.eye(4, k=3)
DATA = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
FUZZ = Path(__file__).resolve().parents[1] / "fuzz"
posix = pytest.mark.skipif(os.name != "posix", reason="pipes, links and devices")
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc")

DIM, VOX_OFFSET, EXTENSION = 42, 108, 348
"""Byte offsets in a NIfTI-1 file."""


def nifti(*patches: tuple[int, bytes], data: np.ndarray = DATA) -> bytes:
    content = bytearray(nib.Nifti1Image(data, AFFINE).to_bytes())
    for offset, value in patches:
        content[offset : offset + len(value)] = value
    return bytes(content)


def mgh(*dims: int) -> bytes:
    content = bytearray(nib.MGHImage(DATA, AFFINE).to_bytes())
    struct.pack_into(">3i", content, 4, *dims)
    return bytes(content)


def nrrd(sizes: tuple[int, ...], voxels: bytes, encoding: str = "raw", *lines: str) -> bytes:
    fields = (
        "NRRD0004", "type: short", f"dimension: {len(sizes)}", "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}", "space directions: (2,0,0) (0,2,0) (0,0,2)", "space origin: (1,1,1)",
        f"encoding: {encoding}", "endian: little", *lines,
    )  # fmt: skip
    return "\n".join(fields).encode() + b"\n\n" + voxels


def meta(sizes: tuple[int, ...], voxels: bytes, packed: bool = False, where: str = "LOCAL", *lines: str) -> bytes:
    fields = (
        "ObjectType = Image", f"NDims = {len(sizes)}", "BinaryData = True", f"CompressedData = {packed}",
        *([f"CompressedDataSize = {len(voxels)}"] if packed else []), "ElementSpacing = 2 2 2", *lines,
        f"DimSize = {' '.join(map(str, sizes))}", "ElementType = MET_SHORT", f"ElementDataFile = {where}",
    )  # fmt: skip
    return "\n".join(fields).encode() + b"\n" + voxels


def dicom_file(folder: Path, **tags: bytes) -> bytes:
    """Return one intact slice."""
    write_dicom(folder, DATA[:, :, :1], np.diag([2.0, 2.5, 3, 1]))
    return next(folder.iterdir()).read_bytes()


def compressed_frames(path: Path, shape: tuple[int, int, int]) -> bytes:
    """Return a small multi-frame file in JPEG 2000."""
    image = sitk.GetImageFromArray(np.broadcast_to(np.arange(shape[0], dtype=np.uint16), shape[::-1]).copy())
    image.SetSpacing((0.5, 0.5, 5.0))
    sitk.WriteImage(image, str(path), useCompression=True)
    return path.read_bytes()


def patched(content: bytes, tag: tuple[int, int], value: bytes, skip: int = 8) -> bytes:
    """Overwrite what lies ``skip`` bytes behind the beginning of an element: its value, or at 4 its length."""
    place = content.rindex(struct.pack("<HH", *tag)) + skip
    return content[:place] + value + content[place + len(value) :]


# ---- bombs ----


def bombs(folder: Path):
    """Yield (name, content, pattern of the message)."""
    voxels = DATA.tobytes()
    far, near = struct.pack("<3h", 32767, 32767, 32767), struct.pack("<3h", 256, 200, 180)
    zeros = bytes(150_000_000)
    yield "huge.nii", nifti((DIM, far)), "too large"
    yield "huge.nii.gz", gzip.compress(nifti((DIM, far))), "too large"
    yield "large.nii", nifti((DIM, near)), "claims 18,432,352 bytes"
    yield "large.nii.gz", gzip.compress(nifti((DIM, near))), "claims 18,432,352 bytes"
    yield "endless.nii.gz", gzip.compress(nifti() + zeros, 1), "goes on for more than 64 MB"
    yield "late.nii.gz", gzip.compress(nifti((VOX_OFFSET, struct.pack("<f", 1.4e8))) + zeros, 1), "begin at byte 140000"
    yield "huge.mgh", mgh(30000, 30000, 30000), "too large"
    yield "huge.mgz", gzip.compress(mgh(30000, 30000, 30000) + zeros, 1), "too large"
    yield "large.mgz", gzip.compress(mgh(256, 200, 180)), "claims 18,432,284 bytes"
    yield "huge.nrrd", nrrd((30000, 30000, 30000), voxels), "too large"
    yield "large.nrrd", nrrd((256, 256, 256), voxels), "claims 33,554,432 bytes"
    yield "packed.nrrd", nrrd((256, 256, 256), gzip.compress(voxels), "gzip"), "claims 33,554,432 bytes"
    yield "endless.nrrd", nrrd(SHAPE, gzip.compress(voxels + zeros, 1), "gzip"), "more or fewer than the header says"
    yield "huge.mha", meta((30000, 30000, 30000), voxels), "too large"
    yield "large.mha", meta((256, 256, 256), voxels), "claims 33,554,432 bytes"
    yield "packed.mha", meta((256, 256, 256), zlib.compress(voxels), True), "claims 33,554,432 bytes"
    yield "endless.mha", meta(SHAPE, zlib.compress(voxels + zeros, 1), True), "more or fewer than the header says"
    slice_ = dicom_file(folder / "slices")
    yield "rows.dcm", patched(patched(slice_, ROWS, b"\xff\xff"), (0x0028, 0x0011), b"\xff\xff"), "bytes of pixels"
    yield "long.dcm", patched(slice_, (0x7FE0, 0x0010), b"\xf0\xff\xff\x7f", 4), "2,147,483,632 bytes long"
    plain, deflated = b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1.99"
    place = slice_.index(plain)
    head = slice_[: place - 2] + struct.pack("<H", len(deflated)) + deflated
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    squeezed = pack.compress(slice_[place + len(plain) :] + zeros) + pack.flush()
    frames = compressed_frames(folder / "frames.dcm", (48, 48, 30))
    for tag, value in (((0x0028, 0x0010), b"\xe8\x03"), ((0x0028, 0x0011), b"\xe8\x03"), (FRAMES, b"99")):
        frames = patched(frames, tag, value)
    yield "frames.dcm", frames, "the headers claim 198,000,000 bytes of pixels"
    yield "deflated.dcm", head + squeezed, "transfer syntax 1.2.840.10008.1.2.1.99"


@linux
def test_bombs_are_refused_at_once_and_without_memory(tmp_path):
    expected, folder = [], tmp_path / "bombs"
    for name, content, message in bombs(tmp_path):
        place = folder / name
        place.mkdir(parents=True)
        (place / name).write_bytes(content)
        expected.append((place / name, message))
    questions = "".join(
        json.dumps({"path": str(path), "segment": False, "sha256": None}) + "\n" for path, _ in expected
    )
    child = subprocess.run(
        [sys.executable, FUZZ / "reader.py"], input=questions, capture_output=True, text=True, timeout=300
    )
    _, *answers = map(json.loads, child.stdout.splitlines())
    assert len(answers) == len(expected), child.stderr
    for (path, message), answer in zip(expected, answers):
        assert answer["outcome"] == "refused" and message in answer["message"], (path, answer)
        assert answer["seconds"] < 5 and answer["memory"] < 100e6, (path, answer)


# ---- checksums ----


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".nrrd", ".mha"])
def test_a_changed_bit_of_compressed_voxels_is_noticed(tmp_path, suffix):
    """Also where it unpacks to other voxels without an error: nibabel and ITK read those."""
    path = tmp_path / f"a{suffix}"
    write_volume(path, DATA, AFFINE)
    content, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(30):
        spoiled = bytearray(content)
        spoiled[random.integers(len(content) // 2, len(content) - 8)] ^= 1 << random.integers(8)
        path.write_bytes(spoiled)
        with pytest.raises(ScanError):
            read_scan(path)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_scan(path).data, DATA)


@settings(max_examples=40, deadline=None)
@given(st.integers(-5, 400), st.sampled_from([".nii", ".mgh", ".nrrd", ".mha"]))
def test_a_file_that_lacks_bytes_is_refused_and_more_are_no_harm(tmp_path_factory, lacking, suffix):
    path = tmp_path_factory.mktemp("cut") / f"a{suffix}"
    content = {
        ".nii": nifti(),
        ".mgh": nib.MGHImage(DATA, AFFINE).to_bytes()[: 284 + DATA.nbytes],
        ".nrrd": nrrd(SHAPE, DATA.tobytes(order="F")),
        ".mha": meta(SHAPE, DATA.tobytes(order="F")),
    }[suffix]
    path.write_bytes(content[: len(content) - lacking] if lacking > 0 else content + bytes(-lacking))
    if lacking > 0:
        with pytest.raises(ScanError, match="cannot be read"):
            read_scan(path)
    else:
        np.testing.assert_array_equal(read_scan(path).data, DATA)


def test_header_extensions_are_left_alone(tmp_path):
    """nibabel would read as many bytes as they say that they are long."""
    path = tmp_path / "a.nii"
    path.write_bytes(
        nifti((EXTENSION, b"\1\0\0\0" + struct.pack("<2i", 2**31 - 16, 2)), (VOX_OFFSET, struct.pack("<f", 360)))
    )
    path.write_bytes(path.read_bytes() + bytes(8))
    assert read_scan(path).shape == SHAPE


# ---- other files ----

SECRET = b"root:x:0:0:root:/root:/bin/bash\n" * 2000


@pytest.fixture
def secret(tmp_path) -> Path:
    (tmp_path / "secret.raw").write_bytes(SECRET)
    (tmp_path / "scans" / "deeper").mkdir(parents=True)
    return tmp_path / "scans"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret.raw", "outside its own folder"),
        ("deeper/../../secret.raw", "outside its own folder"),
        ("..\\secret.raw", "outside its own folder"),
        ("C:\\secret.raw", "outside its own folder"),
        ("{absolute}", "outside its own folder"),
        ("/dev/zero", "outside its own folder"),
        ("~/secret.raw", "outside its own folder"),
        ("LIST", "spread over several files"),
        ("LIST 2", "spread over several files"),
        ("%d.raw 1 16 1", "spread over several files"),
        ("-", "no such file"),
        ("missing.raw", "no such file"),
        ("deeper", "no regular file"),
    ],
)
@pytest.mark.parametrize("kind", ["nhdr", "nrrd", "mhd", "mha"])
def test_headers_that_name_other_files_are_refused(secret, kind, name, message):
    name = name.format(absolute=secret.parent / "secret.raw")
    if kind in ("nhdr", "nrrd"):
        content = nrrd(SHAPE, b"", "raw", f"data file: {name}")
    else:
        content = meta(SHAPE, b"", False, name)
    (secret / f"a.{kind}").write_bytes(content)
    with pytest.raises(ScanError, match=message):
        read_scan(secret / f"a.{kind}")


@pytest.mark.parametrize("name", ["a.raw", "./a.raw", "deeper/a.raw"])
def test_a_data_file_in_the_headers_folder_is_read(secret, name):
    (secret / name).write_bytes(DATA.tobytes(order="F"))
    (secret / "a.nhdr").write_bytes(nrrd(SHAPE, b"", "raw", f"data file: {name}"))
    (secret / "a.mhd").write_bytes(meta(SHAPE, b"", False, name))
    for header in ("a.nhdr", "a.mhd"):
        np.testing.assert_array_equal(read_scan(secret / header).data, DATA)
        assert read_text_header(secret / header).files == [secret / header, secret / name]


@pytest.mark.parametrize(
    "line",
    [
        "Comment = a\rElementDataFile = ../secret.raw",
        "  ElementDataFile : ../secret.raw",
        "ElementDataFile =../secret.raw",
        "Offset = 0 0 0 ElementDataFile = ../secret.raw",
    ],
)
def test_a_second_data_file_in_the_header_is_refused(secret, line):
    (secret / "a.mha").write_bytes(meta(SHAPE, DATA.tobytes(), False, "LOCAL", line))
    with pytest.raises(ScanError, match=r"outside its own folder|does not say plainly"):
        read_scan(secret / "a.mha")


@pytest.mark.parametrize("lines", [("content: " + "A" * 5000,), ("space: " + "A" * 5000,), ("kinds: a\0b",)])
def test_lines_on_which_itk_crashes_are_refused(tmp_path, lines):
    (tmp_path / "a.nrrd").write_bytes(nrrd(SHAPE, DATA.tobytes(), "raw", *lines))
    with pytest.raises(ScanError, match="a line that is no text or longer than usual"):
        read_scan(tmp_path / "a.nrrd")


@pytest.mark.parametrize("axes", ["99999999999999999999", "-1", "1", "three", ""])
def test_a_number_of_axes_on_which_itk_crashes_is_refused(tmp_path, axes):
    content = meta(SHAPE, DATA.tobytes()).replace(b"NDims = 3", f"NDims = {axes}".encode())
    (tmp_path / "a.mha").write_bytes(content)
    with pytest.raises(ScanError, match="impossible number of axes"):
        read_scan(tmp_path / "a.mha")


def test_a_file_is_read_as_what_its_suffix_says_and_as_nothing_else(tmp_path):
    """A DICOM file whose preamble is a MetaImage header would go past the checks of its elements."""
    content = dicom_file(tmp_path / "slices")
    header = b"NDims = 3\nDimSize = 8 8 8\nElementSpacing = 3 3 3\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    both = header.ljust(128, b"\0") + content[128:]
    (tmp_path / "a.mha").write_bytes(both)
    data = read_scan(tmp_path / "a.mha").data
    np.testing.assert_array_equal(data.ravel(order="F"), np.frombuffer(both[len(header) :], np.uint8, 512))


# ---- no files ----


@posix
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz", "a.nrrd", "a.mha", "a.dcm", "a.img", "a"])
def test_pipes_devices_and_broken_links_do_not_hang(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(ScanError, match="no regular file"):
        read_scan(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ScanError, match="no regular file"):
        read_scan(path)
    for target in (path.name, "nowhere"):  # a loop, and a link to nothing
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(ScanError, match="no such file"):
            read_scan(path)


@posix
def test_the_other_half_of_a_pair_may_be_no_pipe(tmp_path):
    nib.save(nib.Nifti1Pair(DATA, AFFINE), tmp_path / "a.img")
    (tmp_path / "a.img").unlink()
    os.mkfifo(tmp_path / "a.img")
    with pytest.raises(ScanError, match=r"a\.img: is no regular file"):
        read_scan(tmp_path / "a.hdr")


@posix
def test_links_to_scans_are_followed(tmp_path):
    write_volume(tmp_path / "a.nii.gz", DATA, AFFINE)
    (tmp_path / "b.nii.gz").symlink_to("a.nii.gz")
    np.testing.assert_array_equal(read_scan(tmp_path / "b.nii.gz").data, DATA)


@posix
def test_lists_that_lead_back_or_never_end_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("b.txt\n")
    (tmp_path / "b.txt").write_text("../" + tmp_path.name + "/a.txt\n")
    with pytest.raises(ScanError, match="leads back to itself"):
        find_scans([tmp_path / "a.txt"])
    os.mkfifo(tmp_path / "c.txt")
    with pytest.raises(ScanError, match=r"c\.txt: the list cannot be read"):
        find_scans([tmp_path / "c.txt"])
    (tmp_path / "d.nii").symlink_to("d.nii")
    (tmp_path / "e.txt").write_text("d.nii\nd.nii\n")
    assert find_scans([tmp_path / "e.txt"]) == [tmp_path / "d.nii"]  # refused by name when it is read


def test_a_folder_that_cannot_be_searched_is_refused_by_name(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ScanError, match=r"cannot be searched for scans \(Permission denied\)"):
        find_scans([tmp_path])


# ---- DICOM ----


def test_elements_are_read_whatever_their_encoding(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    (tmp_path / "a.dcm").write_bytes(dicom_file(tmp_path / "slices"))
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.SeriesDescription = "T1\nsag"
    inner = pydicom.Dataset()
    inner.CodeValue = "T-A0100"
    deeper = pydicom.Dataset()
    deeper.AnatomicRegionSequence = [inner, inner]
    dataset.ReferencedImageSequence = [deeper, pydicom.Dataset()]
    for syntax in (pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.ImplicitVRLittleEndian):
        for undefined in (False, True):
            dataset["ReferencedImageSequence"].is_undefined_length = undefined
            dataset.file_meta.TransferSyntaxUID = syntax
            pydicom.dcmwrite(tmp_path / "b.dcm", dataset, implicit_vr=syntax.is_implicit_VR, little_endian=True)
            found = image_elements(tmp_path / "b.dcm")
            assert found.text(DESCRIPTION) == "T1 sag" and found.number(ROWS, 0) == dataset.Rows
            assert found.pixels == found.claimed == len(dataset.PixelData) and not found.packed
            assert not any(b"DOE" in value for value in found.values.values())
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.compress(pydicom.uid.RLELossless)
    pydicom.dcmwrite(tmp_path / "c.dcm", dataset)
    found = image_elements(tmp_path / "c.dcm")
    assert found.packed and 0 < found.pixels != found.claimed == DATA[:, :, 0].nbytes


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_change_of_an_elements_length_gets_past(tmp_path_factory, data):
    """Whatever 32 bits are put where a length is, or anything else: refused, or all values lie within the file."""
    folder = tmp_path_factory.mktemp("lengths")
    content = dicom_file(folder / "slices")
    place = 2 * data.draw(st.integers(66, content.rindex(b"\xe0\x7f\x10\0") // 2 + 2))
    length = data.draw(st.integers(0, 2**32 - 1))
    spoiled = content[:place] + struct.pack("<I", length) + content[place + 4 :]
    (folder / "a.dcm").write_bytes(spoiled)
    try:
        found = image_elements(folder / "a.dcm")
    except ScanError as error:
        assert "a.dcm" in str(error)
    else:
        assert found is None or all(len(value) <= len(spoiled) for value in found.values.values())


def test_sequences_nested_too_deep_are_refused(tmp_path):
    content = dicom_file(tmp_path / "slices")
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    sequence = struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF)
    place = content.index(struct.pack("<HH", 0x0020, 0x000D))
    (tmp_path / "a.dcm").write_bytes(content[:place] + 5000 * (sequence + item) + content[place:])
    with pytest.raises(ScanError, match="nested more than 16 deep"):
        image_elements(tmp_path / "a.dcm")


@posix
def test_a_dicom_folder_may_hold_pipes_and_other_files(tmp_path):
    folder = write_dicom(tmp_path / "ct", DATA, np.diag([2.0, 2.5, 3, 1]))
    os.mkfifo(folder / "pipe.dcm")
    (folder / "loop").symlink_to("loop")
    (folder / "notes.txt").write_text("seen")
    (folder / "empty.dcm").write_bytes(b"")
    assert read_scan(folder).shape == SHAPE


def test_a_damaged_slice_is_told_where_its_absence_would_not_show(tmp_path):
    folder = write_dicom(tmp_path / "ct", DATA, np.diag([2.0, 2.5, 3, 1]))
    last = max(folder.iterdir(), key=lambda file: image_position(file))
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.warns(ScanWarning, match=r"1 DICOM file\(s\) in the folder cannot be read and were left out"):
        assert read_scan(folder).shape == (24, 20, 15)


def image_position(file: Path) -> float:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    return reader.GetOrigin()[2]


@pytest.mark.parametrize(
    ("keyword", "match"), [("PixelSpacing", "how large their pixels"), ("ImageOrientationPatient", "how its axes lie")]
)
def test_missing_geometry_is_not_made_up(tmp_path, keyword, match):
    pydicom = pytest.importorskip("pydicom")
    folder = write_dicom(tmp_path / "ct", DATA, np.diag([2.0, 2.5, 3, 1]))
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        delattr(dataset, keyword)
        dataset.save_as(file)
    if keyword == "PixelSpacing":
        with pytest.raises(ScanError, match=match):
            read_scan(folder)
    else:
        with pytest.warns(ScanWarning, match=match):
            read_scan(folder)


def test_slices_of_different_pixel_size_are_refused(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    folder = write_dicom(tmp_path / "ct", DATA, np.diag([2.0, 2.5, 3, 1]))
    file = sorted(folder.iterdir())[5]
    dataset = pydicom.dcmread(file)
    dataset.PixelSpacing = [2.5, 2.2]
    dataset.save_as(file)
    with pytest.raises(ScanError, match="differ in size"):
        read_scan(folder)
