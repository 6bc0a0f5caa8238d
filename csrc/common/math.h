#pragma once

// Functions of vectors of float or double. exp and log are right over their whole range, subnormals, infinities and NaN
// included; measured errors, in units in the last place: exp 1.1, the logarithms 2.0. The polynomials interpolate at
// Chebyshev nodes.

#include <type_traits>

#include "simd.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

template <typename V>
using Lane = std::remove_cvref_t<decltype(V{}[0])>;

template <typename A>
struct MathConstants;

template <>
struct MathConstants<float> {
  using Int = int32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr float kMax = 0x1.fffffep127f, kMinNormal = 0x1p-126f, kInfinity = __builtin_inff();
  // Beyond these exp is infinite or 0.
  static constexpr float kExpHigh = 89, kExpLow = -104;
  // Adding it leaves the nearest integer in the low bits.
  static constexpr float kRound = 0x1.8p23f;
  // ln 2 in two parts, the first short enough for its product with an exponent to be exact.
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 1.42860682e-6f;
  // (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2.
  static constexpr float kExp[] = {0.5f, 0.16666577f, 0.0416665546f, 0.00836317905f, 0.00139261836f};
  // (atanh(s) / s - 1) / s^2 in s^2 <= 1/9.
  static constexpr float kAtanh[] = {0.333333202f, 0.200037803f, 0.141183099f, 0.13425749f};
};

template <>
struct MathConstants<double> {
  using Int = int64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr double kMax = 0x1.fffffffffffffp1023, kMinNormal = 0x1p-1022, kInfinity = __builtin_inf();
  static constexpr double kExpHigh = 710, kExpLow = -746;
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kLn2High = 0x1.62e42fefp-1, kLn2Low = 7.44061711001239672e-11;
  static constexpr double kExp[] = {0.500000000000000102,   0.166666666666666675,   0.0416666666666241279,
                                    0.00833333333333006183, 0.00138888889172137169, 0.000198412698630536169,
                                    2.48015212959543751e-5, 2.75572684599970648e-6, 2.76200884454097482e-7,
                                    2.51003854955103191e-8};
  static constexpr double kAtanh[] = {0.333333333333333334,  0.199999999999997613,  0.142857142858000496,
                                      0.111111110991183853,  0.0909090994898135719, 0.0769227198243027464,
                                      0.0666758931572462792, 0.0586713953065159873, 0.0542258919744000741,
                                      0.0374607189777538365, 0.0781528890046142522};
};

template <typename V>
using MathOf = MathConstants<Lane<V>>;
template <typename V>
using IntsOf = Vec<typename MathOf<V>::Int, sizeof(V) / sizeof(Lane<V>)>;

template <typename V, int N>
inline V polynomial(V x, const Lane<V> (&coefficients)[N]) {
  V sum = V{} + coefficients[N - 1];
  for (int i = N - 2; i >= 0; --i) sum = sum * x + coefficients[i];
  return sum;
}

// x * 2^n, where `rounded` is n + kRound. In two steps, for 2^n may be out of range where the result is not.
template <typename V>
inline V scale_by_power(V x, V rounded) {
  using M = MathOf<V>;
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && sizeof(x[0]) == 4)
    return bit_cast<V>(_mm512_maskz_scalef_ps(0xffff, bit_cast<__m512>(x), bit_cast<__m512>(rounded - M::kRound)));
  if constexpr (sizeof(V) == 64 && sizeof(x[0]) == 8)
    return bit_cast<V>(_mm512_maskz_scalef_pd(0xff, bit_cast<__m512d>(x), bit_cast<__m512d>(rounded - M::kRound)));
#endif
  constexpr auto kBias = (typename M::Int(1) << (8 * sizeof(x[0]) - M::kMantissaBits - 2)) - 1;
  const IntsOf<V> n = bit_cast<IntsOf<V>>(rounded) - bit_cast<typename M::Int>(M::kRound), half = n >> 1;
  return x * bit_cast<V>((half + kBias) << M::kMantissaBits) * bit_cast<V>((n - half + kBias) << M::kMantissaBits);
}

template <typename V>
inline V magnitude(V x) {
  using M = MathOf<V>;
  return bit_cast<V>(bit_cast<IntsOf<V>>(x) & ~bit_cast<typename M::Int>(Lane<V>(-0.0)));
}

// max(x, low) and min(x, high) of which NaN stays NaN, where a selection would take two instructions and a mask.
template <typename V>
inline V at_least(Lane<V> low, V x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && sizeof(low) == 4)
    return bit_cast<V>(_mm512_maskz_max_ps(0xffff, _mm512_set1_ps(low), bit_cast<__m512>(x)));
#endif
  return x < low ? V{} + low : x;
}
template <typename V>
inline V at_most(Lane<V> high, V x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && sizeof(high) == 4)
    return bit_cast<V>(_mm512_maskz_min_ps(0xffff, _mm512_set1_ps(high), bit_cast<__m512>(x)));
#endif
  return x > high ? V{} + high : x;
}

// exp(x) for x <= 0, without exp's guard against overflow.
template <typename V>
inline V exp_nonpositive(V x) {
  using M = MathOf<V>;
  x = at_least(M::kExpLow, x);
  const V rounded = x * Lane<V>(1.4426950408889634) + M::kRound, n = rounded - M::kRound;
  const V r = (x - n * M::kLn2High) - n * M::kLn2Low;
  return scale_by_power(1 + (r + r * r * polynomial(r, M::kExp)), rounded);
}

template <typename V>
inline V exp(V x) {
  using M = MathOf<V>;
  return exp_nonpositive(at_most(M::kExpHigh, x));
}

// 2 atanh(s) less 2 s, which is to be added last, for |s| <= 1/3.
template <typename V>
inline V atanh_rest(V s) {
  const V t = s * s;
  return 2 * s * (t * polynomial(t, MathOf<V>::kAtanh));
}

// 2 atanh(s) = log((1 + s) / (1 - s)) for |s| <= 1/3. At s = x / (2 + x) it is log(1 + x), as accurate for small x as
// for x of 1.
template <typename V>
inline V atanh_doubled(V s) {
  return 2 * s + atanh_rest(s);
}

template <typename V>
inline V log(V x) {
  using M = MathOf<V>;
  const auto subnormal = x < M::kMinNormal;
  const IntsOf<V> bits = bit_cast<IntsOf<V>>(subnormal ? x * Lane<V>(int64_t(1) << M::kMantissaBits) : x);
  // x = m 2^k with m between the square roots of 1/2 and 2.
  const IntsOf<V> k = (bits - bit_cast<typename M::Int>(Lane<V>(0.70710678118654752))) >> M::kMantissaBits;
  const V m = bit_cast<V>(bits - (k << M::kMantissaBits));
  V exponent = __builtin_convertvector(k, V);
  exponent = subnormal ? exponent - M::kMantissaBits : exponent;
  const V s = (m - 1) / (m + 1);
  const V finite = exponent * M::kLn2High + (2 * s + (atanh_rest(s) + exponent * M::kLn2Low));
  const V special = x == 0 ? V{} - M::kInfinity : x < 0 ? V{} + __builtin_nanf("") : x;
  return (x > 0) & (x <= M::kMax) ? finite : special;
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

// x / D, correctly rounded unless subnormal.
template <int D, typename V>
inline V divide_by(V x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 &&
                sizeof(x[0]) == 4) {  // Divisions take several times as long as all else around them.
    const __m512 inverse = _mm512_set1_ps(1.0f / D), wide = bit_cast<__m512>(x),
                 quotient = _mm512_mul_ps(wide, inverse);
    const __m512 rest = _mm512_fnmadd_ps(quotient, _mm512_set1_ps(D), wide);
    // Not for 0, whose sign would be lost, nor for infinity, of which the rest is NaN.
    const __mmask16 inexact = _mm512_cmp_ps_mask(rest, _mm512_setzero_ps(), _CMP_NEQ_OQ);
    return bit_cast<V>(_mm512_mask3_fmadd_ps(rest, inverse, quotient, inexact));
  }
#endif
  return x / D;
}

// 1 / x to two units in the last place, where neither is subnormal, infinite or 0; NaN for NaN.
template <typename V>
inline V reciprocal(V x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && sizeof(x[0]) == 4) {  // A division takes four times as long.
    const V estimate = bit_cast<V>(_mm512_rcp14_ps(bit_cast<__m512>(x)));
    return estimate + estimate * (1 - x * estimate);
  }
#endif
  return 1 / x;
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

// x^y for x >= 0, computed in double: a float has its last bit right.
template <int N>
inline Vec<float, N> pow_positive(Vec<float, N> x, double y) {
  return __builtin_convertvector(exp(log(__builtin_convertvector(x, Vec<double, N>)) * y), Vec<float, N>);
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
