#pragma once

// What convolutions do to their results.

namespace fastcnn {

enum class Activation { none, relu, relu6, hardswish, silu };  // Numbered as in fastcnn.ops.

}  // namespace fastcnn

#ifdef FASTCNN_ISA
#include "math.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// NaN stays NaN, as every comparison with it is false.
template <Activation kind, typename A, int N>
inline Vec<A, N> activate(Vec<A, N> x) {
  if constexpr (kind == Activation::relu) return at_least(0, x);
  if constexpr (kind == Activation::relu6) return at_most(6, at_least(0, x));
  if constexpr (kind == Activation::hardswish) return divide_by<6>(x * at_most(6, at_least(0, x + 3)));
  if constexpr (kind == Activation::silu) return x / (1 + exp(-x));
  return x;
}

// The gradient before the activation of x, from that after it.
template <Activation kind, typename A, int N>
inline Vec<A, N> activate_backward(Vec<A, N> grad, Vec<A, N> x) {
  if constexpr (kind == Activation::relu) return x <= 0 ? Vec<A, N>{} : grad;
  if constexpr (kind == Activation::relu6) return (x > 0) & (x < 6) ? grad : Vec<A, N>{};
  if constexpr (kind == Activation::hardswish) {
    const Vec<A, N> inner = grad * (divide_by<3>(x) + A(0.5)), below = x <= -3 ? Vec<A, N>{} : inner;
    return x >= 3 ? grad : below;
  }
  if constexpr (kind == Activation::silu) {
    const Vec<A, N> gate = 1 / (1 + exp(-x));
    return grad * (gate * (1 + x * (1 - gate)));
  }
  return grad;
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
#endif
