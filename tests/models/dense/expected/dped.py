"""Ignatov et al., ICCV 2017, section 3.2: 12 layers, of 9x9 and 3x3, of 64 channels; 8 norms."""

from dense_rows import ANY, Dense

WEIGHTS = 2 * 81 * 3 * 64 + 10 * 9 * 64 * 64
PARAMS = WEIGHTS + 3 * 64 + 3 + 8 * 128

EXPECTED = {
    "dped_generator": Dense(
        PARAMS,
        WEIGHTS * 100**2,
        ANY,
        small={"channels": 8},
        sides=(33, 26),
        trace=(("conv1", (64, 100, 100)), ("blocks.3", (64, 100, 100)), ("conv4", (3, 100, 100))),
    ),
    "dped_generator_in": Dense(PARAMS, WEIGHTS * 100**2, ANY, small={"channels": 8}, sides=(33, 26)),
}
