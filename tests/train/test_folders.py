"""Training on folders, which the tests make of scenes; and on top of published weights."""

import json

import pytest
import torch

from fastcnn import models
from fastcnn.data import SHAPES, VOC_CLASSES, Scenes
from fastcnn.data.coco import encode_masks
from fastcnn.train import Recipe, Trainer, change

COUNT = 4
SETTINGS = ["batch_size=2", "steps=2", "check_every=0", "log_every=1"]


def save(image, path):
    pillow = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(path)


@pytest.fixture
def voc(tmp_path):
    objects = (
        "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    )
    for index, (image, target) in enumerate(Scenes(COUNT, 64)):
        save(image, tmp_path / "JPEGImages" / f"{index}.jpg")
        found = [
            objects.format(VOC_CLASSES[label - 1], int(x1) + 1, int(y1) + 1, int(x2), int(y2))
            for (x1, y1, x2, y2), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)
        ]
        annotation = tmp_path / "Annotations" / f"{index}.xml"
        annotation.parent.mkdir(exist_ok=True)
        annotation.write_text(f"<annotation>{''.join(found)}</annotation>")
    for name, part in (("trainval", range(3)), ("test", range(3, COUNT))):
        listed = tmp_path / "ImageSets" / "Main" / f"{name}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("".join(f"{index}\n" for index in part))
    return tmp_path


@pytest.fixture
def coco(tmp_path):
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 3 * index + 5, "name": name} for index, name in enumerate(SHAPES)]
    for index, (image, target) in enumerate(Scenes(COUNT, 64)):
        save(image, tmp_path / "images" / f"{index}.png")
        content["images"].append({"id": index, "file_name": f"{index}.png", "height": 64, "width": 64})
        for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
            (runs,) = encode_masks(mask[None])
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": index,
                    "category_id": 3 * int(label) + 2,
                    "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                    "segmentation": runs | {"counts": runs["counts"].decode()},
                    "area": float(mask.sum()),
                    "iscrowd": 0,
                }
            )
    (tmp_path / "shapes.json").write_text(json.dumps(content))
    return tmp_path


def test_voc(voc, tmp_path):
    recipe = Recipe(
        network="retinanet_mobilenet_v2_x0_5_fpn", data="voc", root=str(voc), train="trainval", held_out="test"
    )
    trainer = Trainer(change(recipe, [*SETTINGS, "augment=ssd"]), tmp_path / "run")
    assert (len(trainer.data), len(trainer.held_out), trainer.net.num_classes) == (3, 1, 20)
    assert torch.isfinite(torch.tensor(trainer.fit()["history"][-1]["loss"]))


def test_coco_with_masks(coco, tmp_path):
    recipe = Recipe(
        network="maskrcnn_mobilenet_v2_x0_5_fpn",
        options='{"min_size": 64, "channels": 16}',
        data="coco",
        root=str(coco),
        train="shapes.json:images",
        held_out="shapes.json:images",
    )
    trainer = Trainer(change(recipe, SETTINGS), tmp_path / "run")
    assert trainer.classes == tuple(SHAPES) and trainer.net.num_classes == 9
    report = trainer.fit()
    assert report["history"][-1]["loss_mask"] > 0 and "segm" in report["metrics"]


def test_begins_from_the_weights_of_other_classes(tmp_path):
    saved = models.create("retinanet_mobilenet_v2_x0_5_fpn", 3)
    file = tmp_path / "three.pt"
    torch.save(saved.state_dict(), file)
    # The number of classes is the file's until the head is replaced.
    settings = [*SETTINGS, f"weights={file}", 'options={"num_classes": 3}', "train=2", "held_out=1"]
    recipe = change(Recipe(network="retinanet_mobilenet_v2_x0_5_fpn", size=64), settings)
    net = Trainer(recipe, tmp_path / "run").net
    assert net.num_classes == 8
    kept = [name for name, value in saved.state_dict().items() if torch.equal(value, net.state_dict().get(name))]
    assert len(kept) >= len(saved.state_dict()) - 2


def save_map(target, path):
    pillow = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray(target.byte().numpy()).save(path)


@pytest.fixture
def folders(tmp_path):
    """Scenes of several sizes in every layout of ``data=folder``."""
    for part, count in (("train", 4), ("val", 2)):
        for index in range(count):
            image, target = Scenes(count, (28 + 8 * index, 40 - 8 * index), semantic=True)[index]
            save(image, tmp_path / "classes" / part / ("dog", "cat")[index % 2] / f"{index}.png")
            save(image, tmp_path / "maps" / part / "images" / f"{index}.jpg")
            save_map(target % 3, tmp_path / "maps" / part / "masks" / f"{index}.png")
    (tmp_path / "maps" / "classes.txt").write_text("none\ncircle\nsquare\n")
    return tmp_path


@pytest.mark.parametrize(
    ("network", "options", "layout", "classes"),
    [
        ("lenet5", "{}", "classes", ("cat", "dog")),
        ("unet_x0_25", '{"width": 4, "depth": 2}', "maps", ("none", "circle", "square")),
        ("unet", '{"width": 4, "depth": 1}', "maps", ("none", "circle", "square")),
        ("vdsr_8", '{"layers": 2, "channels": 4}', "classes", ()),
        ("edsr_baseline_x3", '{"blocks": 1, "channels": 4}', "classes", ()),
    ],
)
@pytest.mark.parametrize("augment", ["flip", "none"])
def test_images_of_several_sizes(folders, tmp_path, network, options, layout, classes, augment):
    settings = ["size=36", f"augment={augment}", "batch_size=4"]
    recipe = Recipe(network=network, options=options, data="folder", root=str(folders / layout))
    trainer = Trainer(change(recipe, [*SETTINGS, *settings]), tmp_path / "run")
    assert trainer.classes == classes and (len(trainer.data), len(trainer.held_out)) == (4, 2)
    report = trainer.fit()
    assert all(torch.isfinite(torch.tensor(entry["loss"])) for entry in report["history"])
    assert report["metrics"][trainer.task.figure.key] == report["metrics"][trainer.task.figure.key]


def test_images_held_out_have_the_classes_that_were_learnt(folders, tmp_path):
    (folders / "classes" / "val" / "dog").rename(folders / "classes" / "val" / "wolf")
    recipe = Recipe(network="lenet5", data="folder", root=str(folders / "classes"))
    with pytest.raises(ValueError, match="train and held_out must have the same classes, only one has dog, wolf"):
        Trainer(recipe, tmp_path / "run")
    (folders / "maps" / "classes.txt").unlink()
    save_map(torch.full((28, 40), 7), folders / "maps" / "val" / "masks" / "0.png")
    recipe = Recipe(network="unet_x0_25", data="folder", root=str(folders / "maps"))
    trainer = Trainer(change(recipe, [*SETTINGS, "size=32"]), tmp_path / "run")
    with pytest.raises(ValueError, match=r"0.png has index 7, there are 3 classes"):
        trainer.fit()
