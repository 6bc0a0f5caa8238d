#pragma once

// Fixed-width vectors over the compiler's vector extensions: the same source becomes SSE2, AVX2, AVX-512 or NEON.
// Storage types are float, double and the two 16-bit types, which are held as integers here and computed on as float.

#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "storage.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename A, int N>
struct VecOf {
  typedef A type __attribute__((vector_size(N * sizeof(A))));
};
template <typename A, int N>
using Vec = typename VecOf<A, N>::type;

template <typename A>
constexpr int kLanes = kVectorBytes / int(sizeof(A));

template <typename To, typename From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

template <typename V>
inline V read(const void* at) {
  V v;
  memcpy(&v, at, sizeof v);
  return v;
}

template <int N>
inline Vec<float, N> widen(Vec<uint16_t, N> v, BFloat16) {
#if defined(__AVX512F__)
  // g++ 12 would convert the halves and join them.
  if constexpr (N == 16)
    return bit_cast<Vec<float, N>>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bit_cast<__m256i>(v)), 16));
#endif
  return bit_cast<Vec<float, N>>(__builtin_convertvector(v, Vec<uint32_t, N>) << 16);
}

template <int N>
inline Vec<float, N> widen(Vec<uint16_t, N> v, Half) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return bit_cast<Vec<float, N>>(_mm512_cvtph_ps(bit_cast<__m256i>(v)));
#endif
#if defined(__F16C__)
  if constexpr (N == 8) return bit_cast<Vec<float, N>>(_mm256_cvtph_ps(bit_cast<__m128i>(v)));
#endif
  // The exponent is rebased by a multiplication, which normalises subnormals too; infinity and NaN are put back after.
  const Vec<uint32_t, N> wide = __builtin_convertvector(v, Vec<uint32_t, N>);
  const Vec<uint32_t, N> magnitude = (wide & 0x7fff) << 13;
  const Vec<float, N> scaled = bit_cast<Vec<float, N>>(magnitude) * 0x1p112f;
  const Vec<uint32_t, N> special =
      magnitude >= (0x7c00u << 13) ? magnitude | 0x7f800000u : bit_cast<Vec<uint32_t, N>>(scaled);
  return bit_cast<Vec<float, N>>(special | (wide & 0x8000) << 16);
}

template <int N>
inline Vec<uint16_t, N> narrow(Vec<float, N> v, BFloat16) {
#if defined(__AVX512F__)
  if constexpr (N == 16) {  // The same in fewer instructions, with masks.
    const __m512i bits = bit_cast<__m512i>(v), almost = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
    const __m512i sum = _mm512_mask_add_epi32(almost, odd, almost, _mm512_set1_epi32(1));
    const __mmask16 number = _mm512_cmp_ps_mask(bit_cast<__m512>(v), bit_cast<__m512>(v), _CMP_ORD_Q);
    const __m512i chosen = _mm512_mask_srli_epi32(_mm512_set1_epi32(0x7fc0), number, sum, 16);
    return __builtin_convertvector(bit_cast<Vec<uint32_t, N>>(chosen), Vec<uint16_t, N>);
  }
#endif
  const Vec<uint32_t, N> bits = bit_cast<Vec<uint32_t, N>>(v);
  const Vec<uint32_t, N> rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const Vec<uint32_t, N> chosen = (bits & 0x7fffffff) > 0x7f800000u ? Vec<uint32_t, N>{} + 0x7fc0u : rounded;
  return __builtin_convertvector(chosen, Vec<uint16_t, N>);
}

template <int N>
inline Vec<uint16_t, N> narrow(Vec<float, N> v, Half) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return bit_cast<Vec<uint16_t, N>>(_mm512_cvtps_ph(bit_cast<__m512>(v), 0));
#endif
#if defined(__F16C__)
  if constexpr (N == 8) return bit_cast<Vec<uint16_t, N>>(_mm256_cvtps_ph(bit_cast<__m256>(v), 0));
#endif
  const Vec<uint32_t, N> bits = bit_cast<Vec<uint32_t, N>>(v);
  const Vec<uint32_t, N> sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  const Vec<uint32_t, N> normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  // Below 2^-14 the unit in the last place is fixed: adding 0.5 aligns it with float's, which then rounds.
  const Vec<uint32_t, N> small = bit_cast<Vec<uint32_t, N>>(bit_cast<Vec<float, N>>(magnitude) + 0.5f) - 0x3f000000u;
  Vec<uint32_t, N> half = magnitude < (113u << 23) ? small : normal;
  half = magnitude >= 0x477ff000u ? Vec<uint32_t, N>{} + 0x7c00u : half;
  half = magnitude > 0x7f800000u ? Vec<uint32_t, N>{} + 0x7e00u : half;
  return __builtin_convertvector(half | sign, Vec<uint16_t, N>);
}

template <int N>
inline Vec<float, N> load(const float* at) {
  return read<Vec<float, N>>(at);
}
template <int N>
inline Vec<double, N> load(const double* at) {
  return read<Vec<double, N>>(at);
}
template <int N>
inline Vec<float, N> load(const BFloat16* at) {
  return widen<N>(read<Vec<uint16_t, N>>(at), BFloat16{});
}
template <int N>
inline Vec<float, N> load(const Half* at) {
  return widen<N>(read<Vec<uint16_t, N>>(at), Half{});
}

template <int N>
inline void store(float* at, Vec<float, N> v) {
  memcpy(at, &v, sizeof v);
}
template <int N>
inline void store(double* at, Vec<double, N> v) {
  memcpy(at, &v, sizeof v);
}
template <int N>
inline void store(BFloat16* at, Vec<float, N> v) {
  const Vec<uint16_t, N> bits = narrow<N>(v, BFloat16{});
  memcpy(at, &bits, sizeof bits);
}
template <int N>
inline void store(Half* at, Vec<float, N> v) {
  const Vec<uint16_t, N> bits = narrow<N>(v, Half{});
  memcpy(at, &bits, sizeof bits);
}

// AddressSanitizer does not know what memory intrinsics use: this it sees.
inline void touch([[maybe_unused]] const void* at, [[maybe_unused]] int64_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  const auto* byte = static_cast<const volatile char*>(at);
  if (bytes > 0) (void)byte[0], (void)byte[bytes - 1];
#endif
}

// Past the caches, where the address is a whole number of vectors: for more than caches hold, which else would be read
// before it is written. Whoever is done with it calls end_stream().
template <int N, typename T>
inline void stream(T* at, Vec<acc_t<T>, N> v) {
#if defined(__x86_64__)
  alignas(sizeof(T) * N) T bits[N];
  store<N>(bits, v);
  touch(at, sizeof bits);
#if defined(__AVX512F__)
  if constexpr (sizeof bits == 64) return _mm512_stream_si512(reinterpret_cast<__m512i*>(at), read<__m512i>(bits));
#endif
#if defined(__AVX__)
  if constexpr (sizeof bits == 32) return _mm256_stream_si256(reinterpret_cast<__m256i*>(at), read<__m256i>(bits));
#endif
  if constexpr (sizeof bits == 16) return _mm_stream_si128(reinterpret_cast<__m128i*>(at), read<__m128i>(bits));
#endif
  store<N>(at, v);
}

inline void end_stream() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

#if defined(__AVX512F__)
// Masked instructions for vectors that fill a register once widened: a call of memcpy takes many times as long.
template <typename T, int N>
constexpr bool kMasked = sizeof(acc_t<T>) * N == 64;

template <typename T>
inline void touch_masked(const T* at, uint32_t mask) {
  if (mask == 0) return;
  const int first = __builtin_ctz(mask), end = 32 - __builtin_clz(mask);
  touch(at + first, sizeof(T) * (end - first));
}

template <int N, typename T>
inline Vec<acc_t<T>, N> load_masked(const T* at, uint32_t mask) {
  touch_masked(at, mask);
  if constexpr (sizeof(T) == 8)
    return bit_cast<Vec<acc_t<T>, N>>(_mm512_maskz_loadu_epi64(__mmask8(mask), at));
  else if constexpr (sizeof(T) == 4)
    return bit_cast<Vec<acc_t<T>, N>>(_mm512_maskz_loadu_epi32(__mmask16(mask), at));
  else
    return widen<N>(bit_cast<Vec<uint16_t, N>>(_mm256_maskz_loadu_epi16(__mmask16(mask), at)), T{});
}

template <int N, typename T>
inline void store_masked(T* at, Vec<acc_t<T>, N> v, uint32_t mask) {
  touch_masked(at, mask);
  if constexpr (sizeof(T) == 8)
    _mm512_mask_storeu_epi64(at, __mmask8(mask), bit_cast<__m512i>(v));
  else if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_epi32(at, __mmask16(mask), bit_cast<__m512i>(v));
  else
    _mm256_mask_storeu_epi16(at, __mmask16(mask), bit_cast<__m256i>(narrow<N>(v, T{})));
}
#endif

// The first `count` lanes only, or all if there are more: neither reads nor writes past them. Lanes not read are 0.
template <int N, typename T>
inline Vec<acc_t<T>, N> load_some(const T* at, int64_t count) {
  if (count >= N) return load<N>(at);
#if defined(__AVX512F__)
  if constexpr (kMasked<T, N>) return load_masked<N>(at, (1u << count) - 1);
#endif
  T buffer[N] = {};
  memcpy(buffer, at, sizeof(T) * count);
  return load<N>(buffer);
}
template <int N, typename T>
inline void store_some(T* at, Vec<acc_t<T>, N> v, int64_t count) {
  if (count >= N) return store<N>(at, v);
#if defined(__AVX512F__)
  if constexpr (kMasked<T, N>) return store_masked<N>(at, v, (1u << count) - 1);
#endif
  T buffer[N];
  store<N>(buffer, v);
  memcpy(at, buffer, sizeof(T) * count);
}

// Lanes of a and b in turn, from the lower (Part = 0) or upper (Part = 1) halves of both.
template <typename A, int N, int Part, int... I>
inline Vec<A, N> interleave(Vec<A, N> a, Vec<A, N> b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (Part * N / 2 + I / 2 + I % 2 * N)...);
}

// Row i, lane j becomes row j, lane i: log2(N) rounds of interleaving the upper half of the rows into the lower.
template <typename A, int N>
inline void transpose(Vec<A, N> (&rows)[N]) {
  using Lanes = std::make_integer_sequence<int, N>;
  for (int round = 1; round < N; round *= 2) {
    Vec<A, N> mixed[N];
    for (int i = 0; i < N / 2; ++i) {
      mixed[2 * i] = interleave<A, N, 0>(rows[i], rows[i + N / 2], Lanes{});
      mixed[2 * i + 1] = interleave<A, N, 1>(rows[i], rows[i + N / 2], Lanes{});
    }
    memcpy(rows, mixed, sizeof mixed);
  }
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
