#include "channel_shuffle_kernel.h"

#include "../common/simd.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Three groups, as ShuffleNet usually has, take two permutations for each result.
template <typename U, int L, int Of, int... I>
inline Vec<U, L> interleave3(Vec<U, L> a, Vec<U, L> b, Vec<U, L> c, std::integer_sequence<int, I...>) {
  constexpr int first = Of * L;
  const Vec<U, L> ab =
      __builtin_shufflevector(a, b, ((first + I) % 3 == 2 ? 0 : (first + I) / 3 + (first + I) % 3 * L)...);
  return __builtin_shufflevector(ab, c, ((first + I) % 3 == 2 ? (first + I) / 3 + L : I)...);
}

template <typename U, int L, int From, int... I>
inline Vec<U, L> deinterleave3(Vec<U, L> a, Vec<U, L> b, Vec<U, L> c, std::integer_sequence<int, I...>) {
  const Vec<U, L> ab = __builtin_shufflevector(a, b, (3 * I + From < 2 * L ? 3 * I + From : 0)...);
  return __builtin_shufflevector(ab, c, (3 * I + From < 2 * L ? I : 3 * I + From - L)...);
}

template <int G, typename U, int L>
inline void interleave_lines(Vec<U, L> (&lines)[G]) {
  using Lanes = std::make_integer_sequence<int, L>;
  if constexpr (G == 3) {
    const Vec<U, L> a = lines[0], b = lines[1], c = lines[2];
    lines[0] = interleave3<U, L, 0>(a, b, c, Lanes{});
    lines[1] = interleave3<U, L, 1>(a, b, c, Lanes{});
    lines[2] = interleave3<U, L, 2>(a, b, c, Lanes{});
  } else {
    for (int round = 1; round < G; round *= 2) {
      Vec<U, L> mixed[G];
      for (int i = 0; i < G / 2; ++i) {
        mixed[2 * i] = interleave<U, L, 0>(lines[i], lines[i + G / 2], Lanes{});
        mixed[2 * i + 1] = interleave<U, L, 1>(lines[i], lines[i + G / 2], Lanes{});
      }
      memcpy(lines, mixed, sizeof mixed);
    }
  }
}

// Every other lane of a and b, from lane Part.
template <typename U, int L, int Part, int... I>
inline Vec<U, L> every_other(Vec<U, L> a, Vec<U, L> b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (2 * I + Part)...);
}

template <int G, typename U, int L>
inline void deinterleave_lines(Vec<U, L> (&lines)[G]) {
  using Lanes = std::make_integer_sequence<int, L>;
  if constexpr (G == 3) {
    const Vec<U, L> a = lines[0], b = lines[1], c = lines[2];
    lines[0] = deinterleave3<U, L, 0>(a, b, c, Lanes{});
    lines[1] = deinterleave3<U, L, 1>(a, b, c, Lanes{});
    lines[2] = deinterleave3<U, L, 2>(a, b, c, Lanes{});
  } else {
    for (int round = 1; round < G; round *= 2) {
      Vec<U, L> mixed[G];
      for (int i = 0; i < G / 2; ++i) {
        mixed[i] = every_other<U, L, 0>(lines[2 * i], lines[2 * i + 1], Lanes{});
        mixed[i + G / 2] = every_other<U, L, 1>(lines[2 * i], lines[2 * i + 1], Lanes{});
      }
      memcpy(lines, mixed, sizeof mixed);
    }
  }
}

template <typename U>
inline void scalar(const U* in, U* out, int64_t groups, int64_t each) {
  for (int64_t i = 0; i < groups; ++i)
    for (int64_t j = 0; j < each; ++j) out[j * groups + i] = in[i * each + j];
}

// G groups: interleaves them. L lanes at a time, the last of which may be lanes done before.
template <int G, typename U>
inline void interleave_pixels(const U* in, int64_t in_stride, U* out, int64_t pixels, int64_t each) {
  constexpr int L = kVectorBytes / sizeof(U);
  for (int64_t p = 0; p < pixels; ++p, in += in_stride, out += G * each) {
    if (each < L) {
      scalar(in, out, G, each);
      continue;
    }
    for (int64_t block = 0; block < each; block += L) {
      const int64_t j = block < each - L ? block : each - L;
      Vec<U, L> lines[G];
      for (int i = 0; i < G; ++i) lines[i] = read<Vec<U, L>>(in + i * each + j);
      interleave_lines<G, U, L>(lines);
      memcpy(out + j * G, lines, sizeof lines);
    }
  }
}

// Groups of G channels each: the inverse.
template <int G, typename U>
inline void deinterleave_pixels(const U* in, int64_t in_stride, U* out, int64_t pixels, int64_t groups) {
  constexpr int L = kVectorBytes / sizeof(U);
  for (int64_t p = 0; p < pixels; ++p, in += in_stride, out += G * groups) {
    if (groups < L) {
      scalar(in, out, groups, G);
      continue;
    }
    for (int64_t block = 0; block < groups; block += L) {
      const int64_t i = block < groups - L ? block : groups - L;
      Vec<U, L> lines[G];
      memcpy(lines, in + i * G, sizeof lines);
      deinterleave_lines<G, U, L>(lines);
      for (int j = 0; j < G; ++j) memcpy(out + j * groups + i, &lines[j], sizeof lines[j]);
    }
  }
}

}  // namespace

template <typename U>
void shuffle_pixels(const U* in, int64_t in_stride, U* out, int64_t pixels, int64_t groups, int64_t each) {
  // Bytes have no permutation across a vector before AVX-512 VBMI.
  if constexpr (sizeof(U) > 1 && sizeof(U) <= 8) {
    if (groups == 2) return interleave_pixels<2>(in, in_stride, out, pixels, each);
    if (groups == 3) return interleave_pixels<3>(in, in_stride, out, pixels, each);
    if (groups == 4) return interleave_pixels<4>(in, in_stride, out, pixels, each);
    if (groups == 8) return interleave_pixels<8>(in, in_stride, out, pixels, each);
    if (each == 2) return deinterleave_pixels<2>(in, in_stride, out, pixels, groups);
    if (each == 3) return deinterleave_pixels<3>(in, in_stride, out, pixels, groups);
    if (each == 4) return deinterleave_pixels<4>(in, in_stride, out, pixels, groups);
    if (each == 8) return deinterleave_pixels<8>(in, in_stride, out, pixels, groups);
  }
  for (int64_t p = 0; p < pixels; ++p, in += in_stride, out += groups * each) scalar(in, out, groups, each);
}

template void shuffle_pixels<uint8_t>(const uint8_t*, int64_t, uint8_t*, int64_t, int64_t, int64_t);
template void shuffle_pixels<uint16_t>(const uint16_t*, int64_t, uint16_t*, int64_t, int64_t, int64_t);
template void shuffle_pixels<uint32_t>(const uint32_t*, int64_t, uint32_t*, int64_t, int64_t, int64_t);
template void shuffle_pixels<uint64_t>(const uint64_t*, int64_t, uint64_t*, int64_t, int64_t, int64_t);
template void shuffle_pixels<Element16>(const Element16*, int64_t, Element16*, int64_t, int64_t, int64_t);

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
