"""Lim et al., CVPRW 2017: table 1 says 1.5 M and 43 M parameters; 1,369,859 of the baseline for 2 times are public."""

from dense_rows import Dense


def expected(channels, blocks, scale, **options):
    inner = channels * channels * 9
    shuffled = {2: (4,), 3: (9,), 4: (4, 4)}[scale]
    weights = 2 * 3 * channels * 9 + (2 * blocks + 1) * inner + sum(shuffled) * inner
    biases = channels + 3 + (2 * blocks + 1) * channels + sum(shuffled) * channels
    areas = [1, *([4] if scale == 4 else [])]
    macs = 3 * channels * 9 + (2 * blocks + 1) * inner + 3 * channels * 9 * scale**2
    macs += sum(area * many * inner for area, many in zip(areas, shuffled, strict=True))
    sizes = tuple((size, tuple(scale * side for side in size)) for size in ((16, 16), (13, 22)))
    return Dense(
        weights + biases,
        macs * 48**2,
        sizes,
        small={"blocks": 2, "channels": 8},
        sides=(16, 21),
        trace=(
            ("head", (channels, 48, 48)),
            ("body", (channels, 48, 48)),
            ("tail.0", (channels, 48 * scale, 48 * scale)),
        ),
        **options,
    )


EXPECTED = {
    **{f"edsr_baseline_x{scale}": expected(64, 16, scale) for scale in (2, 3, 4)},
    **{f"edsr_x{scale}": expected(256, 32, scale) for scale in (2, 3, 4)},
}
