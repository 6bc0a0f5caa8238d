"""The detector that lies in the package."""

import pytest
import torch

from fastcnn import models
from fastcnn.data import SHAPES
from fastcnn.models._published import PUBLISHED, find_packaged, locate
from fastcnn.train import RECIPES, change, evaluate
from fastcnn.train.detection import Detection
from fastcnn.train.processes import Processes


def test_it_is_small_and_knows_the_shapes():
    name, tag = find_packaged()
    assert locate(PUBLISHED[name][tag]).stat().st_size <= 4e6
    net = models.create_from()
    assert net.classes == ("__background__", *SHAPES) and name == RECIPES["ssdlite"].network


@pytest.mark.parametrize("fused", [False, True])
def test_it_still_finds_shapes_in_scenes_it_has_not_seen(fused):
    name, tag = find_packaged()
    net = models.create_from().eval()
    data, _ = Detection(change(RECIPES["ssdlite"], ["held_out=120"]), net, Processes()).open(True)
    found = evaluate(net.fuse() if fused else net, data)
    published = PUBLISHED[name][tag].metrics["scenes_map"]
    assert found["mAP"] > 0.8 and abs(100 * found["mAP"] - published) < 4  # Of 120 scenes, not of 500.
    assert torch.isfinite(torch.tensor(list(found["AP"].values()))).all()
