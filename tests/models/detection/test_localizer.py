"""Classification and localisation on one network, and a classifier on every window of an image."""

import pytest
import torch
from torch import nn

from fastcnn import models
from fastcnn.models.detection.boxes import box_iou
from fastcnn.models.detection.sliding_window import SlidingWindowDetector

SMALL = {"num_classes": 3, "backbone_options": (("hidden", 32),)}


def create(**options):
    torch.manual_seed(0)
    return models.create("localizer_alexnet", **{**SMALL, **options})


def batch():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[10.0, 5, 40, 60], [0, 0, 70, 67]])
    return torch.rand(2, 3, 67, 80, generator=generator), {"boxes": boxes, "labels": torch.tensor([0, 2])}


def test_counts_and_shapes():
    """N-109: 4096 to 1000 and 4096 to 4, on AlexNet's 60,965,224 parameters."""
    net = models.create("localizer_alexnet", device="meta").eval()
    assert net.cls_score.weight.shape == (1000, 4096) and net.bbox_pred.weight.shape == (4, 4096)
    counted = models.summary("localizer_alexnet")
    assert counted.params == 60_965_224 + 4 * 4097
    assert counted.macs == models.count_macs("alexnet") + 4 * 4096
    found = net(torch.empty(2, 3, 227, 227, device="meta"))
    assert {key: tuple(value.shape) for key, value in found.items()} == {"logits": (2, 1000), "boxes": (2, 4)}
    assert models.create("localizer_alexnet", device="meta").replace_head(7).cls_score.out_features == 7


def test_losses_are_the_weighted_sum_of_softmax_and_squares():
    images, targets = batch()
    net = create(box_weight=0.5)
    net.hidden.eval()
    losses = net(images, targets)
    found = net.eval()(images)
    side = torch.tensor([80.0, 67, 80, 67])
    squares = ((found["boxes"] - targets["boxes"]) / side).square().sum() / 2
    torch.testing.assert_close(losses["loss_box_reg"], 0.5 * squares)
    logarithms = found["logits"].log_softmax(1)
    torch.testing.assert_close(losses["loss_classifier"], -(logarithms[0, 0] + logarithms[1, 2]) / 2)


def test_gradients_reach_both_heads_and_what_they_share():
    images, targets = batch()
    net = create()
    losses = net(images, targets)
    for head, other, loss in (
        ("cls_score", "bbox_pred", losses["loss_classifier"]),
        ("bbox_pred", "cls_score", losses["loss_box_reg"]),
    ):
        net.zero_grad()
        loss.backward(retain_graph=True)
        assert net.get_submodule(head).weight.grad.any() and net.get_submodule(other).weight.grad is None
        assert net.features[0].weight.grad.any()
    net.zero_grad()
    sum(losses.values()).backward()
    assert not [key for key, p in net.named_parameters() if p.grad is None]


def test_bad_targets():
    images, targets = batch()
    net = create(device="meta")
    for given, message in (
        (None, "Localizer needs targets in training mode"),
        ({"boxes": targets["boxes"][:1], "labels": targets["labels"][:1]}, "one for each of 2 images, got 1"),
        ({**targets, "labels": torch.tensor([0, 3])}, "must be 0 to 2, got 3"),
        ({**targets, "boxes": -targets["boxes"]}, "must be finite with x1 < x2"),
    ):
        with pytest.raises(ValueError, match=message):
            net(images, given)
    with pytest.raises(ValueError, match=r"takes \(N, 3, H, W\), got \(2, 1, 67, 80\)"):
        net(images[:, :1])
    with pytest.raises(ValueError, match="box_weight must not be negative, got -1"):
        create(box_weight=-1)


class Brightness(nn.Module):
    """Object where the window is white and its border black."""

    def forward(self, windows):
        inside = windows[:, :, 2:-2, 2:-2].mean((1, 2, 3))
        border = windows.mean((1, 2, 3)) * 256 - inside * 144
        score = 20 * (inside - border / 112 - 0.8)
        return torch.stack((-score, score), 1)


@pytest.fixture
def detector():
    return SlidingWindowDetector(Brightness(), (16, 16), 2, (1.0, 0.5)).eval()


def test_windows_find_a_square_of_either_size(detector):
    image = torch.zeros(3, 60, 72)
    image[:, 20:32, 8:20] = 1
    image[:, 12:36, 40:64] = 1  # Twice as large: 12 pixels of the second level.
    found = detector([image, torch.zeros(3, 60, 72)])
    assert [len(each["boxes"]) for each in found] == [2, 0]
    wanted = torch.tensor([[6.0, 18, 22, 34], [36, 8, 68, 40]])
    boxes = found[0]["boxes"]
    torch.testing.assert_close(box_iou(boxes, wanted).amax(1), torch.ones(2))
    assert found[0]["labels"].tolist() == [1, 1] and (found[0]["scores"].diff() <= 0).all()


def test_every_window_has_a_score(detector):
    boxes, scores = detector.window_scores(torch.rand(3, 40, 36, generator=torch.Generator().manual_seed(0)))
    assert len(boxes) == len(scores) == 13 * 11 + 3 * 2
    assert boxes.min() == 0 and boxes[:, 2].max() == 36 and boxes[:, 3].max() == 40
    torch.testing.assert_close(scores.sum(1), torch.ones(len(scores)))


def test_a_trained_classifier_detects_a_shape():
    """Trained on windows of noise with a disc in the middle, or elsewhere: in two of three, the background."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)
    )
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")

    def disc(row, column):
        return ((y - row) ** 2 + (x - column) ** 2 <= 36).float()

    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(150):
        windows, labels = 0.3 * torch.rand(24, 3, 16, 16), torch.arange(24) % 3 == 0
        offset = torch.where(labels[:, None], torch.randint(-1, 2, (24, 2)), torch.randint(5, 16, (24, 2)))
        shapes = torch.stack([disc(7.5 + row, 7.5 + column) for row, column in offset.tolist()])
        loss = nn.functional.cross_entropy(net((windows + 0.7 * shapes[:, None]).clamp(0, 1)), labels.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    image = 0.3 * torch.rand(3, 48, 64)
    image[:, 20:36, 30:46] += 0.7 * disc(7.5, 7.5)
    found = SlidingWindowDetector(net.eval(), (16, 16), 2, score_threshold=0.9)([image])[0]
    assert box_iou(found["boxes"][:1], torch.tensor([[30.0, 20, 46, 36]])).item() > 0.5


def test_small_images_and_bad_arguments(detector):
    found = detector([torch.rand(3, 1, 1), torch.rand(3, 8, 400)])
    assert [tuple(each["boxes"].shape) for each in found] == [(0, 4)] * 2
    for arguments, message in (
        (((0, 16), 2), r"at least 1, got \(0, 16\)"),
        (((16, 16), 2, ()), r"scales must be above 0, one or more, got \(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            SlidingWindowDetector(Brightness(), *arguments)
    with pytest.raises(RuntimeError, match="classifier in eval mode"):
        detector.train()([torch.rand(3, 20, 20)])
