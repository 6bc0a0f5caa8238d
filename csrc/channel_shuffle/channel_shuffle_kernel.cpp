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

// G groups: interleaves them, L lanes at a time, the last of which may be lanes done before.
template <int G, int L, typename U>
inline void interleave_groups(const U* in, U* out, int64_t each) {
  for (int64_t block = 0; block < each; block += L) {
    const int64_t j = block < each - L ? block : each - L;
    Vec<U, L> lines[G];
    for (int i = 0; i < G; ++i) lines[i] = read<Vec<U, L>>(in + i * each + j);
    interleave_lines<G, U, L>(lines);
    memcpy(out + j * G, lines, sizeof lines);
  }
}

// Groups of G channels each: the inverse.
template <int G, int L, typename U>
inline void deinterleave_groups(const U* in, U* out, int64_t groups) {
  for (int64_t block = 0; block < groups; block += L) {
    const int64_t i = block < groups - L ? block : groups - L;
    Vec<U, L> lines[G];
    memcpy(lines, in + i * G, sizeof lines);
    deinterleave_lines<G, U, L>(lines);
    for (int j = 0; j < G; ++j) memcpy(out + j * groups + i, &lines[j], sizeof lines[j]);
  }
}

// Many groups of many channels: a transpose, block by block.
template <int L, typename U>
inline void transpose_groups(const U* in, U* out, int64_t groups, int64_t each) {
  for (int64_t block_i = 0; block_i < groups; block_i += L) {
    const int64_t i = block_i < groups - L ? block_i : groups - L;
    for (int64_t block_j = 0; block_j < each; block_j += L) {
      const int64_t j = block_j < each - L ? block_j : each - L;
      Vec<U, L> lines[L];
      for (int k = 0; k < L; ++k) lines[k] = read<Vec<U, L>>(in + (i + k) * each + j);
      transpose<U, L>(lines);
      for (int k = 0; k < L; ++k) memcpy(out + (j + k) * groups + i, &lines[k], sizeof lines[k]);
    }
  }
}

template <typename U, typename Pixel>
inline void for_each_pixel(const U* in, int64_t in_stride, U* out, int64_t pixels, int64_t channels,
                           const Pixel& pixel) {
  for (int64_t p = 0; p < pixels; ++p) pixel(in + p * in_stride, out + p * channels);
}

}  // namespace

template <typename U>
void shuffle_pixels(const U* in, int64_t in_stride, U* out, int64_t pixels, int64_t groups, int64_t each) {
  const auto run = [&](const auto& pixel) { for_each_pixel(in, in_stride, out, pixels, groups * each, pixel); };
  // Bytes have no permutation across a vector before AVX-512 VBMI.
  if constexpr (sizeof(U) > 1 && sizeof(U) <= 8) {
    constexpr int L = kVectorBytes / sizeof(U), kBlock = L < 16 ? L : 16;
    const auto few_groups = [&]<int G>(std::integral_constant<int, G>) {
      if (each >= L) return run([=](const U* from, U* to) { interleave_groups<G, L>(from, to, each); });
      run([=](const U* from, U* to) { interleave_groups<G, L / 2>(from, to, each); });
    };
    const auto small_groups = [&]<int G>(std::integral_constant<int, G>) {
      if (groups >= L) return run([=](const U* from, U* to) { deinterleave_groups<G, L>(from, to, groups); });
      run([=](const U* from, U* to) { deinterleave_groups<G, L / 2>(from, to, groups); });
    };
    if (each >= L / 2) {
      if (groups == 2) return few_groups(std::integral_constant<int, 2>{});
      if (groups == 3) return few_groups(std::integral_constant<int, 3>{});
      if (groups == 4) return few_groups(std::integral_constant<int, 4>{});
      if (groups == 8) return few_groups(std::integral_constant<int, 8>{});
    }
    if (groups >= L / 2) {
      if (each == 2) return small_groups(std::integral_constant<int, 2>{});
      if (each == 3) return small_groups(std::integral_constant<int, 3>{});
      if (each == 4) return small_groups(std::integral_constant<int, 4>{});
      if (each == 8) return small_groups(std::integral_constant<int, 8>{});
    }
    if (groups >= kBlock && each >= kBlock)
      return run([=](const U* from, U* to) { transpose_groups<kBlock>(from, to, groups, each); });
  }
  run([=](const U* from, U* to) {
    for (int64_t i = 0; i < groups; ++i)
      for (int64_t j = 0; j < each; ++j) to[j * groups + i] = from[i * each + j];
  });
}

template void shuffle_pixels<uint8_t>(const uint8_t*, int64_t, uint8_t*, int64_t, int64_t, int64_t);
template void shuffle_pixels<uint16_t>(const uint16_t*, int64_t, uint16_t*, int64_t, int64_t, int64_t);
template void shuffle_pixels<uint32_t>(const uint32_t*, int64_t, uint32_t*, int64_t, int64_t, int64_t);
template void shuffle_pixels<uint64_t>(const uint64_t*, int64_t, uint64_t*, int64_t, int64_t, int64_t);
template void shuffle_pixels<Element16>(const Element16*, int64_t, Element16*, int64_t, int64_t, int64_t);

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
