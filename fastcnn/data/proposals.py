"""Regions that may hold an object: Selective Search and Edge Boxes over OpenCV's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcnn.models._extras import extra
from fastcnn.models.detection.boxes import box_area, clip_boxes, image_limits

MODES = {"fast": "switchToSelectiveSearchFast", "quality": "switchToSelectiveSearchQuality"}


def selective_search(image: Tensor, mode: str = "fast", limit: int = 2000) -> Tensor:
    """Boxes of regions that are merged while they are alike in colour, texture, size and fill.

    Uijlings et al., Selective Search for Object Recognition, IJCV 2013, as OpenCV has it. Its set of boxes is always
    the same, their order is that of C's ``rand``; the order here is ours: a box's place among all by size, a stand-in
    for the paper's place in the hierarchy (large regions are merged last), times a random number from a fixed seed,
    as in section 4.4 of the paper. Deterministic.

    Args:
        image: RGB, uint8 or floating in [0, 1], (3, H, W).
        mode: "fast" or "quality", which joins the regions of more colour spaces and more first segmentations.
        limit: the largest number of boxes.

    Returns:
        float32 (N, 4) corners inside the image, N <= ``limit``, different ones, the most likely first.

    Raises:
        ImportError: without OpenCV's contrib modules, of the extra ``detection``.
        TypeError: pixels of another dtype.
        ValueError: another shape or mode, or a limit below 1.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be {' or '.join(MODES)}, got {mode!r}")
    pixels, size = _bgr(image), (image.size(1), image.size(2))
    _check_limit(limit)
    search = _ximgproc().segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(pixels)
    getattr(search, MODES[mode])()
    boxes = torch.unique(_corners(search.process(), size), dim=0)
    place = box_area(boxes).argsort(descending=True, stable=True).argsort() + 1
    random = torch.from_numpy(np.random.RandomState(0).uniform(size=len(boxes)))
    return boxes[(place * random).argsort(stable=True)[:limit]]


def edge_boxes(image: Tensor, limit: int = 1000, model: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Boxes that hold many contours wholly: Zitnick and Dollar, Edge Boxes, ECCV 2014, as OpenCV has it.

    The paper's edges are those of a structured forest (Dollar and Zitnick, ICCV 2013), which OpenCV runs but ships no
    model of. Without one the edges are of a plain detector (:func:`gradient_edges`), and the boxes less good than the
    paper's. Deterministic.

    Args:
        image: RGB, uint8 or floating in [0, 1], (3, H, W).
        limit: the largest number of boxes.
        model: a file of ``cv2.ximgproc.createStructuredEdgeDetection``, such as opencv_extra's model.yml.gz.

    Returns:
        float32 (N, 4) corners inside the image, N <= ``limit``, and their scores, float32 (N), the highest first.

    Raises:
        ImportError: without OpenCV's contrib modules, of the extra ``detection``.
        FileNotFoundError: no such model.
        TypeError: pixels of another dtype.
        ValueError: another shape, or a limit below 1.
    """
    pixels, size = _bgr(image), (image.size(1), image.size(2))
    _check_limit(limit)
    if model is None:
        edges, orientation = gradient_edges(pixels)
    elif Path(model).is_file():
        forest = _ximgproc().createStructuredEdgeDetection(str(model))
        edges = forest.detectEdges(pixels[..., ::-1].astype(np.float32) / 255)
        orientation = forest.computeOrientation(edges)
        edges = forest.edgesNms(edges, orientation, 2, 0, 1, True)
    else:
        raise FileNotFoundError(f"no model file {str(model)!r}")
    finder = _ximgproc().createEdgeBoxes()
    finder.setMaxBoxes(limit)
    boxes, scores = finder.getBoundingBoxes(edges, orientation)
    corners = _corners(np.asarray(boxes).reshape(-1, 4), size)
    found = torch.from_numpy(np.asarray(scores, np.float32).reshape(-1))
    order = found.argsort(descending=True, stable=True)[:limit]
    return corners[order], found[order]


def gradient_edges(pixels: NDArray[np.uint8], sigma: float = 1.5) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Edges as the gradient of smoothed pixels, of the colour with the largest, where it is a maximum across the edge.

    Canny, A Computational Approach to Edge Detection, PAMI 1986, without its thresholds.

    Args:
        pixels: uint8 (H, W, 3).
        sigma: of the Gaussian, in pixels.

    Returns:
        Strength, float32 (H, W) from 0 to 1, which stands for the 99th percentile and more; and the direction across
        the edge, float32 (H, W), in radians from 0 to pi.
    """
    cv2 = _cv2()
    smooth = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), sigma)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    strength = np.hypot(across, down)
    strongest = strength.argmax(2)[..., None]
    across, down, strength = (np.take_along_axis(each, strongest, 2)[..., 0] for each in (across, down, strength))
    direction = np.arctan2(down, across)
    y, x = np.indices(strength.shape, np.float32)
    thin = strength.copy()
    for way in (1, -1):
        beside = cv2.remap(
            strength,
            x + way * np.cos(direction),
            y + way * np.sin(direction),
            cv2.INTER_LINEAR,
            None,
            cv2.BORDER_REPLICATE,
        )
        thin[strength < beside] = 0
    thin /= max(float(np.percentile(strength, 99)), 1e-6)
    return thin.clip(0, 1), np.mod(direction, np.pi).astype(np.float32)


def _bgr(image: Tensor) -> NDArray[np.uint8]:
    """(H, W, 3) as OpenCV orders colours."""
    if image.dim() != 3 or image.size(0) != 3 or 0 in image.shape:
        raise ValueError(f"image must be (3, H, W), got {tuple(image.shape)}")
    if image.is_floating_point():
        image = (image * 255).round().clamp(0, 255).to(torch.uint8)
    elif image.dtype != torch.uint8:
        raise TypeError(f"image must be uint8 or floating, got {image.dtype}")
    return np.ascontiguousarray(image.flip(0).permute(1, 2, 0).cpu().numpy())


def _check_limit(limit: int) -> None:
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")


def _corners(rectangles: NDArray[Any], size: tuple[int, int]) -> Tensor:
    """(N, 4) corners of rectangles (x, y, width, height), cut off at the border of the image."""
    boxes = torch.from_numpy(np.asarray(rectangles, np.float32).reshape(-1, 4))
    return clip_boxes(torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1), image_limits([size], boxes))


def _cv2() -> Any:
    return extra("cv2", "proposals", "opencv-contrib-python-headless")


def _ximgproc() -> Any:
    # Of plain OpenCV, without contrib, the module is there but empty or absent.
    module = getattr(_cv2(), "ximgproc", None)
    if not hasattr(module, "createEdgeBoxes"):
        raise ImportError("proposals need OpenCV's contrib modules: pip install 'fastcnn[detection]'")
    return module
