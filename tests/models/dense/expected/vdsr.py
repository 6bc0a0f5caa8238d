"""Section 3.1 of Kim et al., CVPR 2016: 18 * 64 * 64 * 9 + 2 * 64 * 9 = 664,704 weights, and 19 * 64 + 1 biases."""

from dense_rows import ANY, Dense

EXPECTED = {
    "vdsr": Dense(
        664_704 + 1_217,
        664_704 * 41**2,
        ANY,
        small={"layers": 5, "channels": 8},
        sides=(33, 50),
        trace=(("layers.0", (64, 41, 41)), ("layers.18", (64, 41, 41)), ("last", (1, 41, 41))),
        variants=(({"in_channels": 3}, 664_704 + 2 * 2 * 64 * 9 + 1_219, None),),
    ),
    "vdsr_8": Dense(6 * 32 * 32 * 9 + 2 * 32 * 9 + 7 * 32 + 1, (6 * 32 * 32 * 9 + 2 * 32 * 9) * 41**2, ANY),
}
