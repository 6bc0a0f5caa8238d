#pragma once

#include "../common/math.h"
#include "depthwise_conv2d_kernel.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

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
  if constexpr (kind == Activation::silu) return x / (1 + exp(-x));
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
