"""31,030,658 parameters and 572 -> 388 are the paper's network; MACs are hand-computed in test_unet.py."""

from dense_rows import ANY, Dense, same

EXPECTED = {
    "unet": Dense(
        params=31_030_658,
        macs=150_428_424_448,
        sizes=(((572, 572), (388, 388)), ((188, 204), (4, 20))),
        small={"width": 4, "depth": 2},
        sides=(60, 48),
        trace=(
            ("down.0", (64, 568, 568)),
            ("down.1", (128, 280, 280)),
            ("down.2", (256, 136, 136)),
            ("down.3", (512, 64, 64)),
            ("down.4", (1024, 28, 28)),
            ("up.0.up", (512, 56, 56)),
            ("up.0", (512, 52, 52)),
            ("up.1", (256, 100, 100)),
            ("up.2", (128, 196, 196)),
            ("up.3", (64, 388, 388)),
        ),
        variants=(
            ({"in_channels": 3, "num_classes": 5}, 31_030_658 + 2 * 64 * 9 + 3 * 65, None),
            # Of 18 convolutions, the norm's two values in the place of a bias.
            ({"batch_norm": True}, 31_030_658 + 5_888, 150_428_424_448),
        ),
        any_size=False,
    ),
    "unet_same": Dense(
        params=31_030_658,
        macs=241_207_323_648,
        sizes=(*ANY, *same((1, 1), (572, 572))),
        small={"width": 4, "depth": 2},
        sides=(33, 22),
    ),
    "unet_x0_25": Dense(
        params=1_942_594,
        macs=758_382_592,
        sizes=(*ANY, *same((1, 3), (96, 160))),
        small={"width": 4, "depth": 3},
        sides=(37, 30),
    ),
}
