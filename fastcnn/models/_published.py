"""Published weights: where torchvision keeps those of the networks that it shares with this library, and our own, which
lie in the package."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fastcnn.models._classes import COCO_SLOTS, VOC_CLASSES
from fastcnn.models._preprocess import IMAGENET, Preprocess

BASE_URL = "https://download.pytorch.org/models/"
PACKAGED = Path(__file__).parent / "weights"
DEFAULT = "DEFAULT"
HALVES = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Published:
    """One file of weights, of 1000 ImageNet classes unless it has names of others.

    Attributes:
        file: its name, which ends with the first digits of its SHA-256, or its whole URL. A ``.safetensors`` one lies
            in the package, and has its options and classes in its metadata (:mod:`fastcnn.models._metadata`).
        preprocess: of the images that it was judged with; None is the row's.
        overrides: fields of the network's row that it needs.
        optional: children that it has weights for, and that the network may be built without.
        categories: a name for each label.
        metrics: what its publisher measured, by torchvision's names: ``box_map`` is COCO's average precision in %; ``miou`` and
            ``pixel_acc`` of its validation images, in %.
    """

    file: str
    preprocess: Preprocess | None = IMAGENET
    overrides: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    optional: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def url(self) -> str:
        return self.file if "://" in self.file else BASE_URL + self.file

    @property
    def is_packaged(self) -> bool:
        return self.file.endswith(".safetensors") and "://" not in self.file


def _judged(crop: int, resize: int, interpolation: str = "bilinear", **normalisation: Any) -> Preprocess:
    return Preprocess(crop, crop_pct=crop / resize, interpolation=interpolation, **normalisation)


def _v1(file: str, preprocess: Preprocess = IMAGENET, **options: Any) -> dict[str, Published]:
    return {"IMAGENET1K_V1": Published(file, preprocess, **options)}


# The recipe of torchvision's newer weights resizes to 232 pixels.
_NEWER = _judged(224, 232)


def _v2(first: str, second: str) -> dict[str, Published]:
    return {"IMAGENET1K_V1": Published(first), "IMAGENET1K_V2": Published(second, _NEWER)}


def _efficient(file: str, crop: int, resize: int) -> dict[str, Published]:
    return _v1(file, _judged(crop, resize, "bicubic"))


def _coco(file: str, box_map: float, **overrides: Any) -> dict[str, Published]:
    # Rows have the detectors' own preprocessing.
    metrics = MappingProxyType({"box_map": box_map})
    return {"COCO_V1": Published(f"{file}.pth", None, MappingProxyType(overrides), (), COCO_SLOTS, metrics)}


def _voc_labels(file: str, miou: float, pixel_acc: float, *auxiliary: str) -> dict[str, Published]:
    # Of COCO's images, by the classes of VOC. Rows have the preprocessing.
    overrides = MappingProxyType(dict.fromkeys(auxiliary, True))
    metrics = MappingProxyType({"miou": miou, "pixel_acc": pixel_acc})
    classes = ("__background__", *VOC_CLASSES)
    return {"COCO_WITH_VOC_LABELS_V1": Published(f"{file}.pth", None, overrides, auxiliary, classes, metrics)}


_AUX = "aux_classifier"
# Batch norms were constants in training.
_FROZEN: dict[str, Any] = {"frozen_norms": True}
# Before the batch norms of these files got an epsilon.
_NO_EPS: dict[str, Any] = {**_FROZEN, "norm_eps": 0.0, "frozen_stages": 2}
_MOBILE: dict[str, Any] = {**_FROZEN, "frozen_stages": 7}

# Trained on images of mean and deviation 0.5, which the networks make of ImageNet's.
_HALVED = MappingProxyType({"transform_input": True})

# The tags of a network, from the oldest to the newest.
PUBLISHED: dict[str, dict[str, Published]] = {
    "alexnet_owt": _v1("alexnet-owt-7be5be79.pth"),
    "vgg11": _v1("vgg11-8a719046.pth"),
    "vgg11_bn": _v1("vgg11_bn-6002323d.pth"),
    "vgg13": _v1("vgg13-19584684.pth"),
    "vgg13_bn": _v1("vgg13_bn-abd245e5.pth"),
    "vgg16": _v1("vgg16-397923af.pth"),
    "vgg16_bn": _v1("vgg16_bn-6c64b313.pth"),
    "vgg19": _v1("vgg19-dcbb9e9d.pth"),
    "vgg19_bn": _v1("vgg19_bn-c79401a0.pth"),
    "googlenet_bn": _v1("googlenet-1378be20.pth", overrides=_HALVED, optional=("aux1", "aux2")),
    "inception_v3": _v1(
        "inception_v3_google-0cc3c7bd.pth", _judged(299, 342), overrides=_HALVED, optional=("AuxLogits",)
    ),
    "resnet18": _v1("resnet18-f37072fd.pth"),
    "resnet34": _v1("resnet34-b627a593.pth"),
    "resnet50": _v2("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"),
    "resnet101": _v2("resnet101-63fe2227.pth", "resnet101-cd907fc2.pth"),
    "resnet152": _v2("resnet152-394f9c45.pth", "resnet152-f82ba261.pth"),
    "resnext50_32x4d": _v2("resnext50_32x4d-7cdf4587.pth", "resnext50_32x4d-1a0047aa.pth"),
    "resnext101_32x8d": _v2("resnext101_32x8d-8ba56ff5.pth", "resnext101_32x8d-110c445d.pth"),
    "resnext101_64x4d": _v1("resnext101_64x4d-173b62eb.pth", _NEWER),
    "wide_resnet50_2": _v2("wide_resnet50_2-95faca4d.pth", "wide_resnet50_2-9ba9bcbe.pth"),
    "wide_resnet101_2": _v2("wide_resnet101_2-32ee1156.pth", "wide_resnet101_2-d733dc28.pth"),
    "densenet121": _v1("densenet121-a639ec97.pth"),
    "densenet161": _v1("densenet161-8d451a50.pth"),
    "densenet169": _v1("densenet169-b2777c0a.pth"),
    "densenet201": _v1("densenet201-c1103571.pth"),
    "squeezenet1_0": _v1("squeezenet1_0-b66bff10.pth"),
    "squeezenet1_1": _v1("squeezenet1_1-b8a52dc0.pth"),
    "mobilenet_v2": _v2("mobilenet_v2-b0353104.pth", "mobilenet_v2-7ebf99e0.pth"),
    "mobilenet_v3_large": _v2("mobilenet_v3_large-8738ca79.pth", "mobilenet_v3_large-5c1a4163.pth"),
    "mobilenet_v3_small": _v1("mobilenet_v3_small-047dcff4.pth"),
    "shufflenet_v2_x0_5": _v1("shufflenetv2_x0.5-f707e7126e.pth"),
    "shufflenet_v2_x1_0": _v1("shufflenetv2_x1-5666bf0f80.pth"),
    "shufflenet_v2_x1_5": _v1("shufflenetv2_x1_5-3c479a10.pth", _NEWER),
    "shufflenet_v2_x2_0": _v1("shufflenetv2_x2_0-8be3c8ee.pth", _NEWER),
    "mnasnet0_5": _v1("mnasnet0.5_top1_67.823-3ffadce67e.pth"),
    "mnasnet0_75": _v1("mnasnet0_75-7090bc5f.pth", _NEWER),
    "mnasnet1_0": _v1("mnasnet1.0_top1_73.512-f206786ef8.pth"),
    "mnasnet1_3": _v1("mnasnet1_3-a4c69d6f.pth", _NEWER),
    "efficientnet_b0": _efficient("efficientnet_b0_rwightman-7f5810bc.pth", 224, 256),
    "efficientnet_b1": {
        "IMAGENET1K_V1": Published("efficientnet_b1_rwightman-bac287d4.pth", _judged(240, 256, "bicubic")),
        "IMAGENET1K_V2": Published("efficientnet_b1-c27df63c.pth", _judged(240, 255)),
    },
    "efficientnet_b2": _efficient("efficientnet_b2_rwightman-c35c1473.pth", 288, 288),
    "efficientnet_b3": _efficient("efficientnet_b3_rwightman-b3899882.pth", 300, 320),
    "efficientnet_b4": _efficient("efficientnet_b4_rwightman-23ab8bcd.pth", 380, 384),
    "efficientnet_b5": _efficient("efficientnet_b5_lukemelas-1a07897c.pth", 456, 456),
    "efficientnet_b6": _efficient("efficientnet_b6_lukemelas-24a108a5.pth", 528, 528),
    "efficientnet_b7": _efficient("efficientnet_b7_lukemelas-c5b4e57e.pth", 600, 600),
    "efficientnet_v2_s": _v1("efficientnet_v2_s-dd5fe13b.pth", _judged(384, 384)),
    "efficientnet_v2_m": _v1("efficientnet_v2_m-dc08266a.pth", _judged(480, 480)),
    "efficientnet_v2_l": _v1("efficientnet_v2_l-59c71312.pth", _judged(480, 480, "bicubic", mean=HALVES, std=HALVES)),
    "fasterrcnn_resnet50_fpn": _coco("fasterrcnn_resnet50_fpn_coco-258fb6c6", 37.0, **_NO_EPS),
    "fasterrcnn_mobilenet_v3_large_fpn": _coco("fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7", 32.8, **_MOBILE),
    "fasterrcnn_mobilenet_v3_large_320_fpn": _coco("fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9", 22.8, **_MOBILE),
    "maskrcnn_resnet50_fpn": _coco("maskrcnn_resnet50_fpn_coco-bf2d0c1e", 37.9, **_NO_EPS),
    "retinanet_resnet50_fpn": _coco("retinanet_resnet50_fpn_coco-eeacb38b", 36.4, **_NO_EPS),
    "ssd300_vgg16": _coco("ssd300_vgg16_coco-b556d3b4", 25.1),
    # By `fastcnn train ssdlite`: mAP@0.5 in % of 500 scenes held out.
    "ssdlite160_mobilenet_v2_x0_35": {
        "SCENES_V1": Published(
            "ssdlite160_mobilenet_v2_x0_35_scenes-24f7b9f6.safetensors",
            None,
            metrics=MappingProxyType({"scenes_map": 90.67}),
        )
    },
    "ssdlite320_mobilenet_v3_large": _coco("ssdlite320_mobilenet_v3_large_coco-a79551df", 21.3),
    "fcn_resnet50": _voc_labels("fcn_resnet50_coco-1167a1af", 60.5, 91.4, _AUX),
    "fcn_resnet101": _voc_labels("fcn_resnet101_coco-7ecb50ca", 63.7, 91.9, _AUX),
    "deeplabv3_resnet50": _voc_labels("deeplabv3_resnet50_coco-cd0a2569", 66.4, 92.4, _AUX),
    "deeplabv3_resnet101": _voc_labels("deeplabv3_resnet101_coco-586e9e4e", 67.4, 92.4, _AUX),
    "deeplabv3_mobilenet_v3_large": _voc_labels("deeplabv3_mobilenet_v3_large-fc3c493d", 60.3, 91.2, _AUX),
    "lraspp_mobilenet_v3_large": _voc_labels("lraspp_mobilenet_v3_large-d234d4ea", 57.9, 91.2),
}


def is_tag(weights: object) -> bool:
    """Whether ``weights`` is a tag's name and not a path, which has a suffix."""
    return isinstance(weights, str) and weights.isidentifier()


def find_published(name: str, tag: str) -> Published:
    """The published weights of a network; "DEFAULT" is the newest tag.

    Raises:
        ValueError: the network has none, or not this tag.
    """
    tags = PUBLISHED.get(name, {})
    if not tags:
        raise ValueError(
            f"no published weights of {name} are known: give a .safetensors, .pth or .pt file, not {tag!r}"
        )
    if tag != DEFAULT and tag not in tags:
        raise ValueError(f"{name} has no weights {tag!r}; it has {', '.join(tags)} and {DEFAULT}")
    return tags[tag] if tag in tags else list(tags.values())[-1]


def find_by_file(name: str, path: str | PathLike[str]) -> Published | None:
    """The published weights of a network whose file has this name, which brings its hash."""
    names = {each.url.rpartition("/")[2]: each for each in PUBLISHED.get(name, {}).values()}
    return names.get(Path(path).name)


def find_packaged() -> tuple[str, str]:
    """The network and the tag of the weights that lie in the package.

    Raises:
        ValueError: there are none.
    """
    for name, tags in PUBLISHED.items():
        for tag, published in tags.items():
            if published.is_packaged:
                return name, tag
    raise ValueError("no weights lie in this package: name a network")


def fetch(published: Published) -> dict[str, Tensor]:
    """The state dict, from ``torch.hub``'s cache, or from the network with its hash checked.

    Raises:
        RuntimeError: the file cannot be fetched, or has another hash.
        ValueError: the file in the cache is no file of weights.
    """
    url = published.url
    cached = f"{torch.hub.get_dir()}/checkpoints/{url.rpartition('/')[2]}"
    instead = f"fetch it elsewhere and put it at {cached}"
    try:
        state = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, HTTPException) as error:
        raise RuntimeError(f"{url} cannot be fetched ({_reason(error)}): {instead}") from None
    except Exception as error:
        if "invalid hash" in str(error):
            raise RuntimeError(f"{url} is not the file that was published ({_reason(error)}): {instead}") from None
        raise ValueError(f"{cached} is no readable PyTorch file ({_reason(error)}): delete it") from None
    return state


def locate(published: Published) -> Path:
    """The file in the package, with its hash checked.

    Raises:
        RuntimeError: it is missing or has another hash.
    """
    path = PACKAGED / published.file
    if not path.is_file():
        raise RuntimeError(f"{path} is missing: install fastcnn again")
    found, wanted = hashlib.sha256(path.read_bytes()).hexdigest(), path.stem.rpartition("-")[2]
    if not wanted or not found.startswith(wanted):
        raise RuntimeError(f"{path} is not the file that was published (its SHA-256 is {found}): install fastcnn again")
    return path


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
