#pragma once

#include "../common/simd.h"
#include "depthwise_conv2d_kernel.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

template <int N>
inline Vec<float, N> exponential(Vec<float, N> x) {
  using V = Vec<float, N>;
  x = x > 88.0f ? V{} + 88.0f : x;
  x = x < -87.0f ? V{} - 87.0f : x;
  // x = k log 2 + r with |r| <= log(2) / 2; adding 1.5 * 2^23 rounds to whole numbers and leaves them in the low bits.
  const V shifted = x * 1.44269504f + 0x1.8p23f;
  const V k = shifted - 0x1.8p23f;
  const V r = (x - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f;
  // Taylor's series to degree 7, of which the rest is below 1e-8.
  V sum = V{} + 1 / 5040.0f;
  for (const float c : {1 / 720.0f, 1 / 120.0f, 1 / 24.0f, 1 / 6.0f, 0.5f, 1.0f, 1.0f}) sum = sum * r + c;
  const Vec<uint32_t, N> power = (bit_cast<Vec<uint32_t, N>>(shifted) + 127) << 23;
  return sum * bit_cast<V>(power);
}
template <int N>
inline Vec<double, N> exponential(Vec<double, N> x) {
  for (int i = 0; i < N; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

// NaN stays NaN, as every comparison with it is false.
template <Activation kind, typename A, int N>
inline Vec<A, N> activate(Vec<A, N> x) {
  using V = Vec<A, N>;
  if constexpr (kind == Activation::relu) return x < 0 ? V{} : x;
  if constexpr (kind == Activation::relu6) {
    x = x < 0 ? V{} : x;
    return x > 6 ? V{} + 6 : x;
  }
  if constexpr (kind == Activation::hardswish) {
    V gate = x + 3;
    gate = gate < 0 ? V{} : gate;
    gate = gate > 6 ? V{} + 6 : gate;
    return x * gate / 6;
  }
  if constexpr (kind == Activation::silu) return x / (1 + exponential<N>(-x));
  return x;
}

template <typename A, int N>
inline Vec<A, N> activate(Activation kind, Vec<A, N> x) {
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::relu:
      return activate<Activation::relu, A, N>(x);
    case Activation::relu6:
      return activate<Activation::relu6, A, N>(x);
    case Activation::hardswish:
      return activate<Activation::hardswish, A, N>(x);
    case Activation::silu:
      return activate<Activation::silu, A, N>(x);
  }
  return x;
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
