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

template <typename A, int N>
inline Vec<A, N> sqrt(Vec<A, N> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof x == 64 && sizeof(A) == 4) return bit_cast<Vec<A, N>>(_mm512_sqrt_ps(bit_cast<__m512>(x)));
  if constexpr (sizeof x == 64 && sizeof(A) == 8) return bit_cast<Vec<A, N>>(_mm512_sqrt_pd(bit_cast<__m512d>(x)));
#elif defined(__AVX__)
  if constexpr (sizeof x == 32 && sizeof(A) == 4) return bit_cast<Vec<A, N>>(_mm256_sqrt_ps(bit_cast<__m256>(x)));
  if constexpr (sizeof x == 32 && sizeof(A) == 8) return bit_cast<Vec<A, N>>(_mm256_sqrt_pd(bit_cast<__m256d>(x)));
#endif
  for (int i = 0; i < N; ++i) x[i] = sizeof(A) == 8 ? __builtin_sqrt(x[i]) : __builtin_sqrtf(x[i]);
  return x;
}

// x^(-1/4), for 0 and infinity too.
template <typename A, int N>
inline Vec<A, N> inverse_fourth_root(Vec<A, N> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof x == 64 && sizeof(A) == 4) {
    // Roots and divisions take three times as long as these estimates, 14 bits each, and one step of third order.
    const __m512 root = _mm512_rsqrt14_ps(bit_cast<__m512>(x));
    const Vec<A, N> inverse_root = bit_cast<Vec<A, N>>(root);
    const Vec<A, N> y = inverse_root * bit_cast<Vec<A, N>>(_mm512_rsqrt14_ps(root));
    const Vec<A, N> y2 = y * y, error = 1 - x * y2 * y2;
    return error == error ? y + y * error * (0.25f + 0.15625f * error) : inverse_root;
  }
#endif
  return 1 / sqrt<A, N>(sqrt<A, N>(x));
}

// x^y for x >= 0 in double, accurate to 1e-10: a float has its last bit right. NaN gives 0.
template <int N>
inline Vec<float, N> pow_positive(Vec<float, N> x, double y) {
  using D = Vec<double, N>;
  using I = Vec<int64_t, N>;
  const I bits = bit_cast<I>(__builtin_convertvector(x, D));
  // x = m * 2^n with m in [sqrt(1/2), sqrt(2)), whose bits begin at those of the lower end.
  const I n = (bits - 0x3fe6a09e667f3bcd) >> 52;
  const D m = bit_cast<D>(bits - (n << 52));
  // log(m) = 2 artanh((m - 1) / (m + 1)).
  const D t = (m - 1) / (m + 1), t2 = t * t;
  D p = t2 * (1.0 / 11) + 1.0 / 9;
  p = p * t2 + 1.0 / 7;
  p = p * t2 + 1.0 / 5;
  p = p * t2 + 1.0 / 3;
  p = p * t2 + 1.0;
  D exponent = (p * t * (2 / 0.6931471805599453) + __builtin_convertvector(n, D)) * y;
  exponent = exponent < -1000 ? D{} - 1000 : exponent;
  exponent = exponent > 1000 ? D{} + 1000 : exponent;
  // Adding 1.5 * 2^52 rounds to a whole number, which then stands in the low bits.
  const D shifted = exponent + 0x1.8p52;
  const D r = (exponent - (shifted - 0x1.8p52)) * 0.6931471805599453;
  D q = r * (1.0 / 362880) + 1.0 / 40320;
  q = q * r + 1.0 / 5040;
  q = q * r + 1.0 / 720;
  q = q * r + 1.0 / 120;
  q = q * r + 1.0 / 24;
  q = q * r + 1.0 / 6;
  q = q * r + 0.5;
  q = q * r + 1.0;
  q = q * r + 1.0;
  const I power = (bit_cast<I>(shifted) - 0x4338000000000000 + 1023) << 52;
  return __builtin_convertvector(q * bit_cast<D>(power), Vec<float, N>);
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
