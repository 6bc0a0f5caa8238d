"""What the losses of proposals and regions are where there is little or nothing to learn from."""

import torch

from fastcnn import models
from fastcnn.models.detection.anchors import AnchorGenerator
from fastcnn.models.detection.rpn import ProposalRules, RegionProposalNetwork
from fastcnn.models.detection.single_map import PAPER

NOTHING = {"boxes": torch.empty(0, 4), "labels": torch.empty(0, dtype=torch.int64)}


def proposals_of(side, rules):
    torch.manual_seed(0)
    return RegionProposalNetwork(4, AnchorGenerator([(side,)], (1.0,)), rules)


def test_no_anchor_is_inside_a_narrow_image():
    """Then, as the paper leaves out those that cross the border, there is no loss, rather than NaN."""
    net = proposals_of(128, PAPER)
    target = {"boxes": torch.tensor([[5.0, 5, 60, 40]]), "labels": torch.tensor([1])}
    _, losses = net([torch.rand(1, 4, 4, 32)], (64, 512), [(64, 512)], [target])
    assert [loss.item() for loss in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


def test_the_best_anchor_inside_the_image_finds_a_box():
    """The best anchor of all crosses the border, as the box, and takes no part; the best of the others does."""
    net = proposals_of(64, ProposalRules(crossing=False))
    maps, size = [torch.rand(1, 4, 8, 8)], (128, 128)
    target = {"boxes": torch.tensor([[-16.0, -16, 48, 48]]), "labels": torch.tensor([1])}
    _, losses = net(maps, size, [size], [target])
    codes, (anchors,) = net.head(maps)[1][0], net.anchors(size, maps)
    index = int((anchors == torch.tensor([0.0, 0, 64, 64])).all(1).nonzero())
    wanted = net.coder.encode(target["boxes"], anchors[index : index + 1])
    inside = ((anchors >= 0) & (anchors <= 128)).all(1)
    expected = torch.nn.functional.smooth_l1_loss(codes[0, index], wanted[0], beta=1 / 9, reduction="sum")
    torch.testing.assert_close(losses["loss_rpn_box_reg"], expected / inside.sum())


def test_no_proposals_and_no_objects():
    """Regions of an image where nothing was proposed and nothing is."""
    net = models.create("fastrcnn_caffenet", min_size=64, max_size=96, num_classes=3, device="meta").to_empty(
        device="cpu"
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1e-3)
    losses = net([torch.rand(3, 64, 64)], [NOTHING], proposals=[torch.empty(0, 4)])
    assert [loss.item() for loss in losses.values()] == [0, 0]
    sum(losses.values()).backward()
