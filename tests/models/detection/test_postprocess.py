"""Post-processing of a whole batch against the same said image by image and class by class."""

import pytest
import torch

from fastcnn import ops
from fastcnn.models.detection.heads import flatten_maps
from fastcnn.models.detection.postprocess import Candidates, suppress, suppress_padded, top_of_groups, unpad


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_boxes(*shape, seed=0):
    corner, sides = torch.rand(2, *shape, 2, generator=seeded(seed))
    return torch.cat((corner, corner + sides * 0.5), -1) * 100


def test_top_of_groups():
    scores = torch.tensor([0.1, 0.9, 0.5, 0.9, 0.3, 0.2])
    groups = torch.tensor([2, 0, 2, 0, 0, 2])
    assert top_of_groups(scores, groups, 2).tolist() == [1, 3, 2, 5]
    assert top_of_groups(scores, groups, 9).tolist() == [1, 3, 4, 2, 5, 0]
    assert top_of_groups(scores[:0], groups[:0], 2).tolist() == []


@pytest.mark.parametrize("max_detections", [5, 1000])
def test_a_batch_is_suppressed_as_its_images_are(max_detections):
    count = 300
    boxes, scores = random_boxes(count), torch.rand(count, generator=seeded(1))
    labels, images = torch.randint(4, (2, count), generator=seeded(2))
    found = suppress(Candidates(boxes, scores, labels, images), 5, iou_threshold=0.4, max_detections=max_detections)
    assert len(found) == 5 and len(found[4]["scores"]) == 0
    for image, each in enumerate(found):
        of_image = (images == image).nonzero()[:, 0]
        kept = [of_image[labels[of_image] == label] for label in range(4)]
        kept = torch.cat([index[ops.nms(boxes[index], scores[index], 0.4)] for index in kept])
        kept = kept[scores[kept].argsort(descending=True)][:max_detections]
        assert torch.equal(each["boxes"], boxes[kept])
        assert torch.equal(each["scores"], scores[kept])
        assert torch.equal(each["labels"], labels[kept])


def test_no_candidates():
    nothing = Candidates(torch.empty(0, 4), torch.empty(0), *torch.empty(2, 0, dtype=torch.int64))
    found = suppress(nothing, 2, iou_threshold=0.5, max_detections=10)
    assert [tuple(each["boxes"].shape) for each in found] == [(0, 4), (0, 4)]
    assert found[0]["labels"].dtype == torch.int64


def test_padded_suppression_is_the_same_of_fixed_shapes():
    boxes, scores = random_boxes(2, 200), torch.rand(2, 200, 5, generator=seeded(1)) ** 3
    scores[1, :, 1:] = 0.0
    options = {"iou_threshold": 0.4, "max_detections": 60}
    padded = suppress_padded(boxes, scores, score_threshold=0.1, candidates=50, **options)
    assert [tuple(each.shape) for each in padded] == [(2, 60, 4), (2, 60), (2, 60), (2,)]
    assert padded[3].tolist()[1] == 0 and not padded[0][1].any()
    first = unpad(*padded)[0]
    best, anchors = scores[0, :, 1:].T.topk(50)
    labels = torch.arange(1, 5)[:, None].expand_as(best)
    above = best > 0.1
    candidates = Candidates(boxes[0][anchors[above]], best[above], labels[above], torch.zeros_like(labels[above]))
    (wanted,) = suppress(candidates, 1, **options)
    assert all(torch.equal(first[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flattened_maps_have_the_order_of_anchors(layout):
    map_ = torch.rand(2, 3 * 5, 4, 6).contiguous(memory_format=layout)
    (flat,) = flatten_maps([map_], 5)
    assert flat.shape == (2, 4 * 6 * 3, 5)
    assert torch.equal(flat[1, (2 * 6 + 3) * 3 + 1], map_[1, 5:10, 2, 3])
