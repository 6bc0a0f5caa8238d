"""What a detector's row is held against."""

from typing import NamedTuple

from fastcnn.models.detection.roi_heads import RegionRules
from fastcnn.models.detection.rpn import ProposalRules


class Detector(NamedTuple):
    """
    params, macs: of the network as ``create(name)`` builds it, at its own input size.
    boxes: anchors or default boxes of an batch (height, width), and their number.
    losses: names.
    golden: whether tests/golden has a record of torchvision's network.
    small: options for tests by value, which take seconds with fewer layers and pixels.
    """

    params: int
    macs: int
    boxes: tuple[tuple[int, int], int]
    losses: tuple[str, ...]
    golden: bool = False
    small: dict[str, object] = {}  # noqa: RUF012


_RCNN = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
_MASK, _FAST = (*_RCNN, "loss_mask"), _RCNN[:2]
_DENSE = ("bbox_regression", "classification")
_FACE = (*_DENSE, "landmarks")
_SMALL = {"min_size": 64, "max_size": 96, "num_classes": 7}
_FEW = {"proposals": ProposalRules(before=(60, 60), after=(40, 30)), "regions": RegionRules(samples=32)}
_RESNET = _SMALL | {"backbone_options": (("layers", (1, 1, 1, 1)),)}
_RESNEXT = _SMALL | {"backbone_options": (("layers", (1, 1, 1, 1)), ("width_per_group", 1))}
_HOLES = (("layers", (1, 1, 1, 1)), ("replace_stride_with_dilation", (False, False, True)))
_DILATED = {"num_classes": 7, "backbone_options": _HOLES}
_HARD = _FEW | {"regions": RegionRules(samples=1 << 30, positive_fraction=1.0, hardest=32)}
# All negatives count, for there is no face that the coarsest maps would find.
_FACES = {"min_size": 128, "max_size": 192, "num_classes": 7, "negatives": 1e6}
_TINY = _RESNET | {"scales": (1.0, 2.0)}
_FEW_HIDDEN = {"backbone_options": (("hidden", 64),)}
_CROPS = {"crop": 67, "context": 8, **_FEW_HIDDEN}
_MOBILE = _SMALL | {"min_size": 96, "max_size": 128}

# Multiply-adds with decimals beside them are what torchvision prints for its own networks, in 10^9.
EXPECTED = {
    "fasterrcnn_resnet50_fpn": Detector(
        41_808_406,
        134_379_721_216,
        ((800, 800), 159_882),
        _RCNN,
        True,
        _RESNET | _FEW,  # 134.38
    ),
    "fasterrcnn_resnet101_fpn": Detector(
        60_800_534, 181_729_481_216, ((800, 800), 159_882), _RCNN, small=_RESNET | _FEW
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": Detector(
        19_410_754, 18_853_144_256, ((800, 800), 30 * 25**2 + 15 * 13**2), _RCNN, True, _MOBILE | _FEW
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": Detector(
        19_410_754, 2_872_931_200, ((320, 320), 30 * 10**2 + 15 * 5**2), _RCNN, small=_MOBILE | _FEW
    ),
    "fasterrcnn_vgg16": Detector(138_507_572, 149_526_329_856, ((600, 1000), 20_646), _RCNN, small=_SMALL | _FEW),
    "fasterrcnn_zf": Detector(60_726_388, 26_236_733_568, ((600, 1000), 9 * 36 * 61), _RCNN, small=_SMALL | _FEW),
    "fasterrcnn_resnet50_c4": Detector(
        29_182_516, 273_678_349_312, ((600, 1000), 9 * 38 * 63), _RCNN, small=_RESNET | _FEW
    ),
    "maskrcnn_resnet50_fpn": Detector(44_454_513, 187_586_351_616, ((800, 800), 159_882), _MASK, True, _RESNET | _FEW),
    "maskrcnn_resnet101_fpn": Detector(63_446_641, 234_936_111_616, ((800, 800), 159_882), _MASK, small=_RESNET | _FEW),
    "maskrcnn_resnext101_32x8d_fpn": Detector(
        107_688_817, 344_790_831_616, ((800, 800), 159_882), _MASK, small=_RESNEXT | _FEW
    ),
    "maskrcnn_resnext101_64x4d_fpn": Detector(
        102_352_753, 332_625_711_616, ((800, 800), 159_882), _MASK, small=_RESNEXT | _FEW
    ),
    "retinanet_resnet50_fpn": Detector(
        34_068_119,
        151_540_437_248,
        ((600, 1000), 113_193),
        _DENSE,
        True,
        _RESNET,  # 151.54
    ),
    "retinanet_resnet101_fpn": Detector(53_060_247, 198_890_197_248, ((800, 800), 120_087), _DENSE, small=_RESNET),
    "ssd300_vgg16": Detector(
        35_641_826, 34_858_153_472, ((300, 300), 8_732), _DENSE, True, {"num_classes": 7}
    ),  # 34.858
    "ssd512_vgg16": Detector(37_513_116, 100_032_441_344, ((512, 512), 24_564), _DENSE, small={"num_classes": 7}),
    # Sandler et al., CVPR 2018, table 6: 5.1M and 1.3B, 4.3M and 0.8B, of 80 classes and the background.
    "ssdlite320_mobilenet_v1": Detector(5_100_661, 1_309_162_944, ((320, 320), 2_034), _DENSE),
    "ssdlite320_mobilenet_v2": Detector(4_337_013, 788_830_144, ((320, 320), 2_034), _DENSE),
    "ssdlite320_mobilenet_v3_large": Detector(3_440_060, 583_171_904, ((320, 320), 3_234), _DENSE, True),  # 0.583
    # For small machines: no published figures; boxes of maps of 10, 5, 3, 2, 1, 1, of 20 to 2, of 40 to 3 pixels.
    "ssdlite160_mobilenet_v2_x0_35": Detector(1_860_572, 66_100_880, ((160, 160), 6 * 140), _DENSE),
    "retinanet_mobilenet_v2_x0_5_fpn": Detector(
        1_468_759, 488_206_528, ((160, 160), 9 * 538), _DENSE, small={"min_size": 64, "num_classes": 7}
    ),
    "fasterrcnn_mobilenet_v2_x0_5_fpn": Detector(
        1_667_350, 303_930_816, ((160, 160), 3 * 2134), _RCNN, small=_SMALL | _FEW
    ),
    "maskrcnn_mobilenet_v2_x0_5_fpn": Detector(
        1_837_425, 3_971_796_416, ((160, 160), 3 * 2134), _MASK, small=_SMALL | _FEW
    ),
    # Fu et al., 2017, table of frames per second: 17080 and 43688 boxes.
    "dssd321_resnet50": Detector(136_480_496, 38_889_125_056, ((321, 321), 17_080), _DENSE, small=_DILATED),
    "dssd321_resnet101": Detector(155_472_624, 46_465_086_656, ((321, 321), 17_080), _DENSE, small=_DILATED),
    "dssd513_resnet101": Detector(158_706_104, 118_696_527_040, ((513, 513), 43_688), _DENSE, small=_DILATED),
    "ssd321_resnet101": Detector(90_023_152, 24_800_392_384, ((321, 321), 17_080), _DENSE, small=_DILATED),
    "ssd513_resnet101": Detector(85_711_288, 63_312_512_192, ((513, 513), 43_688), _DENSE, small=_DILATED),
    "rfcn_resnet50": Detector(
        35_119_772, 62_115_218_432, ((600, 1000), 9 * 38 * 63), _RCNN, small=_SMALL | _DILATED | _FEW
    ),
    "rfcn_resnet101": Detector(
        54_111_900, 89_464_439_808, ((600, 1000), 9 * 38 * 63), _RCNN, small=_SMALL | _DILATED | _FEW
    ),
    "rfcn_resnet101_ohem": Detector(
        54_111_900, 89_464_439_808, ((600, 1000), 9 * 38 * 63), _RCNN, small=_SMALL | _DILATED | _HARD
    ),
    "tinyface_resnet101": Detector(27_727_674, 36_523_336_960, ((500, 500), 25 * 63**2), _DENSE, small=_TINY),
    # Deng et al., CVPR 2020, section 3.2: 102300 anchors. 16800 are those of SSH's anchors.
    "retinaface_resnet50": Detector(
        34_352_240, 76_310_937_600, ((640, 640), 102_300), _FACE, small=_FACES | {"backbone_options": _HOLES[:1]}
    ),
    "retinaface_mobilenet_v1_x0_25": Detector(459_056, 995_891_200, ((640, 640), 16_800), _FACE, small=_FACES),
    "fastrcnn_vgg16": Detector(136_124_679, 352_647_196_672, ((600, 600), 0), _FAST, small=_SMALL),
    "fastrcnn_caffenet": Detector(58_732_359, 117_759_533_568, ((600, 600), 0), _FAST, small=_SMALL),
    "rcnn_alexnet": Detector(
        56_954_261, 1_442_432_064_000, ((500, 500), 0), _FAST[:1], small={"num_classes": 7, **_CROPS}
    ),
    "sppnet_zf5": Detector(
        73_026_709, 152_244_066_432, ((688, 688), 0), _FAST[:1], small=_SMALL | _FEW_HIDDEN | {"frozen_stages": 0}
    ),
    "rcnn_minus_r_zf5": Detector(
        74_804_807, 221_749_590_144, ((600, 600), 0), _FAST, small=_SMALL | _FEW_HIDDEN | {"counted": 40}
    ),
}
GOLDEN = [name for name, row in EXPECTED.items() if row.golden]
TYPICAL = (
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssdlite320_mobilenet_v2",
    "rfcn_resnet50",
    "retinaface_mobilenet_v1_x0_25",
)
# Two more kinds, whose tests take longer.
LARGE = ("dssd321_resnet50", "tinyface_resnet101")
