"""VOC's folder layout, on small folders made here."""

import pytest
import torch
from torch.utils.data import DataLoader

from fastcnn.data import VOC_CLASSES, VOCDetection, collate

Image = pytest.importorskip("PIL.Image")

OBJECT = "<object><name>{}</name><difficult>{}</difficult><part><name>head</name></part><bndbox>{}</bndbox></object>"


def box(xmin, ymin, xmax, ymax):
    # VOC's own files have the sides in any order.
    return f"<xmax>{xmax}</xmax><xmin>{xmin}</xmin><ymin>{ymin}</ymin><ymax>{ymax}</ymax>"


def found(name, sides, difficult=0):
    return OBJECT.format(name, difficult, box(*sides))


@pytest.fixture
def folder(tmp_path):
    """Writes images of a set with the text of their annotations."""

    def write(annotations, size=(40, 30), save=None):
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        for name, text in annotations.items():
            path = tmp_path / "JPEGImages" / f"{name}.jpg"
            save(path) if save else Image.new("RGB", size, (255, 0, 51)).save(path, quality=95)
            (tmp_path / "Annotations" / f"{name}.xml").write_text(
                text if text.startswith("<?") else f"<annotation>{text}</annotation>"
            )
        (tmp_path / "ImageSets/Main/train.txt").write_text("".join(f"{name}  1\n" for name in annotations))
        return tmp_path

    return write


def test_items(folder):
    objects = found("cat", (1, 1, 40, 30)) + found("person", ("5.5", 7, 5.5, 9), 1) + found("dog", (-3, 10, 20, 99))
    images = VOCDetection(folder({"000012": objects, "000013": ""}))
    assert len(images) == 2
    (image, target), (_, empty) = images
    assert image.dtype == torch.float32 and image.shape == (3, 30, 40)
    torch.testing.assert_close(image[:, 5, 5], torch.tensor([1.0, 0.0, 0.2]), rtol=0, atol=0.02)
    # From 1 and inclusive, to corners: the whole image; one pixel wide; cut off at the border.
    assert target["boxes"].tolist() == [[0, 0, 40, 30], [4.5, 6, 5.5, 9], [0, 9, 20, 30]]
    assert [VOC_CLASSES[label - 1] for label in target["labels"]] == ["cat", "person", "dog"]
    assert target["difficult"].tolist() == [False, True, False]
    assert target["area"].tolist() == [1200, 3, 420] and target["iscrowd"].tolist() == [0, 0, 0]
    assert "masks" not in target and target["image_id"] == 0
    assert empty["boxes"].shape == (0, 4) and empty["labels"].shape == (0,) and empty["difficult"].shape == (0,)
    assert images[-1][1]["image_id"] == 1


def test_without_difficult_ones(folder):
    objects = found("person", (5, 7, 6, 9), 1) + found("dog", (3, 10, 20, 30))
    ((_, target),) = VOCDetection(folder({"a": objects}), difficult=False)
    assert target["labels"].tolist() == [12] and target["boxes"].shape == (1, 4) and target["difficult"].tolist() == [0]


def test_own_classes_workers_and_transforms(folder):
    root = folder({name: found("leaf", (1, 1, 9, 9)) for name in "abc"})
    images = VOCDetection(root, classes=["twig", "leaf"], transforms=lambda image, target: (image[:, :9], target))
    for batch, targets in DataLoader(images, batch_size=3, num_workers=1, collate_fn=collate):
        assert [image.shape for image in batch] == [(3, 9, 40)] * 3
        assert [target["labels"].tolist() for target in targets] == [[2]] * 3


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_files_of_other_modes_become_rgb(folder, mode):
    def save(path):
        Image.new(mode, (7, 5)).save(path, "JPEG" if mode in ("L", "CMYK") else "PNG")

    ((image, _),) = VOCDetection(folder({"a": ""}, save=save))
    assert image.shape == (3, 5, 7)


def test_orientation_is_not_applied(folder):
    def save(path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (7, 5)).save(path, exif=exif)

    ((image, _),) = VOCDetection(folder({"a": ""}, save=save))
    assert image.shape == (3, 5, 7)


LAUGHS = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l "ha"><!ENTITY m "&l;&l;">]><annotation>&m;</annotation>'
READS = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l SYSTEM "file:///etc/hosts">]><annotation>&l;</annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "b.xml has a DOCTYPE, which no annotation needs"),
        (READS, "b.xml has a DOCTYPE, which no annotation needs"),
        ("<object>", "b.xml is no XML: mismatched tag"),
        ("&l;", "b.xml is no XML: undefined entity"),
        (found("yeti", (1, 1, 9, 9)), "b.xml: class 'yeti' is none of aeroplane, "),
        (found("cat", (1, 1, "nan", 9)), "b.xml: box 0 is x1, y1, x2, y2 = [0.0, 0.0, nan, 9.0], which has no area"),
        (found("cat", (1, 1, "inf", 9)), "b.xml: box 0 is"),
        (found("cat", (9, 1, 7, 9)), "b.xml: box 0 is x1, y1, x2, y2 = [8.0, 0.0, 7.0, 9.0]"),
        (found("cat", (1, 1, 9, 9)) + found("cat", (50, 1, 60, 9)), "box 1 is x1, y1, x2, y2 = [49.0, 0.0, 60.0, 9.0]"),
        (found("cat", (1, 1, "wide", 9)), "b.xml: a box's xmin, ymin, xmax, ymax are ['1', '1', 'wide', '9']"),
        ("<object><name>cat</name></object>", "b.xml: a box's xmin, ymin, xmax, ymax are ['', '', '', '']"),
    ],
)
def test_bad_annotations_are_one_line_that_names_the_file(folder, text, message):
    images = VOCDetection(folder({"a": "", "b": text}))
    assert images[0][1]["boxes"].shape == (0, 4)
    with pytest.raises(ValueError) as error:
        images[1]
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("how", ["text", "cut", "empty"])
def test_corrupt_images_are_one_line_that_names_the_file(folder, how):
    root = folder({"a": ""}, size=(200, 200))
    path = root / "JPEGImages/a.jpg"
    path.write_bytes({"text": b"no picture", "cut": path.read_bytes()[:400], "empty": b""}[how])
    with pytest.raises(ValueError, match=r"^a\.jpg is no image that Pillow reads: ") as error:
        VOCDetection(root)[0]
    assert "\n" not in str(error.value)


def test_missing_files(folder):
    root = folder({"a": "", "b": ""})
    with pytest.raises(FileNotFoundError, match=r"no file '.*ImageSets/Main/val\.txt'"):
        VOCDetection(root, "val")
    (root / "Annotations/a.xml").unlink()
    (root / "JPEGImages/b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file '.*a\.xml'"):
        VOCDetection(root)[0]
    with pytest.raises(FileNotFoundError, match=r"no image file '.*b\.jpg'"):
        VOCDetection(root)[1]
