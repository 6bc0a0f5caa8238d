"""How good a detector is on images it has not seen."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fastcnn.metrics import CocoMetrics, VOCMetrics
from fastcnn.train.loading import Item, to_device
from fastcnn.train.processes import Processes


def first_label(net: nn.Module) -> int:
    """The label of the first class: 1 where class 0 is the background, else 0."""
    return int(getattr(net, "has_background", False))


def evaluate(
    net: nn.Module,
    data: Dataset[Item],
    *,
    batch_size: int = 16,
    device: Any = "cpu",
    processes: Processes | None = None,
) -> dict[str, Any]:
    """Average precision of a detector, in eval mode, which it is left in.

    Args:
        net: called with a list of images.
        data: items of labels from 1, whatever the network's own begin with.
        processes: each looks at its share of the images; all get the result.

    Returns:
        ``mAP``, VOC's at an IoU of 0.5 over all points of the curve, and ``AP``, by label from 1. With pycocotools
        also ``bbox``, COCO's figures, and ``segm`` where the network gives masks.
    """
    processes = processes or Processes()
    net.eval()
    shift, count = 1 - first_label(net), len(data)  # type: ignore[arg-type]
    found: list[tuple[int, dict[str, Tensor], Any]] = []
    with torch.inference_mode():
        mine = list(range(processes.rank, count, processes.world))
        for start in range(0, len(mine), batch_size):
            images, targets = zip(*(data[index] for index in mine[start : start + batch_size]), strict=True)
            moved, _ = to_device(images, (), device, 1)
            for index, target, prediction in zip(mine[start:], targets, net(moved), strict=False):
                prediction = {key: value.cpu() for key, value in prediction.items()}
                prediction["labels"] = prediction["labels"] + shift
                found.append((index, _packed(prediction), target))
    found = sorted(processes.gather(found), key=lambda each: each[0])
    predictions, wanted = [each[1] for each in found], [each[2] for each in found]
    voc = VOCMetrics()
    voc.update(predictions, wanted)
    figures = voc.compute()
    if importlib.util.find_spec("pycocotools") is not None:
        masks = bool(predictions) and "masks" in predictions[0]
        coco = CocoMetrics(("bbox", "segm") if masks else ("bbox",))
        coco.update(predictions, wanted)
        figures |= coco.compute()
    return figures


def _packed(prediction: dict[str, Tensor]) -> dict[str, Tensor]:
    """Masks as they are judged: a pixel is in or out."""
    return prediction | {"masks": prediction["masks"] > 0.5} if "masks" in prediction else prediction
