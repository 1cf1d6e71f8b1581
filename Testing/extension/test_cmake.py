"""Configure and install the extension with real CMake against a stand-in for Slicer's package, without a compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STAND_IN = Path(__file__).parent / "cmake"
SCRIPTS = Path(sys.executable).parent  # where pip puts the cmake wheel's programs, on the PATH or not
MODULES = "lib/Slicer-5.10/qt-scripted-modules"


def program(name: str) -> str:
    path = shutil.which(name, path=str(SCRIPTS)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: pip install cmake")
    return path


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, **options)


def configure(source: Path, build: Path) -> subprocess.CompletedProcess:
    cmake = program("cmake")
    return run(
        *(cmake, "-S", source, "-B", build, "-G", "Unix Makefiles", f"-DSlicer_DIR={STAND_IN}"),
        # Nothing is built: a compiler and make need not exist.
        *(f"-DCMAKE_TOOLCHAIN_FILE={STAND_IN / 'toolchain.cmake'}", f"-DCMAKE_MAKE_PROGRAM={cmake}"),
    )


@pytest.fixture(scope="module")
def build(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configured build tree."""
    folder = tmp_path_factory.mktemp("build")
    result = configure(root, folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def installed(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules' folder of the installed extension."""
    prefix = tmp_path_factory.mktemp("install")
    result = run(program("cmake"), "--install", build, "--prefix", prefix)
    assert result.returncode == 0, result.stderr
    return prefix / MODULES


def test_the_lists_in_cmake_name_every_file_of_the_module_and_no_other(root, installed):
    listing = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "SynthSegSlicer", cwd=root)
    if listing.returncode != 0:
        pytest.skip("not a git clone")
    module = {line.removeprefix("SynthSegSlicer/") for line in listing.stdout.splitlines()} - {"CMakeLists.txt"}
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert files == module | {"Scripts/segment_folder.py"}


def test_the_installed_package_is_importable_and_finds_its_weights(installed, tmp_path):
    code = "import synthseg_slicer.cards as w; print(w.__file__); print(*w.bundled_models().values(), sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": str(installed / "Logic"), "PYTHONDONTWRITEBYTECODE": "1"}
    result = run(sys.executable, "-c", code, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    package, *models = result.stdout.splitlines()
    assert Path(package).is_relative_to(installed)
    assert models and all(Path(model).is_relative_to(installed) for model in models)


def test_the_self_test_of_the_module_is_registered(build):
    listing = run(program("ctest"), "--show-only=json-v1", cwd=build)
    assert [test["name"] for test in json.loads(listing.stdout)["tests"]] == ["py_SynthSegSlicer"]


def test_cmake_understands_the_description_as_the_index_reads_it(build, description):
    lines = (build / "description.txt").read_text().splitlines()
    assert dict(line.split("=", 1) for line in lines) == description


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("NAME Mod SCRIPTS Mod.py Gone.py RESOURCES", "Gone.py is listed and does not exist"),
        ("NAME Mod SCRIPTS Mod.py Mod.py RESOURCES a.png", "listed twice"),
        ("NAME Mod SCRIPTS RESOURCES a.png", "lack Mod.py"),
        ("NAME Mod SCRIPTS Mod.py a.png RESOURCES", "a.png is not Python"),
        ("NAME Mod SCRIPTS Mod.py RESOURCES ../a.png", "would leave"),
        ("NAME Mod SCRIPT Mod.py", "Bad arguments"),
    ],
)
def test_the_stand_in_refuses_mistakes(arguments, message, tmp_path):
    (tmp_path / "Mod.py").touch()
    (tmp_path / "a.png").touch()
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16.3...3.31)\nproject(Mod)\nfind_package(Slicer REQUIRED)\n"
        f"include(${{Slicer_USE_FILE}})\nslicerMacroBuildScriptedModule({arguments})\n"
    )
    result = configure(tmp_path, tmp_path / "build")
    assert result.returncode != 0
    assert message in " ".join(result.stderr.split())
