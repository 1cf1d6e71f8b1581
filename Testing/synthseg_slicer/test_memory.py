"""How much memory a scan takes and how much there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from synthseg_slicer import memory

VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                              100000.
Pages active:                            300000.
Pages inactive:                          200000.
Pages speculative:                        10000.
Pages throttled:                              0.
Pages wired down:                        150000.
Pages purgeable:                           5000.
"Translation faults":                 100000000.
"""


@pytest.mark.parametrize(
    "shape, voxel_size, cores, measured",
    [  # MB, from Testing/benchmarks/memory.py
        ((128, 128, 128), 1.0, 1, 840),
        ((128, 128, 128), 1.0, 4, 1510),
        ((160, 160, 160), 1.0, 2, 1537),
        ((192, 224, 192), 1.0, 2, 2036),
        ((192, 224, 192), 1.0, 4, 2957),
        ((256, 256, 256), 1.0, 2, 3210),
        ((320, 320, 320), 0.5, 4, 2311),
        ((512, 512, 512), 0.35, 4, 3217),
        ((512, 512, 512), 0.2, 4, 1967),
    ],
)
def test_estimate_is_near_what_was_measured(shape, voxel_size, cores, measured):
    estimate = memory.estimate(shape, [voxel_size] * 3, cores=cores)
    assert 0.75 < estimate / 2**20 / measured < 1.25


@pytest.mark.parametrize("size, measured", [(120, 1033), (160, 1726), (200, 2557)])
def test_estimate_of_lesions_with_anatomy_is_near_what_was_measured(size, measured):
    """MB, one core, two passes with a random network of the bundled one's size."""
    estimate = memory.estimate((size,) * 3, (1.0,) * 3, lesions=True, cores=1)
    assert 0.85 < estimate / 2**20 / measured < 1.15


def test_estimate_counts_cubic_millimetres_more_than_voxels():
    thick = memory.estimate((256, 256, 40), (0.9, 0.9, 4.0), cores=4)
    resampled = memory.estimate((230, 230, 160), (1.0, 1.0, 1.0), cores=4)
    assert 0.95 < thick / resampled < 1.0
    assert memory.estimate((400, 400, 400), (0.4,) * 3, native=True) > memory.estimate((400, 400, 400), (0.4,) * 3)


def test_available_memory_is_less_than_all_memory():
    available = memory.available()
    if available is None:
        pytest.skip("unknown on this system")
    assert 2**24 < available < 2**50
    if sys.platform == "linux":
        total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
        assert available < total


def test_available_memory_of_a_mac_counts_what_can_be_given_back(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    answer = subprocess.CompletedProcess(["vm_stat"], 0, VM_STAT)
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: answer)
    assert memory.available() == 16384 * 315000


@pytest.mark.parametrize("trouble", [FileNotFoundError("no vm_stat"), subprocess.CalledProcessError(1, "vm_stat")])
def test_available_memory_is_unknown_where_nothing_tells(monkeypatch, trouble):
    def fail(*arguments, **options):
        raise trouble

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", fail)
    assert memory.available() is None
