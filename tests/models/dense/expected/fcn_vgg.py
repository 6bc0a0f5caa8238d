"""VGG-16's convolutions and hidden layers, 134,260,544 parameters; then 21 scores a map and their kernels by class."""

from dense_rows import ANY, Dense, same

_VGG, _SCORES = 134_260_544, 21 * 4097
_SMALL = {"backbone_options": (("width_mult", 0.125), ("hidden", 16))}
_SIZES = same((500, 500), (97, 130))
_POOL3, _POOL4 = 21 * 257, 21 * 513
# Of 500 pixels, poolings that round up: 63, 32 and 16 of a side.
_TRACE = (("backbone.16", (256, 63, 63)), ("backbone.23", (512, 32, 32)), ("backbone.30", (512, 16, 16)))


def kernel(side):
    return 21 * side**2


EXPECTED = {
    "fcn8s_vgg11_bn_x0_25": Dense(1_834_911, 179_913_984, ANY),
    "fcn8s_vgg16": Dense(
        _VGG + _SCORES + _POOL4 + _POOL3 + 2 * kernel(4) + kernel(16),
        107_847_648_768,
        _SIZES,
        small=_SMALL,
        trace=(*_TRACE, ("fc", (4096, 16, 16)), ("upscores.1", (21, 64, 64)), ("upscores.2", (21, 504, 504))),
    ),
    "fcn16s_vgg16": Dense(
        _VGG + _SCORES + _POOL4 + kernel(4) + kernel(32),
        107_826_650_112,
        _SIZES,
        small=_SMALL,
        trace=(("upscores.1", (21, 512, 512)),),
    ),
    "fcn32s_vgg16": Dense(
        _VGG + _SCORES + kernel(64), 107_815_554_048, _SIZES, small=_SMALL, trace=(("upscores.0", (21, 512, 512)),)
    ),
    "fcn32s_fixed_vgg16": Dense(
        _VGG + _SCORES + kernel(64), 107_815_554_048, _SIZES, small=_SMALL, frozen=("upscores.",)
    ),
}
