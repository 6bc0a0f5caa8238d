"""How good a network is on images it has not seen."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset

from fastcnn.models import ConvNet
from fastcnn.train.processes import Processes
from fastcnn.train.task import Item
from fastcnn.train.tasks import find_task


def evaluate(
    net: ConvNet,
    data: Dataset[Item],
    *,
    batch_size: int = 16,
    device: Any = "cpu",
    processes: Processes | None = None,
) -> dict[str, Any]:
    """The figures of a network's kind, in eval mode, which it is left in. Deterministic on a CPU.

    Args:
        net: of a task that ``fastcnn train`` trains.
        data: items as :mod:`fastcnn.data` gives them: an image, float32 (3, H, W) in [0, 1], and a target.
        processes: each looks at its share of the images; all get the result.

    Returns:
        Of a detector ``mAP``, VOC's at an IoU of 0.5, ``AP`` by label from 1, and with pycocotools COCO's ``bbox`` and
        ``segm``. Of a classifier ``top1_error`` and ``top5_error``, shares of images. Of segmentation
        ``mean_iu``, ``pixel_accuracy``, ``mean_accuracy``, ``frequency_weighted_iu``, and ``iu``, of each class. Of
        super-resolution ``psnr``, ``bicubic_psnr`` and ``gain``, in dB on luma, means over images.

    Raises:
        ValueError: another task.
    """
    net.eval()
    with torch.inference_mode():
        return find_task(net.row.task).evaluate(
            net, data, batch_size=batch_size, device=device, processes=processes or Processes()
        )
