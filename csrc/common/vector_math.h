#pragma once

// Transcendental functions of vectors.

#include "simd.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Within 2 units in the last place; overflows to infinity and underflows through the subnormals.
template <int N>
inline Vec<float, N> exp(Vec<float, N> x) {
  using I = Vec<int32_t, N>;
  const Vec<float, N> low = x < -110.0f ? Vec<float, N>{} - 110.0f : x;
  const Vec<float, N> at = low > 90.0f ? Vec<float, N>{} + 90.0f : low;
  // Adding 1.5 * 2^23 rounds to a whole number, which then stands in the low bits.
  const Vec<float, N> shifted = at * 0x1.715476p0f + 0x1.8p23f;
  const Vec<float, N> whole = shifted - 0x1.8p23f;
  const I n = bit_cast<I>(shifted) - 0x4b400000;
  // log(2) in two parts, the first so short that its product with a whole number is exact.
  const Vec<float, N> r = (at - whole * 0x1.62e4p-1f) - whole * 0x1.7f7d1cp-20f;
  // Taylor's series: |r| <= log(2) / 2, where what is left out is below 6e-9.
  Vec<float, N> p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = (p * r) * r + r + 1.0f;
  // In two factors, since 2^n itself may not be a float.
  const I half = n >> 1;
  return p * bit_cast<Vec<float, N>>((half + 127) << 23) * bit_cast<Vec<float, N>>((n - half + 127) << 23);
}

template <int N>
inline Vec<double, N> exp(Vec<double, N> x) {
  for (int i = 0; i < N; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

// Lane i of the result is the sum of the lanes of rows[i], all added up in the same order.
template <typename A, int N>
inline Vec<A, N> sum_lanes(Vec<A, N> (&rows)[N]) {
  using Lanes = std::make_integer_sequence<int, N>;
  for (int half = N / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i)
      rows[i] =
          interleave<A, N, 0>(rows[i], rows[i + half], Lanes{}) + interleave<A, N, 1>(rows[i], rows[i + half], Lanes{});
  return rows[0];
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
