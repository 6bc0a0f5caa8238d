"""Results of trainings as docs/training.md and its plot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastcnn.testing import plots
from fastcnn.testing.pages import about
from fastcnn.testing.tables import markdown

PAGE = """\
# Training

`fastcnn train` trains detectors, classifiers, segmenters and networks for super-resolution. These learn from generated
scenes (`fastcnn.data.Scenes`), from random weights, and are tested on other scenes. Minutes are of the whole command:
drawing the scenes, learning, and every test on the way.

{sections}

![Figures on held-out scenes, and loss, over minutes]({image})

{environments}

Commands:

{commands}

## Your own images

`fastcnn train RECIPE data=LAYOUT root=FOLDER`, where a recipe may be any network's name:

| kind | `data=` | what is in the folder |
| --- | --- | --- |
| detection | `voc`, `coco` | as those come; `train=` and `held_out=` name the image sets or annotations |
| classification | `folder` | `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, as torchvision's ImageFolder |
| segmentation | `folder` | `train/images`, and `train/masks/*.png` of class indices, 255 ignored; `val` too |
| segmentation | `voc` | JPEGImages, SegmentationClass and ImageSets/Segmentation |
| super-resolution | `folder` | images in `train` and `val`, which are made small by antialiased bicubic interpolation |

Other names of the two subfolders: `train=NAME held_out=NAME`. Names of the classes of pixels are the lines of
`classes.txt`, the first of index 0. Images may differ in size. A classifier's go through the network's own
preprocessing; segmentation and super-resolution learn from crops of `size` pixels, padded where an image is smaller,
and are tested on whole images. `fastcnn.train.Recipe` documents every setting, `--tensorboard` writes what
is logged for TensorBoard, `--resume` goes on from the last checkpoint to the same weights, to the bit on a CPU.

This page and the plot are made by `fastcnn train --render {plot} {files}`.
"""
SECTION = """\
## {title}

{text}

{table}"""
HEAD = ("recipe", "network", "parameters", "steps", "batch", "minutes")


class Kind(NamedTuple):
    """How results of a task are shown.

    Attributes:
        figure: key of the main one among ``metrics``, ``label`` what it is called.
        columns: of the table: names, and keys that lead to the figures, in the main one's unit.
        share: whether it is from 0 to 1.
    """

    title: str
    text: str
    figure: str
    label: str
    columns: dict[str, tuple[str, ...]]
    share: bool = True


KINDS = {
    "detection": Kind(
        "Detectors",
        "{classes} classes of shapes. mAP@0.5 is VOC's average precision over all points of the curve at an IoU of\n"
        "0.5; AP is COCO's over IoUs of 0.5 to 0.95, of boxes and of masks.",
        "mAP",
        "mAP@0.5",
        {"mAP@0.5": ("mAP",), "AP": ("bbox", "AP"), "AP of masks": ("segm", "AP")},
    ),
    "classification": Kind(
        "Classifiers",
        "{classes} classes of shapes, one to an image. Errors are shares of images.",
        "top1_error",
        "top-1 error",
        {"top-1 error": ("top1_error",), "top-5 error": ("top5_error",)},
    ),
    "segmentation": Kind(
        "Segmentation",
        "{classes} classes, the background among them. IU is intersection over union, a mean over classes or weighted\n"
        "by their pixels.",
        "mean_iu",
        "mean IU",
        {
            "mean IU": ("mean_iu",),
            "pixel accuracy": ("pixel_accuracy",),
            "mean accuracy": ("mean_accuracy",),
            "f.w. IU": ("frequency_weighted_iu",),
        },
    ),
    "super_resolution": Kind(
        "Super-resolution",
        "PSNR is of luma, in dB, a mean over images; the gain is over bicubic interpolation.",
        "gain",
        "gain over bicubic, dB",
        {"PSNR": ("psnr",), "of bicubic": ("bicubic_psnr",), "gain": ("gain",)},
        share=False,
    ),
}


def render(plot: str, names: Sequence[str]) -> str:
    """Writes the plot, an .svg file, and returns the page.

    Raises:
        ValueError: another kind of file, or one that is no result of a training.
        ImportError: without matplotlib, of the extra ``plots``.
        OSError: a file that is missing or cannot be written.
    """
    if Path(plot).suffix != ".svg" or not names:
        raise ValueError(f"--render takes an .svg file and results to make it of, got {' '.join((plot, *names))}")
    results = {name: read_result(name) for name in names}
    Path(plot).write_text(plot_svg(list(results.values())))
    return page(plot, results)


def read_result(name: str) -> dict[str, Any]:
    """A file that ``fastcnn train`` wrote; one without ``task`` is of a detector.

    Raises:
        ValueError: not such a file.
    """
    try:
        result = {"task": "detection", **json.loads(Path(name).read_text())}
        figure = KINDS[result["task"]].figure
        result["recipe"]["network"], result["metrics"][figure], result["history"][0], result["command"]
    except (ValueError, KeyError, TypeError, IndexError):
        raise ValueError(f"{Path(name).name} is no result of fastcnn train") from None
    return result


def page(plot: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of results by the names of their files, beside the plot."""
    made_on = dict.fromkeys(about(result["environment"]) for result in results.values())
    return PAGE.format(
        sections="\n\n".join(_section(task, group) for task, group in _by_task(results.values())),
        plot=plot,
        image=Path(plot).name,
        environments="\n\n".join(made_on),
        commands="\n".join(f"    {_command(result)}" for result in results.values()),
        files=" ".join(results),
    )


def _by_task(results: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    results = list(results)
    groups = [(task, [result for result in results if result["task"] == task]) for task in KINDS]
    return [(task, group) for task, group in groups if group]


def _section(task: str, results: Sequence[Mapping[str, Any]]) -> str:
    kind = KINDS[task]
    table = markdown([(*HEAD, *kind.columns), *(_row(kind, result) for result in results)])
    text = kind.text.format(classes=len(results[0]["classes"]))
    return SECTION.format(title=kind.title, text=text, table="\n".join(table))


def _name(result: Mapping[str, Any]) -> str:
    return str(result["command"].split()[2])


def _row(kind: Kind, result: Mapping[str, Any]) -> tuple[str, ...]:
    recipe = result["recipe"]
    return (
        _name(result),
        f"`{recipe['network']}`",
        f"{result['parameters'] / 1e6:.2f} M",
        str(recipe["steps"]),
        str(recipe["batch_size"]),
        f"{result['seconds'] / 60:.1f}",
        *(_figure(result["metrics"], keys, 3 if kind.share else 2) for keys in kind.columns.values()),
    )


def _figure(metrics: Any, keys: Sequence[str], digits: int) -> str:
    """Nothing where there is no such figure."""
    for key in keys:
        metrics = metrics.get(key, {})
    return f"{metrics:.{digits}f}" if metrics != {} else ""


def plot_svg(results: Sequence[Mapping[str, Any]]) -> str:
    """Held-out figures and loss over minutes, a line a result, a row of panels a task; the same results, the same text.

    Raises:
        ImportError: without matplotlib.
    """
    groups = _by_task(results)

    def draw(figure: Any) -> None:
        figure.set_layout_engine("constrained")
        for (task, group), (best, loss) in zip(groups, figure.subplots(len(groups), 2, squeeze=False), strict=True):
            kind = KINDS[task]
            for result in group:
                for axes, entries, key, mark in (
                    (best, result["checks"], kind.figure, "o-"),
                    (loss, result["history"], "loss", "-"),
                ):
                    minutes = [entry["seconds"] / 60 for entry in entries]
                    values = [entry[key] for entry in entries]
                    # As shares of where they begin, for the families' losses are not of one kind.
                    shares = [value / values[0] for value in values] if key == "loss" else values
                    axes.plot(minutes, shares, mark, linewidth=0.9, markersize=3, label=_name(result))
            best.set(xlabel="minutes", ylabel=f"{kind.label}, held-out", **({"ylim": (0, 1)} if kind.share else {}))
            loss.set(xlabel="minutes", ylabel="loss, of what it was at first", yscale="log")
            for axes in (best, loss):
                axes.grid(True, which="both", linewidth=0.3, color="#dddddd")
            best.legend()

    return plots.plot((10, 4 * len(groups)), 8, draw)


def _command(result: Mapping[str, Any]) -> str:
    """As it was typed."""
    processes = result.get("processes", 1)
    launch = f"torchrun --nproc-per-node {processes} -m " if processes > 1 else ""
    return f"{launch}{result['command']}"
