"""R-CNN, SPP-net and R-CNN minus R: what is fitted, how often the backbone runs, and what they find."""

import sys

import pytest
import torch
from detection_rows import EXPECTED

from fastcnn import models, ops
from fastcnn.data import Scenes
from fastcnn.models.detection.boxes import box_iou
from fastcnn.models.detection.priors import kmeans_boxes
from fastcnn.models.detection.region_svms import FitRules, fit_ridge, fit_svm
from fastcnn.nn import SpatialPyramidPool2d, SpatialPyramidRoIPool

NETWORKS = ("rcnn_alexnet", "sppnet_zf5")


def create(name, **options):
    torch.manual_seed(0)
    return models.create(name, **{**EXPECTED[name].small, **options})


def scenes(count, seed=0):
    """A red or a green square on grey; regions are it, moved and larger, and others."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for index in range(count):
        side = 24 + 4 * (index % 3)
        x, y = torch.randint(0, 96 - side, (2,), generator=generator).tolist()
        image = torch.full((3, 96, 96), 0.5) + 0.02 * torch.randn(3, 96, 96, generator=generator)
        image[:, y : y + side, x : x + side] = torch.eye(3)[index % 2][:, None, None]
        box = torch.tensor([[x, y, x + side, y + side]]).float()
        shift = torch.randint(-4, 5, (6, 4), generator=generator)
        corners = torch.randint(0, 60, (12, 2), generator=generator).float()
        others = torch.cat((corners, corners + 30), 1)
        target = {"boxes": box, "labels": torch.tensor([1 + index % 2])}
        result.append((image.clamp(0, 1), target, torch.cat((box + shift, others))))
    return result


@pytest.fixture(scope="module", params=NETWORKS)
def fitted(request):
    """On random features that keep what an image has: the papers' initialisation is for longer training."""
    pytest.importorskip("sklearn", reason="scikit-learn is of the extra 'detection'")
    options = {"num_classes": 3, "max_detections": 3}
    if request.param == "sppnet_zf5":
        options |= {"min_size": 224, "max_size": 224}
    net = create(request.param, **options)
    torch.manual_seed(1)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    return request.param, options, net.fit(scenes(24)).eval()


@pytest.mark.parametrize("detector", NETWORKS)
def test_runs_of_the_backbone(detector):
    """N-112: as many images through it as there are regions, or one."""
    crops = detector == "rcnn_alexnet"
    net, seen = create(detector, **({"chunk": 3} if crops else {})), []
    net.eval().backbone.register_forward_hook(lambda module, args, maps: seen.append(len(args[0])))
    image, _, proposals = scenes(1)[0]
    with torch.no_grad():
        net([image], proposals=[proposals])
    assert seen == ([3] * 6 if crops else [1]) and len(proposals) == 18


def test_features_are_those_of_the_papers():
    """N-111: crops of 227 x 227, 4096 numbers of each; SPP-net's pool of 50 bins."""
    for name, pooled in (("rcnn_alexnet", 9216), ("sppnet_zf5", 12800)):
        net = models.create(name, device="meta").eval()
        seen = {}
        for path in ("backbone", "box_head", "svms", "bbox_regressors"):
            net.get_submodule(path).register_forward_hook(
                lambda module, args, output, seen=seen, path=path: seen.update({path: args[0].shape[1:]})
            )
        net.forward_layers(torch.empty(1, 3, 500, 500, device="meta"))
        assert seen["backbone"] == ((3, 227, 227) if name == "rcnn_alexnet" else (3, 500, 500))
        assert seen["box_head"] == seen["bbox_regressors"] == (pooled,) and seen["svms"] == (4096,)
        assert net.svms.weight.shape == (20, 4096) and net.bbox_regressors.weight.shape == (80, pooled)


def test_a_fitted_detector_finds_the_squares(fitted):
    """Of scenes it has not seen, by the rules of the papers."""
    _, _, net = fitted
    overlaps = []
    with torch.inference_mode():
        for image, target, proposals in scenes(6, seed=1):
            found = net([image], proposals=[proposals])[0]
            assert found["labels"][0] == target["labels"][0]
            overlaps.append(box_iou(found["boxes"][:1], target["boxes"]).item())
    assert sum(overlaps) / 6 > 0.6


def test_what_is_fitted_is_in_the_state_dict(fitted, tmp_path):
    name, options, net = fitted
    torch.save(net.state_dict(), tmp_path / "w.pth")
    loaded = create(name, **options, weights=tmp_path / "w.pth").eval()
    image, _, proposals = scenes(1, seed=2)[0]
    with torch.inference_mode():
        wanted, found = (each([image], proposals=[proposals])[0] for each in (net, loaded))
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)
    assert not [key for key, _ in net.named_parameters() if key.startswith(("svms", "bbox_regressors"))]


def test_no_regions_and_small_images(fitted):
    _, _, net = fitted
    none, dot = torch.zeros(0, 4), torch.tensor([[0.0, 0, 1, 1]])
    with torch.inference_mode():
        found = net([torch.rand(3, 40, 50), torch.rand(3, 1, 1)], proposals=[none, none])
        assert [tuple(each["boxes"].shape) for each in found] == [(0, 4)] * 2
        found = net([torch.rand(3, 40, 50), torch.rand(3, 1, 1)], proposals=[none, dot])
    assert len(found[0]["boxes"]) == 0 and found[1]["boxes"].isfinite().all()
    with pytest.raises(ValueError, match=r"proposals\[0\] must be finite with x1 < x2"):
        net([torch.rand(3, 8, 8)], proposals=[torch.zeros(1, 4)])


def test_nothing_to_fine_tune_on():
    """No objects and no regions are no loss, rather than NaN."""
    net = create("sppnet_zf5", num_classes=3).train()
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = net([torch.rand(3, 64, 64)], [target], proposals=[torch.zeros(0, 4)])
    assert losses["loss_classifier"].item() == 0
    losses["loss_classifier"].backward()


def test_samples_are_of_all_images():
    """T-031: 128 regions of them all, 32 positives at most."""
    net, samples = create("sppnet_zf5", num_classes=3), scenes(10)
    boxes = [proposals.repeat(5, 1) for _, _, proposals in samples]
    taken, labels = net.sample(boxes, [target for _, target, _ in samples])
    assert len(labels) == 128 == sum(map(len, taken)) and int((labels > 0).sum()) == 32
    assert len({len(each) for each in taken}) > 1


def test_bad_fits():
    pytest.importorskip("sklearn", reason="scikit-learn is of the extra 'detection'")
    net, samples = create("sppnet_zf5", num_classes=4), scenes(2)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for given, message in (
        ([], "SVMs need one image or more, got none"),
        (samples, "an SVM needs positives, got none of class 3 in 2 images"),
    ):
        with pytest.raises(ValueError, match=message):
            net.fit(given)
    image, target, _ = samples[0]
    one = create("sppnet_zf5", num_classes=2)
    with pytest.raises(ValueError, match="an SVM needs negatives, got none for class 1 in 1 images"):
        one.fit([(image, target, torch.zeros(0, 4))])
    with pytest.raises(ValueError, match=r"labels'\] must be 1 to 1, got 2"):
        one.fit([samples[1]])
    assert net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_svm_separates_and_mining_sees_what_matters():
    """On one pass the SVM of mined negatives is that of all of them: those left out are beyond the margin."""
    svm = pytest.importorskip("sklearn.svm", reason="scikit-learn is of the extra 'detection'")
    generator = torch.Generator().manual_seed(0)
    positives = torch.randn(40, 5, generator=generator).double() + 2
    images = [torch.randn(30, 5, generator=generator).double() - 2 for _ in range(20)]
    weight, bias = fit_svm(positives, images, FitRules(c=0.1, limit=100))
    negatives = torch.cat(images)
    assert (positives @ weight + bias > 0).float().mean() > 0.95 and (
        negatives @ weight + bias < 0
    ).float().mean() > 0.95
    everything = svm.LinearSVC(
        C=0.1, loss="hinge", class_weight={1: 2.0}, intercept_scaling=10, max_iter=100_000, random_state=0
    )
    everything.fit(torch.cat((positives, negatives)).numpy(), [1] * 40 + [0] * 600)
    torch.testing.assert_close(weight, torch.from_numpy(everything.coef_[0]), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_ridge_is_the_minimum(shape):
    """Its gradient is zero: in both forms of the solution."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(shape[0], columns, generator=generator).double() for columns in (shape[1], 4))
    parts = [part.requires_grad_() for part in fit_ridge(x, y, 7.0)]
    loss = (x @ parts[0].T + parts[1] - y).square().sum() + 7 * parts[0].square().sum()
    for gradient in torch.autograd.grad(loss, parts):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)
    assert [part.abs().sum().item() for part in fit_ridge(x[:0], y[:0], 7.0)] == [0, 0]


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ImportError, match=r"an SVM needs scikit-learn: pip install 'fastcnn\[detection\]'"):
        fit_svm(torch.zeros(1, 2).double(), [])


def test_one_level_is_roi_pooling():
    """N-113; of the whole map it is the pyramid of the map."""
    x = torch.randn(1, 5, 13, 17, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([[0.0, 0, 0, 16, 12]])
    assert torch.equal(SpatialPyramidRoIPool((7,), 1.0)(x, whole), ops.roi_pool(x, whole, 7, 1.0).flatten(1))
    for levels in ((7,), (6, 3, 2, 1)):
        assert torch.equal(SpatialPyramidRoIPool(levels, 1.0)(x, whole), SpatialPyramidPool2d(levels)(x))
    assert SpatialPyramidRoIPool((6, 3, 2, 1), 1.0)(x, whole[:0]).shape == (0, 250)


def test_a_backbone_without_a_pyramid():
    with pytest.raises(ValueError, match="SPP-net needs a backbone with a spatial pyramid, 'zfnet' has Adaptive"):
        models.create("sppnet_zf5", backbone="zfnet", device="meta")


def test_fixed_length_of_any_image():
    net = models.create("zfnet_spp", device="meta").eval()
    for size in ((224, 224), (61, 300), (180, 97)):
        assert net(torch.empty(2, 3, *size, device="meta")).shape == (2, 1000)


def test_clusters_of_boxes():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(300, 2, 2, generator=generator).double().sort(1).values.flatten(1)
    found = kmeans_boxes(boxes, 6, seed=1)
    assert torch.equal(found, kmeans_boxes(boxes, 6, seed=1)) and found.shape == (6, 4)
    nearest = (boxes[:, None] - found).square().sum(2).argmin(1)
    means = torch.stack([boxes[nearest == cluster].mean(0) for cluster in range(6)])
    torch.testing.assert_close(found, means)
    assert ((found[:, 2:] - found[:, :2]).prod(1).diff() >= 0).all()
    torch.testing.assert_close(kmeans_boxes(boxes, 1), boxes.mean(0, keepdim=True))
    for bad, k, message in (
        (boxes * 100, 3, r"from 0 to 1, got \(300, 4\) up to \d"),
        (boxes[:, :2], 2, r"from 0 to 1, got \(300, 2\)"),
        (boxes[:4], 5, "k must be between 1 and the 4 different boxes, got 5"),
    ):
        with pytest.raises(ValueError, match=message):
            kmeans_boxes(bad, k)


def test_clusters_are_nearer_to_new_boxes_than_random_regions():
    seen, new = (torch.cat([target["boxes"] for _, target in Scenes(40, 64, seed)]) / 64 for seed in (0, 1))
    random = create("rcnn_minus_r_zf5", counted=32).regions
    clusters, chance = (box_iou(new, regions.float()).amax(1).mean() for regions in (kmeans_boxes(seen, 32), random))
    assert clusters > 1.2 * chance  # 0.47 and 0.32.


def test_rcnn_minus_r_looks_at_clusters():
    """The same of every image, in its pixels; the state dict has them."""
    net, samples = create("rcnn_minus_r_zf5", num_classes=3, counted=8).eval(), scenes(12)
    regions = kmeans_boxes(torch.cat([target["boxes"] for _, target, _ in samples]).double() / 96, 8)
    net.set_regions(regions)
    torch.testing.assert_close(net.state_dict()["regions"].double(), regions)
    seen = []
    net.roi_heads.box_roi_pool.register_forward_hook(lambda module, args, output: seen.extend(args[1]))
    with torch.no_grad():
        net([torch.rand(3, 64, 80), torch.rand(3, 64, 64)])
    torch.testing.assert_close(seen[0], (regions * torch.tensor([80, 64, 80, 64])).float())
    torch.testing.assert_close(seen[1], (regions * 64).float())
    with pytest.raises(ValueError, match=r"regions must be \(8, 4\), got \(3, 4\)"):
        net.set_regions(regions[:3])
    with pytest.raises(ValueError, match="must be finite with x1 < x2"):
        net.set_regions(torch.zeros(8, 4))
