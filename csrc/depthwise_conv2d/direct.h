#pragma once

// Convolution of channels_last images as they lie, for kernels of a few columns. A block of outputs next to each other
// goes through all channels before the next block: memory is met about in the order in which it lies, which prefetchers
// follow, and every pixel is loaded once for each row of the kernel, into a register that serves all of its columns.

#include "../common/activation.h"
#include "unroll.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

constexpr int kDirectColumns = 7;  // Outputs in registers at once: the maps of most networks are a multiple of it wide.
constexpr int kDirectFew = 4;      // The same where as few, or fewer, are left of a row.
constexpr int kDirectAhead = 2;    // Blocks from the one being computed to the one that is fetched.

// One row of outputs: which rows and columns of the input it reads, for how many columns and channels.
template <typename T>
struct DirectRow {
  const T* in;             // Column 0 of the first row of pixels that the kernel meets on the map.
  int64_t rows;            // Rows of the kernel that are on the map,
  int64_t row_step;        // elements from one to the next,
  int64_t width, step;     // pixels of such a row, and elements from one to the next.
  int64_t first;           // The column that the kernel's first meets at output 0; may be off the map.
  const acc_t<T>* weight;  // Of the first of these rows: taps next to each other, one vector of channels after another,
  int64_t weight_step;     // elements from one such vector's to the next.
  T* out;
  int64_t columns, out_step;
  int64_t channels;
  bool fetches;  // Whether to fetch ahead, which costs more than it saves where the caches hold everything.
  bool streams;  // Whether outputs bypass the caches; if so, vectors of them are whole lines.
};

// The first `count` lanes, or all.
template <bool kSome, typename T>
struct Lanes {
  static constexpr int lanes = kLanes<acc_t<T>>;
  int64_t count;

  Vec<acc_t<T>, lanes> load_from(const T* at) const {
    if constexpr (kSome) return load_some<lanes>(at, count);
    return load<lanes>(at);
  }
  void store_to(T* at, Vec<acc_t<T>, lanes> v) const {
    if constexpr (kSome) return store_some<lanes>(at, v, count);
    store<lanes>(at, v);
  }
};

// The vectors of channels of a pixel: body(first channel, number of the vector). The last starts early rather than
// being short, unless it is the only one: what is computed twice comes out the same.
template <int lanes, typename Body>
__attribute__((always_inline)) inline void for_each_vector(int64_t channels, const Body& body) {
  for (int64_t c = 0, v = 0; c < channels; c += lanes, ++v)
    body(channels - c < lanes && channels > lanes ? channels - lanes : c, v);
}

// Blocks of B outputs from column `begin` up to `end`. kEdge: some of the pixels may be off the map, some outputs not
// wanted, and there may be less than a vector of channels.
template <int kColumns, int kStride, int B, bool kEdge, typename T>
void direct_blocks(const DirectRow<T>& row, int64_t begin, int64_t end, const T* bias, Activation activation) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const Lanes<kEdge, T> some{row.channels};
  for (; begin < end; begin += B) {
    const int64_t first = row.first + begin * kStride, columns = row.columns - begin;
    const T* in_block = row.in + first * row.step;
    T* out_block = row.out + begin * row.out_step;
    for_each_vector<lanes>(row.channels, [&](int64_t c, int64_t v) __attribute__((always_inline)) {
      const Vec<A, lanes> start = bias == nullptr ? Vec<A, lanes>{} : some.load_from(bias + c);
      Vec<A, lanes> sum[B];
      unroll<B>([&](auto b) { sum[b] = start; });
      const T* in = in_block + c;
      const A* weight = row.weight + v * row.weight_step;
      for (int64_t r = 0; r < row.rows; ++r, in += row.row_step, weight += kColumns * lanes) {
        Vec<A, lanes> w[kColumns];
        unroll<kColumns>([&](auto k) { w[k] = load<lanes>(weight + k * lanes); });
        unroll<(B - 1) * kStride + kColumns>([&](auto i) {
          if (kEdge && uint64_t(first + i) >= uint64_t(row.width)) return;
          const Vec<A, lanes> pixel = some.load_from(in + i * row.step);
          unroll<kColumns>([&](auto k) {
            constexpr int apart = i - k, b = apart / kStride;
            if constexpr (apart >= 0 && apart % kStride == 0 && b < B) sum[b] += pixel * w[k];
          });
        });
      }
      // Of the last row, since the others have been read for the row of outputs above.
      if (row.fetches) {
        const T* ahead = in - row.row_step + kDirectAhead * B * kStride * row.step;
        unroll<B * kStride>([&](auto i) { __builtin_prefetch(ahead + i * row.step); });
      }
      T* out = out_block + c;
      unroll<B>([&](auto b) {
        if (kEdge && b >= columns) return;
        const Vec<A, lanes> result = activation == Activation::none ? sum[b] : activate<A, lanes>(activation, sum[b]);
        if (row.streams)
          stream<lanes>(out + b * row.out_step, result);
        else
          some.store_to(out + b * row.out_step, result);
      });
    });
  }
}

// Whether some of a block's pixels are off the map, or there is less than a vector of channels.
template <int kColumns, int kStride, typename T>
inline bool is_edge(const DirectRow<T>& row, int64_t begin) {
  const int64_t first = row.first + begin * kStride;
  return first < 0 || first + (kDirectColumns - 1) * kStride + kColumns > row.width || row.channels < kLanes<acc_t<T>>;
}

template <int kColumns, int kStride, typename T>
void direct_row(const DirectRow<T>& row, const T* bias, Activation activation) {
  constexpr int B = kDirectColumns, few = kDirectFew;
  for (int64_t begin = 0, end; begin < row.columns; begin = end) {
    const int64_t left = row.columns - begin;
    end = begin + B;
    // The last block starts early rather than being short.
    if (left <= few) {
      begin = row.columns > few ? row.columns - few : 0;
      direct_blocks<kColumns, kStride, few, true>(row, begin, begin + 1, bias, activation);
    } else if (left < B || is_edge<kColumns, kStride>(row, begin)) {
      if (left < B && row.columns > B) begin = row.columns - B;
      direct_blocks<kColumns, kStride, B, true>(row, begin, begin + 1, bias, activation);
    } else {
      while (end + B <= row.columns && !is_edge<kColumns, kStride>(row, end)) end += B;
      direct_blocks<kColumns, kStride, B, false>(row, begin, end, bias, activation);
    }
  }
}

template <typename T>
using DirectFunction = void (*)(const DirectRow<T>&, const T*, Activation);

template <typename T>
DirectFunction<T> direct_function(int64_t columns, int64_t stride) {
  switch (10 * stride + columns) {
    case 11:
      return &direct_row<1, 1, T>;
    case 12:
      return &direct_row<2, 1, T>;
    case 13:
      return &direct_row<3, 1, T>;
    case 14:
      return &direct_row<4, 1, T>;
    case 15:
      return &direct_row<5, 1, T>;
    case 17:
      return &direct_row<7, 1, T>;
    case 23:
      return &direct_row<3, 2, T>;
    case 25:
      return &direct_row<5, 2, T>;
    case 27:
      return &direct_row<7, 2, T>;
  }
  return nullptr;
}

// Adds what B gradients of a row give to the sums of the taps, which lie as weights do, and of the biases, which is one
// more vector for each vector of channels, or null. row.out and row.weight are not used.
template <int kColumns, int kStride, int B, bool kEdge, typename T>
void correlate_block(const DirectRow<T>& row, const T* grad, int64_t begin, acc_t<T>* taps, acc_t<T>* bias) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t first = row.first + begin * kStride;
  const T* in_block = row.in + first * row.step;
  grad += begin * row.out_step;
  const Lanes<kEdge, T> some{row.channels};
  for_each_vector<lanes>(row.channels, [&](int64_t c, int64_t v) __attribute__((always_inline)) {
    Vec<A, lanes> g[B];
    unroll<B>([&](auto b) { g[b] = some.load_from(grad + b * row.out_step + c); });
    const int64_t at = v * row.weight_step;
    if (bias != nullptr) {
      Vec<A, lanes> sum = load<lanes>(bias + at);
      unroll<B>([&](auto b) { sum += g[b]; });
      store<lanes>(bias + at, sum);
    }
    const T* in = in_block + c;
    A* sums = taps + at;
    for (int64_t r = 0; r < row.rows; ++r, in += row.row_step, sums += kColumns * lanes) {
      Vec<A, lanes> sum[kColumns];
      unroll<kColumns>([&](auto k) { sum[k] = load<lanes>(sums + k * lanes); });
      unroll<(B - 1) * kStride + kColumns>([&](auto i) {
        if (kEdge && uint64_t(first + i) >= uint64_t(row.width)) return;
        const Vec<A, lanes> pixel = some.load_from(in + i * row.step);
        unroll<kColumns>([&](auto k) {
          constexpr int apart = i - k, b = apart / kStride;
          if constexpr (apart >= 0 && apart % kStride == 0 && b < B) sum[k] += pixel * g[b];
        });
      });
      unroll<kColumns>([&](auto k) { store<lanes>(sums + k * lanes, sum[k]); });
    }
  });
}

template <int kColumns, int kStride, typename T>
void correlate_row(const DirectRow<T>& row, const T* grad, acc_t<T>* taps, acc_t<T>* bias) {
  constexpr int B = kDirectColumns;
  int64_t begin = 0;
  for (; begin + B <= row.columns; begin += B) {
    if (is_edge<kColumns, kStride>(row, begin))
      correlate_block<kColumns, kStride, B, true>(row, grad, begin, taps, bias);
    else
      correlate_block<kColumns, kStride, B, false>(row, grad, begin, taps, bias);
  }
  // One by one, since 0 for a gradient that is not there would make NaN of an infinite pixel.
  for (; begin < row.columns; ++begin) correlate_block<kColumns, kStride, 1, true>(row, grad, begin, taps, bias);
}

template <typename T>
using CorrelateFunction = void (*)(const DirectRow<T>&, const T*, acc_t<T>*, acc_t<T>*);

template <typename T>
CorrelateFunction<T> correlate_function(int64_t columns, int64_t stride) {
  switch (10 * stride + columns) {
    case 13:
      return &correlate_row<3, 1, T>;
    case 15:
      return &correlate_row<5, 1, T>;
    case 17:
      return &correlate_row<7, 1, T>;
    case 23:
      return &correlate_row<3, 2, T>;
    case 25:
      return &correlate_row<5, 2, T>;
    case 27:
      return &correlate_row<7, 2, T>;
  }
  return nullptr;
}

// Rows [first, last) of an image, those that exist, with pixels `step` elements apart from then on: a power of two of
// bytes between pixels would put them all into few sets of the caches. Returns where row 0 would be.
template <typename T>
const T* stage_rows(const T* image, int64_t first, int64_t last, int64_t height, int64_t width, int64_t channels,
                    int64_t step, T* to) {
  if (step == channels) return image;
  first = first < 0 ? 0 : first;
  last = last < height ? last : height;
  for (int64_t i = first * width; i < last * width; ++i)
    memcpy(to + (i - first * width) * step, image + i * channels, channels * sizeof(T));
  return to - first * width * step;
}

// Weights of n channels, [channels, taps], as DirectRow wants them; tap t becomes place[t], or stays t.
template <typename T>
void pack_direct_weights(const T* weight, int64_t n, int64_t taps, const int64_t* place, acc_t<T>* to) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  for_each_vector<lanes>(n, [&](int64_t c, int64_t v) {
    for (int64_t t = 0; t < taps; t += lanes) {
      Vec<A, lanes> rows[lanes] = {};
      for (int64_t i = 0; i < lanes && c + i < n; ++i)
        rows[i] = load_some<lanes>(weight + (c + i) * taps + t, taps - t);
      transpose<A, lanes>(rows);
      for (int64_t i = 0; i < lanes && t + i < taps; ++i)
        store<lanes>(to + (v * taps + (place == nullptr ? t + i : place[t + i])) * lanes, rows[i]);
    }
  });
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
