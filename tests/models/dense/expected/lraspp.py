"""Torchvision's counts."""

from dense_rows import ANY, Dense

EXPECTED = {
    "lraspp_mobilenet_v3_large": Dense(
        3_221_538,
        2_086_219_688,
        ANY,
        golden="lraspp_mobilenet_v3_large",
        trace=(("backbone.4", (40, 65, 65)), ("backbone.16", (960, 33, 33)), ("classifier", (21, 65, 65))),
    ),
}
