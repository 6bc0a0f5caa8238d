#pragma once

// The loop of elementwise kernels.

#include "math.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// out[i] = f(in[i]...) over n elements, a vector at a time.
template <typename T, typename Function, typename... In>
void map(const Function& f, T* out, int64_t n, const In*... in) {
  constexpr int lanes = kLanes<acc_t<T>>;
  for (int64_t i = 0; i < n; i += lanes) store_some<lanes>(out + i, f(load_some<lanes>(in + i, n - i)...), n - i);
}

// f(first, count) for every vector of [0, n); only the last may be of fewer than kStep elements.
template <int kStep, typename F>
[[gnu::always_inline]] inline void for_each_vector(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) f(i, kStep);
  if (i < n) f(i, n - i);
}

// min(max(x + 3, 0), 6), NaN kept.
template <typename V>
inline V shifted_relu6(V x) {
  return at_most(6, at_least(0, x + 3));
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn

// Of an op of one tensor: its kernels `op` and `op_backward`, from the functors of its value and its gradient.
#define FASTCNN_ELEMENTWISE_KERNELS(op, value, gradient)                  \
  template <typename T>                                                   \
  void op(const T* in, T* out, int64_t n) {                               \
    map(value{}, out, n, in);                                             \
  }                                                                       \
  template <typename T>                                                   \
  void op##_backward(const T* grad, const T* in, T* grad_in, int64_t n) { \
    map(gradient{}, grad_in, n, grad, in);                                \
  }                                                                       \
  FASTCNN_ELEMENTWISE_OF(op, float)                                       \
  FASTCNN_ELEMENTWISE_OF(op, double)                                      \
  FASTCNN_ELEMENTWISE_OF(op, Half)                                        \
  FASTCNN_ELEMENTWISE_OF(op, BFloat16)
#define FASTCNN_ELEMENTWISE_OF(op, T)         \
  template void op<T>(const T*, T*, int64_t); \
  template void op##_backward<T>(const T*, const T*, T*, int64_t);
