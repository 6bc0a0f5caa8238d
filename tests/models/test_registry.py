"""create, list_models, and the rows behind them."""

import dataclasses
from pathlib import Path

import pytest
import torch

from fastcnn import models
from fastcnn.models.__main__ import PAGE, main, network_line, networks_page

DOCS = Path(__file__).parents[2] / "docs"


def test_list_models_filters():
    names = models.list_models()
    assert names == sorted(names)
    assert "resnet50" in models.list_models("resnet*")
    assert "mobilenet_v3_large" not in models.list_models("resnet*")
    assert models.list_models(task="classification") == [
        name for name in names if models.find_entry(name).row.task == "classification"
    ]
    assert models.list_models("nothing*") == []
    assert models.list_models(task="nothing") == []


def test_unknown_name_shows_close_matches():
    with pytest.raises(ValueError, match="no network is called 'resnet05'; did you mean resnet50") as error:
        models.create("resnet05")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"'qqqq'; list_models\(\) names them all"):
        models.create("qqqq")
    with pytest.raises(ValueError, match="no network is called None"):
        models.create(None)


def test_a_name_is_registered_once():
    entry = models.find_entry("resnet50")
    with pytest.raises(ValueError, match="'resnet50' is registered twice"):
        models.register({"resnet50": entry.row}, entry.build)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"num_classes": 2.5}, TypeError, "num_classes must be an int, got 2.5"),
        ({"in_channels": True}, TypeError, "in_channels must be an int, got True"),
        ({"in_channels": -3}, ValueError, "in_channels must be at least 1, got -3"),
        ({"dtype": torch.int8}, ValueError, "networks have a floating dtype, got torch.int8"),
        ({"layers": (1, 2)}, ValueError, r"layers must be 4 positive ints, got \(1, 2\)"),
        ({"pretrained": True}, TypeError, "resnet50 has no option 'pretrained'; it has block, dropout, groups"),
        ({"source": "me"}, TypeError, "resnet50 has no option 'source'"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        models.create("resnet50", device="meta", **options)


def test_bad_width():
    with pytest.raises(ValueError, match="width_mult must be positive, got 0"):
        models.create("mobilenet_v3_large", device="meta", width_mult=0)


# What public implementations of other variants count: the row's fields must reach every layer.
VARIANTS = [
    ("resnet50", {"stride_in_1x1": True}, 25_557_032, 3.858e9),
    ("resnet50", {"layers": (3, 4, 23, 3), "stride_in_1x1": True}, 44_549_160, 7.570e9),
    ("resnet50", {"layers": (3, 8, 36, 3), "stride_in_1x1": True}, 60_192_808, 11.282e9),
    ("resnet50", {"layers": (3, 8, 36, 3)}, 60_192_808, 11.51e9),
    ("resnet50", {"groups": 32, "width_per_group": 4}, 25_028_904, 4.230e9),
    ("mobilenet_v3_large", {"width_mult": 0.75}, 3_993_528, 154.6e6),
]


@pytest.mark.parametrize(("base", "options", "params", "macs"), VARIANTS)
def test_counts_of_variants(base, options, params, macs):
    counted = models.summary(models.create(base, device="meta", **options))
    assert counted.params == params
    assert counted.macs == pytest.approx(macs, rel=0.0005)


def test_rows_are_frozen_and_overrides_stay_local(typical):
    row = models.find_entry(typical).row
    net = models.create(typical, num_classes=3, device="meta")
    assert (net.row.num_classes, row.num_classes) == (3, 1000)
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.num_classes = 3
    assert row.source


def test_preprocess_resizes_crops_and_normalises(typical):
    preprocess = models.create(typical, device="meta").preprocess
    size = preprocess.input_size
    photo = torch.randint(0, 256, (3, 480, 640), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = preprocess(photo)
    assert (found.shape, found.dtype) == ((1, 3, size, size), torch.float32)
    torch.testing.assert_close(preprocess(photo.double() / 255).float(), found, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(preprocess(photo[None].expand(2, -1, -1, -1))[1:], found)
    # One colour stays itself, whatever the geometry.
    flat = torch.tensor([124, 116, 104], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 300, 200)
    wanted = (flat[:, 0, 0] / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(preprocess(flat)[0].mean((1, 2)), wanted, rtol=1e-4, atol=1e-4)


def test_preprocess_takes_the_centre():
    # 256 pixels on the shorter side need no resize, so the crop is exactly the middle 224.
    columns = torch.arange(300.0).expand(3, 256, 300) / 300
    plain = models.Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3)
    assert torch.equal(plain(columns)[0], columns[:, 16:240, 38:262])


@pytest.mark.parametrize("shape", [(224, 224), (1, 224, 224), (224, 224, 3), (3, 0, 5), (1, 1, 3, 9, 9)])
def test_preprocess_shows_a_bad_shape(shape):
    with pytest.raises(ValueError, match=r"takes \(3, H, W\) or \(N, 3, H, W\), got ") as error:
        models.Preprocess()(torch.zeros(shape))
    assert str(shape) in str(error.value)
    with pytest.raises(TypeError, match=r"uint8 or floating pixels, got torch[.]int64"):
        models.Preprocess()(torch.zeros(3, 9, 9, dtype=torch.int64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "input_size must be at least 1, got 0"),
        ({"crop_pct": 1.5}, r"crop_pct must be above 0 and at most 1, got 1\.5"),
        ({"interpolation": "nearest"}, "interpolation must be bilinear or bicubic, got 'nearest'"),
        ({"mean": (0.5,)}, "mean has 1 channels, std 3"),
    ],
)
def test_bad_preprocess(options, message):
    with pytest.raises(ValueError, match=message):
        models.Preprocess(**options)


def test_preprocess_travels_with_the_network():
    grey = models.Preprocess(input_size=32, crop_pct=1.0, mean=(0.5,), std=(0.25,))
    net = models.create("resnet50", in_channels=1, preprocess=grey, device="meta")
    torch.testing.assert_close(net.preprocess(torch.full((1, 40, 50), 0.75)), torch.ones(1, 1, 32, 32))
    assert net.preprocess(torch.zeros(4, 1, 40, 50)).shape == (4, 1, 32, 32)


def test_the_page_of_networks_is_up_to_date():
    """Its lines are held against counts in test_networks.py and detection/."""
    found = (DOCS / "networks.md").read_text()
    head, _, rows = PAGE.partition("{rows}")
    assert found.startswith(head) and found.endswith(rows)
    lines = found[len(head) : len(found) - len(rows)].splitlines()
    assert [line.split("`")[1] for line in lines] == models.list_models()


def test_command_line(capsys, monkeypatch):
    monkeypatch.setattr("fastcnn.models.__main__.list_models", lambda: ["resnet18", "resnet50"])
    assert main([]) == 0
    assert capsys.readouterr().out == networks_page()
    lines = networks_page().splitlines()[-2:]
    assert lines == [network_line(name, models.summary(name)) for name in ("resnet18", "resnet50")]
    assert main(["resnet50"]) == 0
    assert "25,557,032" in capsys.readouterr().out
    assert main(["resnet5"]) == 1
    assert "did you mean resnet50" in capsys.readouterr().err
