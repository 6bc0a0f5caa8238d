"""R-FCN's score maps, votes and online hard example mining."""

import pytest
import torch
import torch.nn.functional as F

from fastcnn import models
from fastcnn.models.detection.coders import BoxCoder
from fastcnn.models.detection.roi_heads import RegionRules

SMALL = (("layers", (1, 1, 1, 1)), ("replace_stride_with_dilation", (False, False, True)))


def test_score_maps():
    """Dai et al., section 2.2: k^2 (C + 1) and 4 k^2 maps on 1024 channels of stride 16."""
    net = models.create("rfcn_resnet101", num_classes=21, device="meta")
    pool = net.roi_heads.box_roi_pool
    assert pool.cls_score.weight.shape == (49 * 21, 1024, 1, 1) and pool.bbox_pred.weight.shape == (196, 1024, 1, 1)
    assert net.backbone.strides == (16, 16) and pool.scale == 1 / 16
    holes = [m.dilation for name, m in net.backbone.body.named_modules() if "layer4" in name and "conv2" in name]
    assert holes == [(1, 1), (2, 2), (2, 2)]


def test_bins_vote_with_their_own_maps():
    """Of constant maps, the mean of a class's constants."""
    net = models.create("rfcn_resnet50", num_classes=3, bins=2, backbone_options=SMALL).eval()
    pool = net.roi_heads.box_roi_pool
    with torch.no_grad():
        for layer in (pool.cls_score, pool.bbox_pred):
            layer.weight.zero_()
            layer.bias.copy_(torch.arange(len(layer.bias)).float() ** 2)
        maps = net.backbone(torch.rand(1, 3, 96, 96))
        boxes = [torch.tensor([[10.0, 10, 60, 60], [30, 0, 75, 40]])]
        logits, codes = net.roi_heads.predict(maps, boxes, [(96, 96)])
    squares = torch.arange(16).float() ** 2
    torch.testing.assert_close(logits, squares[:12].view(3, 4).mean(1).expand(2, 3))
    torch.testing.assert_close(codes, squares.view(4, 4).mean(1).expand(2, 1, 4))


@pytest.mark.parametrize("hardest", [None, 3])
def test_hardest_regions_count(hardest):
    """Of each image; against a loop over its regions."""
    torch.manual_seed(0)
    rules = RegionRules(samples=1 << 30, positive_fraction=1.0, hardest=hardest)
    net = models.create(
        "rfcn_resnet50", num_classes=4, backbone_options=SMALL, regions=rules, frozen_norms=True, dtype=torch.float64
    )
    sizes = [(128, 128)] * 2
    maps = net.backbone(torch.rand(2, 3, 128, 128, dtype=torch.float64))
    boxes = torch.tensor([[8.0, 8, 90, 80], [30, 40, 120, 120]], dtype=torch.float64)
    proposals = [torch.cat((boxes + 3, boxes.flip(1).sort(1).values, boxes / 2)), boxes[:1] - 4]
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 3])}, {"boxes": boxes[:1], "labels": torch.tensor([2])}]
    losses = net.roi_heads.losses(maps, proposals, sizes, targets)
    regions = net.roi_heads.sample(proposals, targets)
    assert [len(each) for each in regions.boxes] == [8, 2]
    logits, codes = net.roi_heads.predict(maps, regions.boxes, sizes)
    entropy, box_loss, start = [], [], 0
    for target, region, match, labels in zip(targets, *regions, strict=True):
        rows = []
        for box, index, label in zip(region, match, labels, strict=True):
            first = F.cross_entropy(logits[start], label)
            wanted = BoxCoder((10, 10, 5, 5)).encode(target["boxes"][index], box)
            second = F.smooth_l1_loss(codes[start, 0], wanted, beta=1 / 9, reduction="sum") * (label > 0)
            rows.append((first.item(), second.item()))
            start += 1
        rows = sorted(rows, key=sum, reverse=True)[:hardest]
        entropy += [first for first, _ in rows]
        box_loss += [second for _, second in rows]
    assert len(entropy) == (10 if hardest is None else 5) and any(box_loss)
    assert losses["loss_classifier"].item() == pytest.approx(sum(entropy) / len(entropy))
    assert losses["loss_box_reg"].item() == pytest.approx(sum(box_loss) / len(entropy))
