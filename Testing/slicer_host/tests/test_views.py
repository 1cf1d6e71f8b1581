"""Pictures of the scene."""

import numpy as np
import pytest
import slicer_host

pytest.importorskip("slicer")
pytestmark = pytest.mark.skipif(not slicer_host.can_render(), reason="no EGL library to draw with")


def test_translucent_structures_blend_with_the_scan_below(host):
    import slicer

    array = np.full((40, 40, 40), 50, np.int16)
    array[5:35, 5:35, 5:35] = 200
    volume = slicer.util.addVolumeFromArray(array)
    volume.CreateDefaultDisplayNodes()
    plain = host.slice_view(volume)[200, 200].astype(int)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.GetSegmentation().AddEmptySegment("red", "red", (1.0, 0.0, 0.0))
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    slicer.util.updateSegmentBinaryLabelmapFromArray((array > 100).astype(np.uint8), segmentation, "red", volume)
    segmentation.GetDisplayNode().SetOpacity2DFill(0.25)
    tinted = host.slice_view(volume)[200, 200].astype(int)
    np.testing.assert_allclose(tinted, 0.75 * plain + 0.25 * np.array((255, 0, 0)), atol=3)
