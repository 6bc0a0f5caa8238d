"""Detections in pixels: where lines, labels and masks lie."""

import builtins

import pytest
import torch

from fastcnn.data import Scenes, draw_detections, read_image, write_image
from fastcnn.data.draw import label_colour, label_name

pytest.importorskip("PIL.Image")


def found(*boxes, labels=None, **more):
    labels = torch.tensor(labels or [1] * len(boxes))
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": labels, **more}


def changed(image, drawn):
    """The smallest box around the pixels that differ."""
    rows, columns = (drawn != image).any(0).nonzero().unbind(1)
    return [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def test_a_box_is_where_it_says():
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    drawn = draw_detections(image, found((50.0, 80.0, 151.0, 121.0), labels=[7]))
    colour = torch.tensor(label_colour(7), dtype=torch.uint8)
    for x, y in [(50, 80), (150, 80), (50, 120), (150, 120), (100, 120)]:
        assert torch.equal(drawn[:, y, x], colour)
    assert not drawn[:, 81:120, 51:150].any() and not drawn[:, 121:].any() and not drawn[:, :, 151:].any()
    assert drawn[:, :80, 50:].any() and not image.any()  # The label stands above; the image itself is as it was.
    assert torch.equal(drawn, draw_detections(image, found((50.0, 80.0, 151.0, 121.0), labels=[7])))


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (12, 12), (40, 60), (900, 1200)])
@pytest.mark.parametrize("corner", ["upper left", "lower right", "outside"])
def test_everything_stays_in_the_image(size, corner):
    height, width = size
    box = {
        "upper left": (0.0, 0.0, width / 2, height / 2),
        "lower right": (width * 0.9, height * 0.9, float(width), float(height)),
        "outside": (-1e6, -5.0, 1e6, height + 9.0),
    }[corner]
    image = torch.full((3, height, width), 9, dtype=torch.uint8)
    drawn = draw_detections(image, found(box, scores=torch.tensor([0.25])), ["", "a name that is long"])
    assert drawn.shape == image.shape
    # Two rows of labels would be drawn for the same box if text were cut at the border.
    inner = draw_detections(image, found(box), [""] * 2)
    assert (drawn != image).any() and (inner != image).any()


def test_lines_and_text_grow_with_the_image():
    heights = []
    for scale in (1, 4):
        image = torch.zeros(3, 300 * scale, 300 * scale, dtype=torch.uint8)
        drawn = draw_detections(image, found([100.0 * scale] * 2 + [200.0 * scale] * 2))
        line = int((drawn[:, 150 * scale, : 150 * scale] != 0).any(0).sum())
        heights.append((line, 100 * scale - changed(image, drawn)[1]))
    assert heights[0][0] == 2 and heights[1][0] == 8 and heights[1][1] > 2 * heights[0][1] > 10


def test_masks_are_translucent_and_the_surest_is_on_top():
    image = torch.full((3, 60, 60), 100, dtype=torch.uint8)
    masks = torch.zeros(2, 1, 60, 60)
    masks[0, 0, 30:40, 30:40], masks[1, 0, 30:50, 30:50] = 0.9, 0.51
    masks[1, 0, 50:] = 0.5  # Not over a half.
    drawn = draw_detections(image, found((2.0, 2, 4, 4), (2.0, 2, 4, 4), labels=[1, 2], masks=masks)).float()
    one, two = (torch.tensor(label_colour(label)).float() for label in (1, 2))
    under = 100 + 0.45 * (two - 100)
    assert torch.allclose(drawn[:, 45, 45], under, atol=1)
    assert torch.allclose(drawn[:, 35, 35], under + 0.45 * (one - under), atol=1)
    assert torch.equal(drawn[:, 55, 30], torch.full((3,), 100.0))


def test_a_target_of_a_data_set():
    image, target = Scenes(3, 96, seed=1)[0]
    drawn = draw_detections((image * 255).round().to(torch.uint8), target, ["__background__", *Scenes(1).classes])
    assert drawn.shape == image.shape and len(target["labels"])
    nothing = draw_detections(drawn, found())
    assert torch.equal(nothing, drawn) and nothing is not drawn


def test_names_and_colours():
    assert [label_name(label, ("a", "b")) for label in (0, 1, 2, -1)] == ["a", "b", "2", "-1"]
    assert len({label_colour(label) for label in range(91)}) == 91
    for label in range(90):
        assert sum(abs(a - b) for a, b in zip(label_colour(label), label_colour(label + 1), strict=True)) > 100


@pytest.mark.parametrize(
    ("image", "detections", "message"),
    [
        (torch.zeros(3, 9, 9), found(), r"pixels must be uint8 \(3, H, W\), got torch.float32 \(3, 9, 9\)"),
        (torch.zeros(1, 9, 9, dtype=torch.uint8), found(), r"got torch.uint8 \(1, 9, 9\)"),
        (
            torch.zeros(3, 9, 9, dtype=torch.uint8),
            found((1.0, 1, 2, 2), labels=[1, 2]),
            r"boxes must be \(2, 4\) and scores \(2,\), got \(1, 4\), \(2,\)",
        ),
        (
            torch.zeros(3, 9, 9, dtype=torch.uint8),
            found((1.0, 1, 2, 2), masks=torch.zeros(1, 1, 9, 8)),
            r"masks must be \(1, 9, 9\), got \(1, 9, 8\)",
        ),
    ],
)
def test_bad_input(image, detections, message):
    with pytest.raises(ValueError, match=message):
        draw_detections(image, detections)


def test_written_and_read(tmp_path):
    pixels = torch.randint(256, (3, 5, 7), dtype=torch.uint8)
    write_image(tmp_path / "a.png", pixels)
    assert torch.equal(read_image(tmp_path / "a.png"), pixels)
    with pytest.raises(ValueError, match="unknown file extension"):
        write_image(tmp_path / "a.nonsense", pixels)


def test_without_pillow(monkeypatch):
    def refuse(name, *args, **kwargs):
        if name.startswith("PIL"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    imported = builtins.__import__
    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(ImportError, match=r"needs Pillow: pip install 'fastcnn\[detection\]'"):
        draw_detections(torch.zeros(3, 9, 9, dtype=torch.uint8), found())
