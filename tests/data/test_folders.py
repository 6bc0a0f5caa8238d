"""Folders of images, of classes and of class maps, made here."""

import pytest
import torch

from fastcnn.data import VOC_CLASSES, ImageFolder, Images, SegmentationFolder, VOCSegmentation
from fastcnn.data.folders import read_class_map

Image = pytest.importorskip("PIL.Image")


def write(path, size=(6, 4), colour=(255, 0, 51), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def write_map(path, rows, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(torch.tensor(rows, dtype=torch.uint8).numpy())
    if palette:
        image.putpalette([255 - i // 3 for i in range(768)])
    image.save(path)


def test_a_folder_for_each_class(tmp_path):
    for name in ("dog/b.png", "dog/a.JPG", "cat/deep/c.png"):
        write(tmp_path / name)
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    data = ImageFolder(tmp_path)
    assert data.classes == ("cat", "dog") and len(data) == 3 and [label for _, label in data.files] == [0, 1, 1]
    image, label = data[0]
    assert label == 0 and image.shape == (3, 4, 6) and image.dtype == torch.float32
    assert image[:, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    files = [file.name for file, _ in data.files]
    assert files == ["c.png", "a.JPG", "b.png"]


def test_images_have_no_target(tmp_path):
    write(tmp_path / "deep" / "a.png")
    write(tmp_path / "b.png", (3, 5))
    data = Images(tmp_path)
    assert [tuple(image.shape) for image, target in (data[0], data[1])] == [(3, 5, 3), (3, 4, 6)]
    assert data[0][1] is None and len(data) == 2


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("names", ["", "none\ncat\n\ndog\n"])
def test_class_maps(tmp_path, palette, names):
    write(tmp_path / "images" / "a.png", (3, 2))
    write_map(tmp_path / "masks" / "a.png", [[0, 1, 255], [2, 2, 0]], palette)
    if names:
        (tmp_path / "classes.txt").write_text(names)
    data = SegmentationFolder(tmp_path)
    assert data.classes == (("none", "cat", "dog") if names else ("0", "1", "2"))
    image, target = data[0]
    assert image.shape == (3, 2, 3) and target.dtype == torch.int64 and target.tolist() == [[0, 1, 255], [2, 2, 0]]


def test_maps_of_voc(tmp_path):
    write(tmp_path / "JPEGImages" / "7.jpg", (3, 2))
    write_map(tmp_path / "SegmentationClass" / "7.png", [[0, 15, 255], [20, 2, 0]], palette=True)
    listed = tmp_path / "ImageSets" / "Segmentation" / "val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("7\n\n")
    data = VOCSegmentation(tmp_path, "val")
    assert data.classes == ("__background__", *VOC_CLASSES) and len(data) == 1
    assert data[0][1].tolist() == [[0, 15, 255], [20, 2, 0]] and data.classes[15] == "person"
    with pytest.raises(FileNotFoundError, match=r"no file '.*train.txt'"):
        VOCSegmentation(tmp_path, "train")


def test_folders_that_are_missing_or_empty(tmp_path):
    (tmp_path / "empty" / "dog").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    for make, error, message in (
        (lambda: ImageFolder(tmp_path / "none"), FileNotFoundError, "no folder '.*none'"),
        (lambda: ImageFolder(tmp_path / "empty" / "dog"), ValueError, "dog' has no folders, one for each class"),
        (lambda: ImageFolder(tmp_path / "empty"), ValueError, r"dog' has no images \(.png, .jpg"),
        (lambda: Images(tmp_path / "empty"), ValueError, r"empty' has no images"),
        (lambda: SegmentationFolder(tmp_path), FileNotFoundError, "no folder '.*masks'"),
    ):
        with pytest.raises(error, match=message) as raised:
            make()
        assert "\n" not in str(raised.value)


def test_files_that_are_wrong_are_named(tmp_path):
    for name in "abcd":
        write(tmp_path / "images" / f"{name}.png", (3, 2))
        write_map(tmp_path / "masks" / f"{name}.png", [[0, 1, 2], [0, 0, 0]])
    (tmp_path / "classes.txt").write_text("none\ncat\n")
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    write_map(tmp_path / "masks" / "b.png", [[0, 1], [0, 0]])
    (tmp_path / "masks" / "d.png").write_bytes(b"no image")
    data = SegmentationFolder(tmp_path)
    for index, message in enumerate(
        (
            "a.png is no image that Pillow reads",
            r"b.png is \(2, 2\) pixels, its image \(2, 3\)",
            "c.png has index 2, there are 2 classes",
            "d.png is no image that Pillow reads",
        )
    ):
        with pytest.raises(ValueError, match=message):
            data[index]
    write(tmp_path / "masks" / "c.png", (3, 2))
    with pytest.raises(ValueError, match=r"c.png must have an index for each pixel \(mode P or L\), got mode RGB"):
        data[2]
    (tmp_path / "masks" / "c.png").unlink()
    with pytest.raises(ValueError, match=r"c.png has no masks/c.png"):
        SegmentationFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_class_map(tmp_path / "none.png")
