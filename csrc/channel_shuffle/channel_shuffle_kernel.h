#pragma once

#include "../common/isa.h"

namespace fastcnn {

struct Element16 {  // Of complex128.
  uint64_t low, high;
};

FASTCNN_FOR_EACH_ISA(
    // Of every pixel, channel i * each + j goes to j * groups + i. U is an unsigned integer, or Element16, of the size
    // of an element; pixels of `in` lie in_stride elements apart, those of `out` are dense.
    template <typename U>
    void shuffle_pixels(const U* in, int64_t in_stride, U* out, int64_t pixels, int64_t groups, int64_t each);)
}  // namespace fastcnn
