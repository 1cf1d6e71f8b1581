"""What must never happen: network, pickle, patients' names in records, half results, and crashes of the readers."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed_scans import PATIENT, write_dicom

from synthseg_slicer import provenance, segment
from synthseg_slicer.scan import read_scan

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("SynthSegSlicer", "SynthSegTraining")
    for path in (ROOT / folder).rglob("*.py")
    if "build" not in path.parts
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of the kernel")


def run_python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


# ---- the source ----

FORBIDDEN = {
    "pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib",  # run code while reading
    "urllib", "requests", "http", "httpx", "aiohttp", "ftplib", "smtplib", "socket", "telnetlib", "xmlrpc",  # network
    "webbrowser", "sentry_sdk",
}  # fmt: skip


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_source_file_unpickles_evaluates_or_reaches_the_network(path):
    found = []
    for node in ast.walk(parsed(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        found += [name for name in names if name.split(".")[0] in FORBIDDEN]
        if isinstance(node, ast.ImportFrom) and node.module == "urllib.parse":  # takes addresses apart, nothing else
            found.remove(node.module)
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (
            (name == "torch.load" and keywords.get("weights_only") != "True")
            or (name in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False")
            or (name in ("np.save", "numpy.save") and keywords.get("allow_pickle") != "False")
            or name in ("eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "tempfile.mktemp")
            or keywords.get("shell") == "True"
            or (name.endswith(".extractall") and "filter" not in keywords)
        ):
            found.append(f"{name} in line {node.lineno}")
    assert not found


def test_the_check_of_the_source_sees_what_it_should(tmp_path):
    bad = tmp_path / "bad.py"
    for line in ("import pickle", "from urllib.request import urlopen", "import torch; torch.load('x')", "eval('1')"):
        bad.write_text(line)
        with pytest.raises(AssertionError):
            test_no_source_file_unpickles_evaluates_or_reaches_the_network(bad)


# ---- at run time ----

SEGMENT_OFFLINE = """
    import sys
    heard = []
    silent = {"socket.__new__", "socket.bind"}  # urllib3, if pydicom is there, sees whether ::1 can be bound
    def hook(event, arguments):
        net = event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")) and event not in silent
        if net or event in ("pickle.find_class", "os.system", "os.exec"):
            heard.append((event, arguments))
    sys.addaudithook(hook)
    import socket
    def refuse(*_, **__):
        raise RuntimeError("the network was reached for")
    socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
    from pathlib import Path
    from synthseg_slicer import segment
    from synthseg_slicer.stroke import segment_lesions
    scan, weights, stroke, out = map(Path, sys.argv[1:])
    segment(scan, out / "a.nii.gz", volumes=out / "a.csv", picture=out / "a.png", posteriors=out / "p.nii.gz",
            report=out / "a.html", model=weights)
    segment_lesions(scan, out / "b.nii.gz", anatomy=False, model=stroke)
    assert not heard, heard
"""


def test_a_whole_run_needs_and_touches_no_network(scan_file, tiny_weights, stroke_weights, tmp_path):
    (tmp_path / "out").mkdir()
    done = run_python(SEGMENT_OFFLINE, scan_file, tiny_weights, stroke_weights, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 8


def test_the_command_line_works_without_any_network_modules(scan_file, tiny_weights, tmp_path):
    code = """
        import sys, socket
        def refuse(*_, **__):
            raise SystemExit("the network was reached for")
        socket.socket.connect = socket.getaddrinfo = refuse
        from synthseg_slicer.cli import main
        sys.exit(main(sys.argv[1:]))
    """
    done = run_python(code, "segment", scan_file, "-o", tmp_path / "x.nii.gz", "--model", tiny_weights, "-q")
    assert done.returncode == 0, done.stderr


# ---- patients' names ----


def test_nothing_that_is_written_holds_what_dicom_says_of_the_patient(tmp_path, random_model):
    tags = {"0010|0010": PATIENT, "0010|0020": "ID-4711-X", "0010|0030": "19700301", "0008|0080": "Hospital of Oz"}
    data = np.random.default_rng(0).integers(0, 900, (20, 20, 16)).astype(np.int16)
    folder = write_dicom(tmp_path / "scan", data, np.diag([2.0, 2, 2, 1]), tags=tags)
    assert any(PATIENT.encode() in file.read_bytes() for file in folder.iterdir())
    out = tmp_path / "out"
    out.mkdir()
    files = {"volumes": out / "a.csv", "picture": out / "a.png", "report": out / "a.html"}
    result = segment(folder, out / "a.nii", model=random_model, **files)
    written = b"".join(file.read_bytes() for file in out.iterdir()) + repr(result.provenance).encode()
    for secret in (*tags.values(), "JANE", "4711"):
        assert secret.encode() not in written


def record_of(scan: Path, model, out: Path) -> str:
    segment(scan, out, volumes=out.with_name("v.csv"), model=model)
    return out.with_suffix("").with_suffix(".json").read_text(encoding="utf-8")


def test_folders_are_recorded_only_when_asked_for(scan_file, random_model, tmp_path, monkeypatch):
    """Folders are called by patients; warnings name files too, here that the ball is no head."""
    folder = tmp_path / "DOE_JANE 1970"
    (folder / "results").mkdir(parents=True)
    scan = folder / "t1.nii.gz"
    scan.write_bytes(scan_file.read_bytes())
    text = record_of(scan, random_model, folder / "results" / "x.nii.gz")
    assert "DOE_JANE" not in text
    record = json.loads(text)
    assert record["input"]["name"] == record["input"]["path"] == "t1.nii.gz"
    assert record["outputs"] == {"output": "x.nii.gz", "volumes": "v.csv"}
    assert any(warning.startswith("t1.nii.gz: The field of view") for warning in record["warnings"])
    assert record["citation"] == provenance.CITATION
    monkeypatch.setenv(provenance.KEEP_FOLDERS, "1")
    assert json.loads(record_of(scan, random_model, folder / "results" / "x.nii.gz"))["input"]["path"] == str(scan)
    monkeypatch.setenv(provenance.KEEP_FOLDERS, "0")
    monkeypatch.chdir(tmp_path)
    assert "DOE_JANE" not in record_of(Path(folder.name) / scan.name, random_model, Path("DOE_JANE 1970/y.nii.gz"))


part = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0\n", exclude_categories=("C",)), min_size=3, max_size=9
)


@settings(max_examples=100, deadline=None)
@given(st.lists(part, min_size=1, max_size=4), part)
def test_any_folder_is_taken_out_of_a_record(parts, name):
    folder = "/" + "/".join(f"_{one}_" for one in parts)
    record = {
        "input": {"name": f"{folder}/{name}", "path": f"{folder}/{name}", "shape": [1, 2]},
        "warnings": [f"{folder}/{name}: see {folder}/other, and {folder}/{name}."],
        "citation": "https://doi.org/10.1/x",
        "options": {"scans": [f"{folder}/second"], "fast": True},
        "outputs": {"output": f"{folder}/sub/out.nii"},
    }
    clean = provenance.without_folders(record)
    assert folder not in json.dumps(clean, ensure_ascii=False)
    assert clean["input"] == {"name": name, "path": name, "shape": [1, 2]} and clean["options"]["fast"] is True
    assert clean["warnings"] == [f"{name}: see other, and {name}."]
    assert clean["citation"] == record["citation"] and clean["outputs"] == {"output": "out.nii"}


# ---- full disks ----

FULL_DISK = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from synthseg_slicer import segment
    from synthseg_slicer.errors import OutputError
    scan, weights, out, room = *map(Path, sys.argv[1:4]), int(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        segment(scan, out / "a.nii.gz", volumes=out / "a.csv", picture=out / "a.png", model=weights)
    except OutputError as error:
        assert "Nothing was left behind" in str(error), error
        assert str(error).startswith(f"{out / 'a.'}"), error  # by its own name, not a temporary one
        sys.exit(3)
"""


@linux
@pytest.mark.parametrize("room", [0, 2000, 20_000])
def test_on_a_full_disk_all_outputs_appear_or_none(scan_file, tiny_weights, tmp_path, room):
    """A limit on the size of files stands in for the disk; each limit is reached by another output."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.csv").write_text("old")
    done = run_python(FULL_DISK, scan_file, tiny_weights, out, room, PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 3, done.stderr
    assert {file.name: file.read_text() for file in out.iterdir()} == {"a.csv": "old"}


# ---- spoiled scans ----


@linux
def test_a_hundred_and_fifty_spoiled_scans_are_refused_or_segmented(tmp_path):
    """The long run is ``python Testing/fuzz/fuzz_readers.py``."""
    command = [sys.executable, ROOT / "Testing" / "fuzz" / "fuzz_readers.py", "-n", "160", "--seed", "7"]
    done = subprocess.run([*command, "-o", tmp_path / "fuzz"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    everything = next(line for line in done.stdout.splitlines() if line.startswith("| all |"))
    counts = [int(word) for word in everything.split("|")[2:-1]]
    assert sum(counts) == 160 and all(counts)  # some accepted, some refused, some segmented


def test_reading_leaves_the_scan_and_its_folder_alone(scan_file):
    before = scan_file.read_bytes()
    read_scan(scan_file)
    assert [file.name for file in scan_file.parent.iterdir()] == [scan_file.name] and scan_file.read_bytes() == before
