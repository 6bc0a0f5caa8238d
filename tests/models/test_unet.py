"""U-Nets: the paper's arithmetic, crops and weights; tiles without seams; odd sizes; what separates touching cells."""

import copy

import pytest
import torch
import torch.nn.functional as F

from fastcnn import models
from fastcnn.models.segmentation.tiling import input_side, mirror, predict_tiled
from fastcnn.models.segmentation.touching import weight_map

# Sides of the maps of figure 1: what each level's two convolutions are given, and what the up-convolutions are.
DOWN = (572, 284, 140, 68, 32)
UP = (28, 52, 100, 196)


def small(**options):
    return models.create("unet", **{"width": 2, "depth": 2, "dtype": torch.float64, **options})


def test_macs_of_figure_1():
    macs, wide, before = 0, 64, 1
    for level, side in enumerate(DOWN):
        wide = 64 << level
        macs += 9 * wide * (before * (side - 2) ** 2 + wide * (side - 4) ** 2)
        before = wide
    for side in UP:
        wide = before // 2
        macs += 4 * side**2 * before * wide
        macs += 9 * wide * (before * (2 * side - 2) ** 2 + wide * (2 * side - 4) ** 2)
        before = wide
    macs += 2 * 64 * 388**2
    assert models.count_macs("unet") == macs == 150_428_424_448


def test_skips_are_cropped_in_their_middle_and_come_first():
    net, seen = small(), []
    net.up[0].convs.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    skips = []
    net.down[1].register_forward_hook(lambda module, args, output: skips.append(output))
    net.eval()(torch.rand(1, 1, 44, 60, dtype=torch.float64))
    skip, joined = skips[0], seen[0]
    assert (skip.shape[2:], joined.shape[2:]) == ((16, 24), (8, 16))
    assert torch.equal(joined[:, : skip.shape[1]], skip[..., 4:-4, 4:-4])


def test_convolutions_begin_with_the_variance_of_section_3():
    net = models.create("unet", width=32, depth=2)
    for layer, values in ((net.down[1][3], 9 * 64), (net.up[0].up, 128)):
        assert layer.weight.var().item() == pytest.approx(2 / values, rel=0.05)
        assert not layer.bias.any()


def test_dropout_ends_the_contracting_path():
    net = models.create("unet", width=2)
    assert [isinstance(level[-1], torch.nn.Dropout) for level in net.down] == [False, False, False, True, True]
    assert not any(isinstance(m, torch.nn.Dropout) for m in models.create("unet", width=2, dropout=0.0).modules())


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_sides_that_fit(depth):
    net = models.create("unet", width=1, depth=depth, device="meta").eval()
    least = input_side(1, depth)
    for side in range(least - 2, least + 2 ** (depth + 1) + 1):
        fits = side >= least and (side - least) % 2**depth == 0
        if not fits:
            with pytest.raises(ValueError, match=rf"without padding takes sides of {least} and multiples of"):
                net(torch.empty(1, 1, side, side, device="meta"))
            continue
        found = net(torch.empty(1, 1, side, side, device="meta")).shape[-1]
        assert input_side(found, depth) == side
        assert input_side(found + 1, depth) == side + 2**depth


def test_the_paper_s_sides():
    assert input_side(388) == 572
    assert input_side(44, 3) == 132 and input_side(28, 3) == 116
    with pytest.raises(ValueError, match=r"got \(500, 572\): make 500 492 or 508, or call predict\(\)"):
        models.create("unet", width=1, device="meta")(torch.empty(1, 1, 500, 572, device="meta"))
    with pytest.raises(ValueError, match=r"got \(100, 572\): make 100 188,"):
        models.create("unet", width=1, device="meta")(torch.empty(1, 1, 100, 572, device="meta"))
    with pytest.raises(ValueError, match="an output and a depth of at least 1, got 0 and 4"):
        input_side(0)


def test_mirrored_borders():
    x = torch.arange(20.0).reshape(1, 1, 4, 5)
    assert torch.equal(mirror(x, (3, 2), (1, 4)), F.pad(x, (2, 4, 3, 1), mode="reflect"))
    # Further than the image is long: 0 1 2, and back, again and again.
    line = mirror(x[..., :1, :3], (2, 5), (1, 4))
    assert line.shape == (1, 1, 4, 12)
    assert line[0, 0, 3].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]


@pytest.mark.parametrize("sides", [(37, 52), (5, 9), (1, 40)])
@pytest.mark.parametrize("tile", [None, 44, (48, 60)])
def test_tiles_have_no_seams(sides, tile, filled):
    net = filled(small())
    x = torch.rand(2, 1, *sides, dtype=torch.float64)
    around = [(input_side(side, 2) - side) for side in sides]
    whole = net(mirror(x, (20, 20), [more - 20 for more in around]))[..., : sides[0], : sides[1]]
    with torch.inference_mode():
        found = predict_tiled(net, x, tile)
    assert found.shape == (2, 2, *sides)
    torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-10)


def test_tiles_of_volumes(filled):
    net = filled(models.create("unet3d", width=2, depth=1, dtype=torch.float64))
    x = torch.rand(1, 3, 7, 12, 5, dtype=torch.float64)
    around = [input_side(side, 1) - side for side in x.shape[2:]]
    with torch.inference_mode():
        whole = net(mirror(x, (8,) * 3, [more - 8 for more in around]))[..., :7, :12, :5]
        torch.testing.assert_close(predict_tiled(net, x, 20), whole, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(net.predict(x), whole, rtol=1e-10, atol=1e-10)


def test_tiles_that_do_not_fit():
    x = torch.zeros(1, 1, 30, 30, dtype=torch.float64)
    with pytest.raises(ValueError, match="takes sides of 44 and multiples of 4 more"):
        predict_tiled(small(), x, 50)
    with pytest.raises(ValueError, match="takes a network without padding, got padding 1"):
        predict_tiled(small(padding=1), x)
    with pytest.raises(ValueError, match=r"takes \(N, 1, H, W\), got \(1, 30, 30\)"):
        predict_tiled(small(), x[0])
    with pytest.raises(ValueError, match=r"tile must be a side or 2 of them, got \(44,\)"):
        predict_tiled(small(), x, (44,))


def test_a_padded_network_predicts_as_it_is(filled):
    net = filled(small(padding=1))
    x = torch.rand(1, 1, 13, 7, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.equal(net.predict(x), net(x))
    with pytest.raises(ValueError, match=r"images of one pixel and more, got \(0, 7\)"):
        net(x[:, :, :0])


def test_features():
    net = small(features_only=["down2", "up1"]).eval()
    found = net(torch.rand(1, 1, 44, 44, dtype=torch.float64))
    assert {name: tuple(each.shape[1:]) for name, each in found.items()} == {"down2": (4, 16, 16), "up1": (2, 4, 4)}
    below = small(features_only=["down2"])
    assert not list(below.up.children()) and len(below.down) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be an int of at least 1, got 0"),
        ({"depth": 1.5}, "depth must be an int of at least 1, got 1.5"),
        ({"padding": 2}, "padding must be 0 or 1, got 2"),
        ({"dropout": 1}, "dropout must be at least 0 and below 1, got 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("unet", device="meta", **options)


def test_batch_norms_of_volumes_are_folded(filled):
    net = filled(models.create("unet3d_x0_25", width=2, depth=1))
    x = torch.rand(1, 1, 6, 5, 7)
    fused = copy.deepcopy(net).fuse()
    assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in fused.modules())
    with torch.inference_mode():
        torch.testing.assert_close(fused(x), net(x), rtol=1e-4, atol=1e-4)


def test_a_network_learns_to_find_a_square():
    """A hundred steps of the smallest: what it is wrong about falls below a hundredth of the pixels."""
    net = models.create("unet_x0_25", width=4, depth=2)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for step in range(61):
        x = 0.3 * torch.rand(8, 3, 24, 24)
        target = torch.zeros(8, 24, 24, dtype=torch.int64)
        for index, (top, left) in enumerate(torch.randint(0, 16, (8, 2)).tolist()):
            x[index, :, top : top + 8, left : left + 8] += 0.5
            target[index, top : top + 8, left : left + 8] = 1
        logits = net(x)
        if step < 60:
            optimizer.zero_grad()
            F.cross_entropy(logits, target).backward()
            optimizer.step()
    assert (logits.argmax(1) != target).float().mean() < 0.01


def brute_force(labels, w0, sigma):
    """Equation 2, pixel by pixel."""
    rows, columns = labels.shape
    found = torch.zeros(labels.shape, dtype=torch.float64)
    cells = [(labels == each).nonzero().double() for each in labels.unique().tolist() if each]
    for row in range(rows):
        for column in range(columns):
            if labels[row, column] == 0 and len(cells) > 1:
                place = torch.tensor([row, column], dtype=torch.float64)
                first, second = sorted((each - place).norm(dim=1).min().item() for each in cells)[:2]
                found[row, column] = w0 * torch.exp(torch.tensor(-((first + second) ** 2) / (2 * sigma**2)))
    return found


def test_weights_of_touching_cells():
    labels = torch.zeros(17, 23, dtype=torch.int64)
    labels[2:9, 3:9], labels[3:10, 10:18], labels[12:16, 5:8] = 1, 7, 3
    found = weight_map(labels, class_weights=(1.0, 3.0))
    wanted = brute_force(labels, 10, 5) + torch.where(labels > 0, 3.0, 1.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    # The gap of one pixel has the most: distances 1 and 1.
    assert found.max().item() == pytest.approx(1 + 10 * torch.exp(torch.tensor(-4 / 50)).item())
    assert found.argmax().item() % 23 == 9


def test_weights_balance_the_classes():
    labels = torch.zeros(4, 10, dtype=torch.int64)
    labels[:, :2] = 1
    found = weight_map(labels)
    assert found[labels == 0].sum().item() == pytest.approx(found[labels == 1].sum().item())
    assert found.mean().item() == pytest.approx(1)
    assert torch.equal(weight_map(torch.zeros(3, 3, dtype=torch.int64)), torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"labels must be integers \(H, W\), got torch.float32 \(3, 3\)"):
        weight_map(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        weight_map(labels, sigma=0)
