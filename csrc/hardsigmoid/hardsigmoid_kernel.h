#pragma once

#include "../common/isa.h"
#include "../common/storage.h"

namespace fastcnn {
FASTCNN_FOR_EACH_ISA(
    // out[i] = clamp(in[i] + 3, 0, 6) / 6 over n elements.
    template <typename T> void hardsigmoid(const T* in, T* out, int64_t n);
    // grad_in[i] = grad[i] / 6 between -3 and 3, else 0.
    template <typename T> void hardsigmoid_backward(const T* grad, const T* in, T* grad_in, int64_t n);)
}  // namespace fastcnn
