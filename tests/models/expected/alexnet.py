"""AlexNet's figures are the lectures'; ZFNet's maps are those of its figure 3."""

from expectation import Expected

LIGHTER = {"hidden": 64}
SIDE = 99  # Under 96 the last map is a pixel wide, which torch.export takes for a constant.

EXPECTED = {
    "alexnet": Expected(
        60_965_224,
        724.4e6,
        (("conv1", 96, 4), ("conv2", 256, 8), ("conv5", 256, 16), ("pool5", 256, 32)),
        side=SIDE,
        exact_strides=False,
        variants=(({"groups": 1}, 62_378_344, 1135e6),),
        trace=(
            ("features.0", (96, 55, 55)),
            ("features.3", (96, 27, 27)),
            ("features.4", (256, 27, 27)),
            ("features.7", (256, 13, 13)),
            ("features.8", (384, 13, 13)),
            ("features.10", (384, 13, 13)),
            ("features.12", (256, 13, 13)),
            ("features.14", (256, 6, 6)),
        ),
        classifier_std=0.01,
        lighter=LIGHTER,
        pixel_range=255.0,
    ),
    "alexnet_owt": Expected(
        61_100_840,
        714_188_480,
        (("conv1", 64, 4), ("conv2", 192, 8), ("conv5", 256, 16), ("pool5", 256, 32)),
        golden="alexnet",
        side=SIDE,
        exact_strides=False,
        lighter=LIGHTER,
    ),
    "zfnet": Expected(
        62_357_608,
        1_168_032_896,
        (("conv1", 96, 2), ("pool1", 96, 4), ("conv2", 256, 8), ("conv5", 256, 16), ("pool5", 256, 32)),
        side=SIDE,
        exact_strides=False,
        trace=(
            ("features.0", (96, 110, 110)),
            ("features.2", (96, 55, 55)),
            ("features.4", (256, 26, 26)),
            ("features.6", (256, 13, 13)),
            ("features.8", (384, 13, 13)),
            ("features.12", (256, 13, 13)),
            ("features.14", (256, 6, 6)),
        ),
        classifier_std=0.01,
        lighter=LIGHTER,
    ),
    "zfnet_wide": Expected(
        107_627_624,
        2_476_704_896,
        (("conv1", 96, 2), ("pool1", 96, 4), ("conv2", 256, 8), ("conv5", 512, 16), ("pool5", 512, 32)),
        side=SIDE,
        exact_strides=False,
        trace=(("features.8", (512, 13, 13)), ("features.10", (1024, 13, 13)), ("features.14", (512, 6, 6))),
        classifier_std=0.01,
        lighter=LIGHTER,
    ),
    "zfnet_spp": Expected(
        77_037_672,
        1_182_712_960,
        (("conv1", 96, 2), ("pool1", 96, 4), ("conv2", 256, 8), ("conv5", 256, 16)),
        side=SIDE,
        exact_strides=False,
        trace=(("features.12", (256, 13, 13)), ("pool", (12_800,))),
        classifier_std=0.01,
        lighter=LIGHTER,
    ),
}
