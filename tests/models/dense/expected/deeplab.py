"""Torchvision's counts; the lectures' of MobileNets, 11.15M, 4.52M and 2.11M.

Their multiply-adds, 14.25B, 5.8B and 2.75B, are of dilated convolutions on maps that TensorFlow pads to 36x36 of 33x33.
"""

from dense_rows import ANY, Dense

_SMALL = {"backbone_options": (("layers", (1, 1, 1, 1)),), "hidden": 16}
_AUX = {"aux_classifier": True}
_FINE = {"output_stride": 8}

EXPECTED = {
    "deeplabv3_mobilenet_v2_aspp": Dense(
        4_523_541,
        5_363_508_928,
        ANY,
        trace=(("backbone.17", (320, 33, 33)), ("classifier.0", (256, 33, 33)), ("classifier", (21, 33, 33))),
        variants=((_FINE, 4_523_541, 19_001_546_432),),
    ),
    "deeplabv3_mobilenet_v2": Dense(
        2_113_557,
        2_740_709_056,
        ANY,
        # 8.826 G of scales 0.5 to 1.75, 17.375 times as many pixels with flips, are 153.4 G; the lectures have 152.6B.
        variants=((_FINE, 2_113_557, 8_825_853_632),),
    ),
    "deeplabv3_mobilenet_v1": Dense(
        11_145_301,
        12_760_886_976,
        ANY,
        small={"backbone": "mobilenet_v1_x0_25", "hidden": 16},
        variants=((_FINE, 11_145_301, 46_400_483_008),),
    ),
    "deeplabv3_mobilenet_v3_large": Dense(
        11_025_477, 10_436_350_688, ANY, small={"hidden": 16}, variants=((_AUX, 11_029_328, None),)
    ),
    "deeplabv3_resnet50": Dense(
        39_638_869,
        168_731_205_888,
        ANY,
        golden="deeplabv3_resnet50",
        small=_SMALL | _AUX,
        variants=((_AUX, 42_004_074, None),),
    ),
    "deeplabv3_resnet101": Dense(58_630_997, 248_752_300_288, ANY, small=_SMALL, variants=((_AUX, 60_996_202, None),)),
}
