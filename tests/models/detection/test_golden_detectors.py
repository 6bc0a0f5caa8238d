"""Keys, detections and losses of torchvision's detectors, in float64."""

import numpy as np
import pytest
import torch
from detection_rows import EXPECTED, GOLDEN

from fastcnn import models

SLOW = ("ssd300_vgg16", "maskrcnn_resnet50_fpn")
BY_VALUE = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in GOLDEN]


def random_image(seed, shape):
    return torch.from_numpy(np.random.RandomState(seed).random_sample(shape))


def random_target(seed, image):
    """Five boxes with their areas as masks."""
    random, (height, width) = np.random.RandomState(10 + seed), image.shape[1:]
    corner, sides = random.random_sample((5, 2)) * 0.6, 0.05 + 0.3 * random.random_sample((5, 2))
    boxes = np.concatenate([corner, corner + sides], 1) * [width, height, width, height]
    masks = np.zeros((5, height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = 1
    labels = random.randint(1, 91, 5)
    return {key: torch.from_numpy(value) for key, value in {"boxes": boxes, "labels": labels, "masks": masks}.items()}


@pytest.mark.parametrize("detector", GOLDEN)
def test_state_dict_is_torchvisions(detector, golden_of):
    golden = golden_of(detector)
    net = models.create(detector, device="meta")
    state = {key: list(value.shape) for key, value in net.state_dict().items()}
    assert state == golden["state"]
    assert list(state) == list(golden["state"])
    assert models.count_params(net) == golden["parameters"]


@pytest.mark.parametrize("detector", BY_VALUE)
def test_detections_and_losses_are_torchvisions(detector, golden_of, filled):
    golden = golden_of(detector)
    options = {} if "ssd" in detector else {"min_size": 256, "max_size": 320}
    options["score_threshold"] = golden.get("options", {}).get("box_score_thresh")
    options = {key: value for key, value in options.items() if value is not None}
    net = filled(models.create(detector, dtype=torch.float64, **options))
    size = golden["size"]
    images = [random_image(1, (3, size, size + 32)), random_image(2, (3, size - 32, size))]
    with torch.inference_mode():
        detections = net(images)
    for found, wanted in zip(detections, golden["output"]["images"], strict=True):
        assert found.keys() == wanted.keys()
        for key, digest in wanted.items():
            assert list(found[key].shape) == digest["shape"], key
            value = found[key].flatten().double()
            found_ = [value.norm().item(), value.mean().item(), *value[:8].tolist(), *value[-4:].tolist()]
            wanted_ = [digest["norm"], digest["mean"], *digest["first"], *digest["last"]]
            np.testing.assert_allclose(found_, wanted_, rtol=1e-6, err_msg=key)
    torch.manual_seed(0)
    losses = net.train()(images, [random_target(seed, image) for seed, image in enumerate(images)])
    wanted = golden_of("detection_losses")["losses"][detector]
    assert losses.keys() == wanted.keys() == set(EXPECTED[detector].losses)
    for key, value in wanted.items():
        assert losses[key].item() == pytest.approx(value, rel=1e-6), key
