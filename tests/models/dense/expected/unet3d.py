"""The paper counts 19,069,955 parameters, without batch norms and biases of up-convolutions."""

from dense_rows import Dense, same

EXPECTED = {
    "unet3d": Dense(
        params=19_075_523,
        macs=266_731_018_496,
        sizes=(((116, 132, 132), (28, 44, 44)), ((92, 100, 92), (4, 12, 4))),
        small={"width": 2, "depth": 1},
        sides=(20, 22, 18),
        variants=(({"batch_norm": False, "up_bias": False}, 19_069_955, 266_731_018_496),),
        any_size=False,
    ),
    "unet3d_x0_25": Dense(
        params=1_192_970,
        macs=15_313_403_904,
        sizes=same((64, 64, 64), (9, 1, 14)),
        small={"width": 2, "depth": 2},
        sides=(9, 8, 11),
    ),
}
