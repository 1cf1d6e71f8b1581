"""Freed memory stays with the process, where the C library can be told so."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from synthseg_slicer.allocation import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
convolution = torch.nn.Conv3d(1, 8, 3, padding=1)
image = torch.rand(1, 1, 96, 96, 96)
with torch.inference_mode():
    convolution(image)
    start = faults()
    for _ in range(5):
        convolution(image).relu()
print(faults() - start)
"""


def page_faults(keep):
    command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_a_network_reuses_freed_memory_instead_of_fresh_pages():
    # 0.26 to 0.65 of them, depending on what else lies between the blocks
    assert page_faults(keep=True) < 0.8 * page_faults(keep=False)


ARENAS = """
import threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from synthseg_slicer.allocation import keep_freed_memory
assert keep_freed_memory(one_arena={one_arena})
together, turns = threading.Barrier(4), threading.Lock()
def work(_):
    together.wait()
    with turns:
        np.ones(5_000_000)
with ThreadPoolExecutor(4) as pool:
    list(pool.map(work, range(4)))
    print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_threads_that_take_turns_share_freed_memory():
    def resident(one_arena):
        command = [sys.executable, "-c", ARENAS.format(one_arena=one_arena)]
        return int(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)

    assert resident(one_arena=False) - resident(one_arena=True) > 80e6  # of three times 40 MB


def test_other_c_libraries_are_left_alone(monkeypatch):
    from synthseg_slicer import allocation

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: pytest.fail("touched"))
    assert allocation.keep_freed_memory() is False
