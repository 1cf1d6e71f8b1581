"""The table of sample data, as far as it can be checked without a network."""

from __future__ import annotations

import re

import pytest

from synthseg_slicer.samples import SAMPLES

# Names of head and brain scans in Slicer's own table: SampleData.downloadSample() takes the first that has a name.
SLICERS_NAMES = {"MRHead", "CTMRBrain", "CBCTMRHead", "MRBrainTumor1", "MRBrainTumor2", "DTIBrain"}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_sample_is_checked_against_the_digest_in_its_address(sample):
    assert re.fullmatch(r"SHA256:[0-9a-f]{64}", sample.checksum)
    assert sample.uri.startswith("https://") and sample.uri.endswith(sample.checksum.replace(":", "/"))
    assert sample.fileName.endswith(".nrrd")


@pytest.mark.parametrize("attribute", ["name", "nodeName", "fileName", "sha256"])
def test_no_two_samples_are_called_the_same(attribute):
    values = [getattr(sample, attribute) for sample in SAMPLES]
    assert len(set(values)) == len(values)


def test_no_sample_hides_one_of_slicers_own():
    assert not SLICERS_NAMES & {sample.name for sample in SAMPLES}
