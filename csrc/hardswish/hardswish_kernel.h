#pragma once

#include "../common/isa.h"
#include "../common/storage.h"

namespace fastcnn {
FASTCNN_FOR_EACH_ISA(
    // out[i] = in[i] * clamp(in[i] + 3, 0, 6) / 6 over n elements.
    template <typename T> void hardswish(const T* in, T* out, int64_t n);
    // grad_in[i] = grad[i] * (0 below -3, in[i] / 3 + 1/2 between, 1 above 3).
    template <typename T> void hardswish_backward(const T* grad, const T* in, T* grad_in, int64_t n);)
}  // namespace fastcnn
