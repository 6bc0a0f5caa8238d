#pragma once

// The loop of elementwise kernels.

#include "simd.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// out[i] = f(in[i]...) over n elements, a vector at a time.
template <typename T, typename Function, typename... In>
void map(const Function& f, T* out, int64_t n, const In*... in) {
  constexpr int lanes = kLanes<acc_t<T>>;
  for (int64_t i = 0; i < n; i += lanes) store_some<lanes>(out + i, f(load_some<lanes>(in + i, n - i)...), n - i);
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
