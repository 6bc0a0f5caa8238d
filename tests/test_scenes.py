"""``fastcnn scenes``: files that the data sets read back as what was drawn."""

import numpy as np
import pytest
import torch

from fastcnn.cli import main
from fastcnn.data import CocoDetection, Scenes, read_image
from fastcnn.data.images import write_mask

Image = pytest.importorskip("PIL.Image")


def test_files_are_the_scenes(tmp_path, capsys):
    folder = tmp_path / "new" / "train"
    assert main(["scenes", str(folder), "--count", "3", "--size", "48", "--seed", "5"]) == 0
    assert "3 scenes" in capsys.readouterr().out
    drawn, maps = Scenes(3, 48, 5), Scenes(3, 48, 5, semantic=True)
    names = (folder / "classes.txt").read_text().split()
    assert names == ["background", *drawn.classes]
    read = CocoDetection(folder / "images", folder / "annotations.json")
    assert read.classes == drawn.classes
    for index in range(3):
        (image, target), (found, given) = drawn[index], read[index]
        assert torch.equal(found, image)
        for key in ("boxes", "labels", "masks", "area", "image_id"):
            assert torch.equal(given[key], target[key]), key
        mask = torch.from_numpy(np.array(Image.open(folder / "masks" / f"{index:04}.png")))
        assert torch.equal(mask, maps[index][1])
    assert read_image(folder / "images" / "0000.png").shape == (3, 48, 48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "8"], "expected a number from 16, got '8'"),
        (["--count", "0"], "expected a number from 1, got '0'"),
        (["--size", "100000"], "--size must be at most 10000, got 100000"),
    ],
)
def test_bad_settings_are_said_in_a_line(tmp_path, capsys, arguments, message):
    try:
        status = main(["scenes", str(tmp_path / "out"), *arguments])
    except SystemExit as stopped:
        status = stopped.code
    error = capsys.readouterr().err
    assert status == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        assert main(["scenes", str(folder)]) == 2
        assert "is there already, and no empty folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_maps_that_a_file_cannot_hold(tmp_path):
    for classes, message in (
        (torch.zeros(2, 2), "integers"),
        (torch.zeros(1, 2, 2).long(), "integers"),
        (torch.tensor([[256]]), "0 to 255"),
        (torch.tensor([[-1]]), "0 to 255"),
    ):
        with pytest.raises(ValueError, match=message):
            write_mask(tmp_path / "map.png", classes)
