#pragma once

// Convolution of planes (NCHW) as they lie, for square kernels of 3, 5 or 7 taps a side and strides of 1 or 2. A block
// is some rows of a vector of columns; every row of the input that it meets is loaded once for each column of the
// kernel, and serves all rows of the block.
//
// With AVX-512, masks stand for the padding at the ends of rows. Elsewhere rows are first copied, widened and with
// zeros beside them, and loads are whole.

#include "../common/activation.h"
#include "unroll.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

#define FASTCNN_INLINE __attribute__((always_inline))  // Else arrays that a body refers to would lie in memory.

#if defined(__AVX512F__)
constexpr bool kMaskedRows = true;
#else
constexpr bool kMaskedRows = false;
#endif
// What planes are read as: as they lie, or as copies. 16-bit types are copied for kernels of many rows, which would
// widen every element as often.
template <typename T, int K>
using InElement = std::conditional_t<kMaskedRows && (sizeof(T) >= 4 || K == 3), T, acc_t<T>>;
// What results are written as.
template <typename T>
using OutElement = std::conditional_t<kMaskedRows, T, acc_t<T>>;

// The lanes j with 0 <= first + j < size.
template <int N>
inline uint32_t lanes_inside(int64_t first, int64_t size) {
  constexpr uint32_t all = (1u << N) - 1;
  if (first >= 0 && first + N <= size) return all;
  const int64_t low = first < 0 ? -first : 0, high = size - first < N ? size - first : N;
  return low < high ? (1u << high) - (1u << low) : 0;
}

template <int N, typename E>
inline Vec<acc_t<E>, N> load_lanes(const E* at, [[maybe_unused]] uint32_t mask) {
#if defined(__AVX512F__)
  using V = Vec<acc_t<E>, N>;
  touch_masked(at, mask);
  if constexpr (kMasked<E, N>)
    return load_masked<N>(at, mask);
  else if constexpr (sizeof(E) == 8)
    return bit_cast<V>(_mm256_maskz_loadu_epi64(__mmask8(mask), at));
  else if constexpr (sizeof(E) == 4)
    return bit_cast<V>(_mm256_maskz_loadu_epi32(__mmask8(mask), at));
  else
    return widen<N>(bit_cast<Vec<uint16_t, N>>(_mm_maskz_loadu_epi16(__mmask8(mask), at)), E{});
#else
  return load<N>(at);
#endif
}

template <int N, typename E>
inline void store_lanes(E* at, Vec<acc_t<E>, N> v, uint32_t mask) {
#if defined(__AVX512F__)
  touch_masked(at, mask);
  if constexpr (kMasked<E, N>)
    store_masked<N>(at, v, mask);
  else if constexpr (sizeof(E) == 8)
    _mm256_mask_storeu_epi64(at, __mmask8(mask), bit_cast<__m256i>(v));
  else if constexpr (sizeof(E) == 4)
    _mm256_mask_storeu_epi32(at, __mmask8(mask), bit_cast<__m256i>(v));
  else
    _mm_mask_storeu_epi16(at, __mmask8(mask), bit_cast<__m128i>(narrow<N>(v, E{})));
#else
  if (mask == (1u << N) - 1) return store<N>(at, v);
  if (mask == 0) return;
  E lanes[N];
  store<N>(lanes, v);
  const int low = __builtin_ctz(mask), count = __builtin_popcount(mask);
  memcpy(at + low, lanes + low, sizeof(E) * count);
#endif
}

// Every other lane of three vectors in a row, from lane `kFirst` on.
template <int kFirst, typename A, int N, int... I>
inline Vec<A, N> every_other(Vec<A, N> low, Vec<A, N> high, Vec<A, N> top, std::integer_sequence<int, I...>) {
  const Vec<A, N> near = __builtin_shufflevector(low, high, (2 * I + kFirst % 2)...);
  if constexpr (kFirst < 2) return near;
  constexpr int q = kFirst / 2;
  return __builtin_shufflevector(near, top, (I + q < N ? I + q : N + 2 * (I + q - N) + kFirst % 2)...);
}

// What the K columns of a kernel read of a row for N outputs S columns apart. Element 0 of the row's vectors is at
// `at`, column `first` of `width`.
template <int K, int S, int N>
struct Taps {
  static constexpr int kLoads = S == 1 ? K : 3;
  static constexpr int kApart = S == 1 ? 1 : N;
  uint32_t mask[kLoads];

  Taps(int64_t first, int64_t width) {
    unroll<kLoads>([&](auto i) FASTCNN_INLINE { mask[i] = lanes_inside<N>(first + i * kApart, width); });
  }

  // use(column of the kernel, its vector)
  template <typename E, typename Use>
  __attribute__((always_inline)) void read(const E* at, const Use& use) const {
    using A = acc_t<E>;
    if constexpr (S == 1) {
      unroll<K>([&](auto k) FASTCNN_INLINE { use(k, load_lanes<N>(at + k, mask[k])); });
    } else if constexpr (K < N + 3) {
      using Lanes = std::make_integer_sequence<int, N>;
      const auto low = load_lanes<N>(at, mask[0]), high = load_lanes<N>(at + N, mask[1]);
      const auto top = load_lanes<N>(at + 2 * N, mask[2]);
      unroll<K>([&](auto k) FASTCNN_INLINE { use(k, every_other<k, A, N>(low, high, top, Lanes{})); });
    } else {
      using Lanes = std::make_integer_sequence<int, N>;
      unroll<K>([&](auto k) FASTCNN_INLINE {
        const auto low = load<N>(at + k), high = load<N>(at + k + N);
        use(k, every_other<0, A, N>(low, high, high, Lanes{}));
      });
    }
  }
};

// Element (0, 0) of a plane, of which those inside height and width may be read: with masks as they lie, else in a copy
// with zeros beside them.
template <typename E>
struct Rows {
  const E* at;
  int64_t height, width, pitch;
};

// One copy for all that call it, which else are most of the code.
template <typename A, int N>
__attribute__((noinline)) void activate_all(Activation activation, Vec<A, N>* at, int64_t n) {
  for (int64_t i = 0; i < n; ++i) at[i] = activate<A, N>(activation, at[i]);
}

// Keeps a vector in a register, where the compiler would load it for every use.
template <typename V>
inline void keep([[maybe_unused]] V& v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#endif
}

// Planes side by side that are convolved at once, each with its weights and its bias, if there are any.
template <typename E, typename O>
struct Planes {
  Rows<E> in;  // Of the first.
  O* out;
  int64_t count, in_step, out_step, out_pitch;
  const acc_t<E>*weight, *bias;
};

// Columns [begin, end) of `rows` <= R rows of outputs, N at a time. The kernel's first tap meets (y, x) at the first,
// which is output row `row`.
template <int K, int S, int N, int R, typename E, typename O>
void convolve_rows(const Planes<E, O>& planes, int64_t y, int64_t x, int64_t row, int64_t rows, int64_t begin,
                   int64_t end, Activation activation) {
  using A = acc_t<E>;
  constexpr int kWeightRows = K == 3 || kMaskedRows ? 3 : 1;  // As many as there are registers for.
  const Rows<E> in = planes.in;
  for (int64_t c = begin; c < end; c += N) {
    if (!kMaskedRows && end - c < N && end >= N) c = end - N;  // What is computed twice comes out the same.
    const int64_t first = x + c * S;
    const Taps<K, S, N> taps(first, in.width);
    const uint32_t mask = lanes_inside<N>(c, end);
    const E* from = in.at + y * in.pitch + first;
    const A* weight = planes.weight;
    O* __restrict out = planes.out + row * planes.out_pitch + c;
    for (int64_t plane = 0; plane < planes.count; ++plane) {
      Vec<A, N> sum[R] = {};
      if (planes.bias != nullptr) unroll<R>([&](auto r) FASTCNN_INLINE { sum[r] = planes.bias[plane] - Vec<A, N>{}; });
      unroll<(K + kWeightRows - 1) / kWeightRows>([&](auto pass) FASTCNN_INLINE {
        constexpr int kFirst = pass * kWeightRows, kRows = K - kFirst < kWeightRows ? K - kFirst : kWeightRows;
        Vec<A, N> w[kRows * K];
        unroll<kRows * K>([&](auto t) FASTCNN_INLINE {
          Vec<A, N> v = weight[kFirst * K + t] - Vec<A, N>{};
          keep(v);
          w[t] = v;
        });
        unroll<(R - 1) * S + kRows>([&](auto i) FASTCNN_INLINE {
          if (uint64_t(y + kFirst + i) >= uint64_t(in.height)) return;
          taps.read(from + (kFirst + i) * in.pitch, [&](auto k, Vec<A, N> v) FASTCNN_INLINE {
            unroll<R>([&](auto r) FASTCNN_INLINE {
              constexpr int tap_row = i - r * S;
              if constexpr (tap_row >= 0 && tap_row < kRows) sum[r] += v * w[tap_row * K + k];
            });
          });
        });
      });
      // What the next rows of outputs will be the first to read, or the same rows of a plane some planes on.
      const E* later = from + (planes.count > 1 ? 3 * planes.in_step : ((R - 1) * S + K) * in.pitch);
      unroll<R * S>([&](auto i) FASTCNN_INLINE { __builtin_prefetch(later + i * in.pitch + K / 2); });
      if (activation != Activation::none) {
        Vec<A, N> results[R];  // Whose address is known elsewhere, so that the sums stay in registers.
        unroll<R>([&](auto r) FASTCNN_INLINE { results[r] = sum[r]; });
        activate_all<A, N>(activation, results, R);
        unroll<R>([&](auto r) FASTCNN_INLINE { sum[r] = results[r]; });
      }
      unroll<R>([&](auto r) FASTCNN_INLINE {
        if (r < rows) store_lanes<N>(out + r * planes.out_pitch, sum[r], mask);
      });
      from += planes.in_step, out += planes.out_step, weight += K * K;
    }
  }
}

// The gradient of the input of a convolution of stride 2, from cells of two by two pixels of the padded map: rows
// [q, q + R) and columns [begin, end) of them, N at a time. Of the map, whose row 0 is at `out`, rows [first, last) are
// written.
template <int K, int N, int R, typename E, typename O>
__attribute__((noinline)) void spread_rows(const Rows<E>& grad, int64_t q, int64_t begin, int64_t end,
                                           const acc_t<E>* weight, O* __restrict out, int64_t top, int64_t left,
                                           int64_t first, int64_t last, int64_t width) {
  using A = acc_t<E>;
  constexpr int M = (K + 1) / 2;
  using Lanes = std::make_integer_sequence<int, N>;
  Vec<A, N> w[K * K];
  unroll<K * K>([&](auto t) FASTCNN_INLINE {
    Vec<A, N> v = weight[t] - Vec<A, N>{};
    if (K == 3) keep(v);
    w[t] = v;
  });
  for (int64_t c = begin; c < end; c += N) {
    uint32_t mask[M];
    unroll<M>([&](auto n) FASTCNN_INLINE { mask[n] = lanes_inside<N>(c - n, grad.width); });
    Vec<A, N> sum[R * 4] = {};
    unroll<R + M - 1>([&](auto i) FASTCNN_INLINE {
      const int64_t row = q - (M - 1) + i;
      if (uint64_t(row) >= uint64_t(grad.height)) return;
      unroll<M>([&](auto n) FASTCNN_INLINE {
        const Vec<A, N> g = load_lanes<N>(grad.at + row * grad.pitch + c - n, mask[n]);
        unroll<R * 4>([&](auto j) FASTCNN_INLINE {
          constexpr int m = j / 4 + M - 1 - i, ky = j / 2 % 2 + 2 * m, kx = j % 2 + 2 * n;
          if constexpr (m >= 0 && ky < K && kx < K) sum[j] += g * w[ky * K + kx];
        });
      });
    });
    const int64_t x = 2 * c - left;
    const uint32_t low = lanes_inside<N>(x, width), high = lanes_inside<N>(x + N, width);
    unroll<R * 2>([&](auto j) FASTCNN_INLINE {
      const int64_t y = 2 * (q + j / 2) + j % 2 - top;
      if (y < first || y >= last) return;
      O* to = out + y * width + x;
      store_lanes<N>(to, interleave<A, N, 0>(sum[2 * j], sum[2 * j + 1], Lanes{}), low);
      store_lanes<N>(to + N, interleave<A, N, 1>(sum[2 * j], sum[2 * j + 1], Lanes{}), high);
    });
  }
}

// Adds to sums, lane by lane, the products of columns [begin, end) of the gradient's rows [first, last), whose number
// is a multiple of R, with what kRows rows of the kernel from ky on read there.
template <int K, int S, int N, int R, int kRows, typename E>
__attribute__((noinline)) void correlate_rows(const Rows<E>& grad, const Rows<E>& in, int64_t top, int64_t left,
                                              int64_t ky, int64_t first, int64_t last, int64_t begin, int64_t end,
                                              acc_t<E>* sums) {
  using A = acc_t<E>;
  Vec<A, N> sum[kRows * K] = {};
  for (int64_t row = first; row < last; row += R) {
    const int64_t y = row * S - top + ky;
    for (int64_t c = begin; c < end; c += N) {
      const uint32_t mask = lanes_inside<N>(c, end);
      const int64_t x = c * S - left;
      const Taps<K, S, N> taps(x, in.width);
      Vec<A, N> g[R];
      unroll<R>([&](auto r) FASTCNN_INLINE { g[r] = load_lanes<N>(grad.at + (row + r) * grad.pitch + c, mask); });
      unroll<(R - 1) * S + kRows>([&](auto i) FASTCNN_INLINE {
        if (uint64_t(y + i) >= uint64_t(in.height)) return;
        taps.read(in.at + (y + i) * in.pitch + x, [&](auto k, Vec<A, N> v) FASTCNN_INLINE {
          unroll<R>([&](auto r) FASTCNN_INLINE {
            constexpr int tap_row = i - r * S;
            if constexpr (tap_row >= 0 && tap_row < kRows) sum[tap_row * K + k] += v * g[r];
          });
        });
      });
    }
  }
  unroll<kRows * K>([&](auto t) FASTCNN_INLINE {
    A* at = sums + (ky * K + t) * kLanes<A>;
    store<N>(at, load<N>(at) + sum[t]);
  });
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
