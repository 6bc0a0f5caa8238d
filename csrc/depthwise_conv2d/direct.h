#pragma once

// Convolution of channels_last images as they lie, for kernels of a few columns: every pixel is read once for each row
// of the kernel, into a register that serves all columns of the kernel.

#include "activation.h"
#include "unroll.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

constexpr int kDirectColumns = 7;  // Outputs in registers at once: the maps of most networks are a multiple of it wide.
constexpr int kDirectVectors = 2;  // Vectors of channels at once.

// One row of outputs: which rows and columns of the input it reads, for how many columns.
template <typename T>
struct DirectRow {
  const T* in;             // Column 0 of the first row of pixels that the kernel meets on the map.
  int64_t rows;            // Rows of the kernel that are on the map,
  int64_t row_step;        // elements from one to the next,
  int64_t width, step;     // pixels of such a row, and elements from one to the next.
  int64_t first;           // The column that the kernel's first meets at output 0; may be off the map.
  const acc_t<T>* weight;  // Of the first of these rows: row, column, channel.
  T* out;
  int64_t columns, out_step;
};

template <int kColumns, int kStride, int V, bool kSome, typename T>
inline void direct_block(const DirectRow<T>& row, int64_t begin, int64_t columns, int64_t n,
                         const Vec<acc_t<T>, kLanes<acc_t<T>>>* bias, Activation activation) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>, B = kDirectColumns;
  Vec<A, lanes> sum[B * V];
  unroll<B * V>([&](auto i) { sum[i] = bias[i % V]; });
  const int64_t first = row.first + begin * kStride;
  const T* in = row.in + first * row.step;
  const A* weight = row.weight;
  for (int64_t r = 0; r < row.rows; ++r, in += row.row_step, weight += kColumns * V * lanes) {
    Vec<A, lanes> w[kColumns * V];
    unroll<kColumns * V>([&](auto i) { w[i] = load<lanes>(weight + i * lanes); });
    unroll<(B - 1) * kStride + kColumns>([&](auto i) {
      if (uint64_t(first + i) >= uint64_t(row.width)) return;
      unroll<V>([&](auto v) {
        const T* at = in + i * row.step + v * lanes;
        const Vec<A, lanes> pixel = kSome ? load_some<lanes>(at, n) : load<lanes>(at);
        unroll<kColumns>([&](auto k) {
          constexpr int apart = i - k, b = apart / kStride;
          if constexpr (apart >= 0 && apart % kStride == 0 && b < B) sum[b * V + v] += pixel * w[k * V + v];
        });
      });
    });
  }
  // The pixels that the next row of outputs will be the first to read.
  unroll<B * kStride>(
      [&](auto i) { unroll<V>([&](auto v) { __builtin_prefetch(in + (kColumns / 2 + i) * row.step + v * lanes); }); });
  T* out = row.out + begin * row.out_step;
  unroll<B>([&](auto b) {
    if (b >= columns) return;
    unroll<V>([&](auto v) {
      const Vec<A, lanes> result =
          activation == Activation::none ? sum[b * V + v] : activate<A, lanes>(activation, sum[b * V + v]);
      T* at = out + b * row.out_step + v * lanes;
      if constexpr (kSome)
        store_some<lanes>(at, result, n);
      else
        store<lanes>(at, result);
    });
  });
}

// V whole vectors of channels; kSome: n channels of one.
template <int kColumns, int kStride, int V, bool kSome, typename T>
void direct_row(const DirectRow<T>& row, int64_t n, const T* bias, Activation activation) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  Vec<A, lanes> b[V] = {};
  if (bias != nullptr) unroll<V>([&](auto v) { b[v] = load_some<lanes>(bias + v * lanes, kSome ? n : lanes); });
  for (int64_t begin = 0; begin < row.columns; begin += kDirectColumns) {
    // The last block starts early rather than being short: what it computes twice comes out the same.
    if (begin > 0 && row.columns - begin < kDirectColumns) begin = row.columns - kDirectColumns;
    direct_block<kColumns, kStride, V, kSome>(row, begin, row.columns - begin, n, b, activation);
  }
}

// Channels taken together of the n that are left: some vectors, or some lanes of one.
template <typename T>
inline int64_t direct_channels(int64_t n) {
  constexpr int64_t lanes = kLanes<acc_t<T>>;
  return n >= kDirectVectors * lanes ? kDirectVectors * lanes : n < lanes ? n : lanes;
}

template <typename T>
using DirectFunction = void (*)(const DirectRow<T>&, int64_t, const T*, Activation);

template <int kColumns, int kStride, typename T>
DirectFunction<T> direct_function(bool whole) {
  return whole ? &direct_row<kColumns, kStride, kDirectVectors, false, T> : &direct_row<kColumns, kStride, 1, true, T>;
}

// For direct_channels() = n channels.
template <typename T>
DirectFunction<T> direct_function(int64_t columns, int64_t stride, int64_t n) {
  const bool whole = n > kLanes<acc_t<T>>;
  switch (10 * stride + columns) {
    case 11:
      return direct_function<1, 1, T>(whole);
    case 12:
      return direct_function<2, 1, T>(whole);
    case 13:
      return direct_function<3, 1, T>(whole);
    case 14:
      return direct_function<4, 1, T>(whole);
    case 15:
      return direct_function<5, 1, T>(whole);
    case 17:
      return direct_function<7, 1, T>(whole);
    case 23:
      return direct_function<3, 2, T>(whole);
    case 25:
      return direct_function<5, 2, T>(whole);
    case 27:
      return direct_function<7, 2, T>(whole);
  }
  return nullptr;
}

// sums[k] += sum over columns of grad * in, for the columns k of one row of the kernel: `row.out` is not used.
template <int kColumns, int kStride, int V, bool kSome, typename T>
void direct_correlate_row(const DirectRow<T>& row, const T* grad, int64_t n, acc_t<T>* sums) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>, B = kDirectColumns;
  const auto read_some = [n](const T* at) { return kSome ? load_some<lanes>(at, n) : load<lanes>(at); };
  Vec<A, lanes> sum[kColumns * V];
  unroll<kColumns * V>([&](auto i) { sum[i] = load<lanes>(sums + i * lanes); });
  for (int64_t begin = 0; begin < row.columns; begin += B) {
    const int64_t first = row.first + begin * kStride;
    const T* in = row.in + first * row.step;
    const T* from = grad + begin * row.out_step;
    Vec<A, lanes> g[B * V];
    unroll<B>([&](auto b) {
      unroll<V>([&](auto v) {
        g[b * V + v] = begin + b < row.columns ? read_some(from + b * row.out_step + v * lanes) : Vec<A, lanes>{};
      });
    });
    unroll<(B - 1) * kStride + kColumns>([&](auto i) {
      if (uint64_t(first + i) >= uint64_t(row.width)) return;
      unroll<V>([&](auto v) {
        const Vec<A, lanes> pixel = read_some(in + i * row.step + v * lanes);
        unroll<kColumns>([&](auto k) {
          constexpr int apart = i - k, b = apart / kStride;
          if constexpr (apart >= 0 && apart % kStride == 0 && b < B) sum[k * V + v] += pixel * g[b * V + v];
        });
      });
    });
  }
  unroll<kColumns * V>([&](auto i) { store<lanes>(sums + i * lanes, sum[i]); });
}

template <typename T>
using CorrelateFunction = void (*)(const DirectRow<T>&, const T*, int64_t, acc_t<T>*);

template <int kColumns, int kStride, typename T>
CorrelateFunction<T> correlate_function(bool whole) {
  return whole ? &direct_correlate_row<kColumns, kStride, kDirectVectors, false, T>
               : &direct_correlate_row<kColumns, kStride, 1, true, T>;
}

template <typename T>
CorrelateFunction<T> correlate_function(int64_t columns, int64_t stride, int64_t n) {
  const bool whole = n > kLanes<acc_t<T>>;
  switch (10 * stride + columns) {
    case 13:
      return correlate_function<3, 1, T>(whole);
    case 15:
      return correlate_function<5, 1, T>(whole);
    case 17:
      return correlate_function<7, 1, T>(whole);
    case 23:
      return correlate_function<3, 2, T>(whole);
    case 25:
      return correlate_function<5, 2, T>(whole);
    case 27:
      return correlate_function<7, 2, T>(whole);
  }
  return nullptr;
}

// Weights of n channels, tap after tap in the order given, from [channels, taps]: vectors of a tap next to each other.
template <typename T>
void pack_direct_weights(const T* weight, int64_t n, int64_t all_taps, const int64_t* order, int64_t taps,
                         acc_t<T>* to) {
  constexpr int64_t lanes = kLanes<acc_t<T>>;
  const int64_t width = (n + lanes - 1) / lanes * lanes;
  for (int64_t t = 0; t < taps; ++t) {
    const int64_t tap = order == nullptr ? t : order[t];
    for (int64_t i = 0; i < width; ++i)
      to[t * width + i] = i < n ? load<1>(weight + i * all_taps + tap)[0] : acc_t<T>(0);
  }
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
