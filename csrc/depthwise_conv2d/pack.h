#pragma once

// Copies between tensors and the padded, phase-split scratch that depthwise_conv2d_kernel.h describes.

#include "../common/simd.h"
#include "depthwise_conv2d_kernel.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Both write whole vectors, the last of which may run on into what is written later, or into slack.
template <typename A>
inline void zero(A* at, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes<A>) store<kLanes<A>>(at + i, Vec<A, kLanes<A>>{});
}
// Reads nothing past `end`.
template <typename T>
inline void copy_in(const T* from, const T* end, int64_t n, acc_t<T>* to) {
  constexpr int lanes = kLanes<acc_t<T>>;
  if (from + n + lanes <= end) {
    for (int64_t i = 0; i < n; i += lanes) store<lanes>(to + i, load<lanes>(from + i));
  } else {
    for (int64_t i = 0; i < n; i += lanes) store<lanes>(to + i, load_some<lanes>(from + i, n - i));
  }
}

// Writes no further than `end`, up to which what follows the n elements is written later.
template <typename T>
inline void store_until(T* at, T* end, Vec<acc_t<T>, kLanes<acc_t<T>>> v, int64_t n) {
  constexpr int lanes = kLanes<acc_t<T>>;
  if (at + lanes <= end)
    store<lanes>(at, v);
  else
    store_some<lanes>(at, v, n);
}

// Lanes 0, 2, 4, ... (Odd = 0) or 1, 3, 5, ... of a and b, one after the other.
template <typename A, int N, int Odd, int... I>
inline Vec<A, N> every_other(Vec<A, N> a, Vec<A, N> b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (2 * I + Odd)...);
}

// One row of a plane into its cells of every phase of the columns, padding included. Null is a row of padding.
template <typename T>
void pack_plane_row(const T* row, const T* end, const DepthwisePlan& p, acc_t<T>* to) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  using Lanes = std::make_integer_sequence<int, lanes>;
  if (row == nullptr) {
    for (int64_t phase = 0; phase < p.stride_w; ++phase) zero(to + phase * p.phase_cells, p.pitch);
    return;
  }
  if (p.stride_w == 1) {
    zero(to, p.pad_left);
    copy_in(row, end, p.width, to + p.pad_left);
    return zero(to + p.pad_left + p.width, p.pitch - p.pad_left - p.width);
  }
  int64_t begin = 0;
  const int64_t last = p.pad_left + p.width;
  if (p.stride_w == 2) {
    const int64_t head = (p.pad_left + 1) / 2;
    int64_t c = head;
    for (; 2 * c < last && row + 2 * (c + lanes) - p.pad_left <= end; c += lanes) {
      const auto low = load<lanes>(row + 2 * c - p.pad_left), high = load<lanes>(row + 2 * c - p.pad_left + lanes);
      store<lanes>(to + c, every_other<A, lanes, 0>(low, high, Lanes{}));
      store<lanes>(to + p.phase_cells + c, every_other<A, lanes, 1>(low, high, Lanes{}));
    }
    begin = c;
    for (int64_t x = 0; x < 2 * head; ++x)
      to[x % 2 * p.phase_cells + x / 2] = x < p.pad_left ? A(0) : load<1>(row + x - p.pad_left)[0];
  }
  for (int64_t phase = 0; phase < p.stride_w; ++phase) {
    A* cells = to + phase * p.phase_cells;
    const int64_t filled = last > phase ? (last - phase + p.stride_w - 1) / p.stride_w : 0;
    for (int64_t c = begin; c < filled; ++c) {
      const int64_t x = c * p.stride_w + phase - p.pad_left;
      cells[c] = x < 0 ? A(0) : load<1>(row + x)[0];
    }
    zero(cells + filled, p.pitch - filled);
  }
}

// Its inverse for gradients: what the phases hold of a row. Writes past the row, but not past `end`.
template <typename T>
void unpack_plane_row(const acc_t<T>* from, const DepthwisePlan& p, T* row, T* end) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  using Lanes = std::make_integer_sequence<int, lanes>;
  if (p.stride_w == 1) {
    for (int64_t x = 0; x < p.width; x += lanes)
      store_until(row + x, end, load<lanes>(from + p.pad_left + x), p.width - x);
    return;
  }
  int64_t x = 0;
  const auto one = [&](int64_t x) {
    const int64_t at = x + p.pad_left;
    const Vec<A, 1> v = {from[at % p.stride_w * p.phase_cells + at / p.stride_w]};
    store<1>(row + x, v);
  };
  if (p.stride_w == 2) {
    if (p.pad_left % 2 == 1 && p.width > 0) one(x++);
    for (; x < p.width && row + x + 2 * lanes <= end; x += 2 * lanes) {
      const A* at = from + (x + p.pad_left) / 2;
      const auto even = load<lanes>(at), odd = load<lanes>(at + p.phase_cells);
      store<lanes>(row + x, interleave<A, lanes, 0>(even, odd, Lanes{}));
      store<lanes>(row + x + lanes, interleave<A, lanes, 1>(even, odd, Lanes{}));
    }
  }
  for (; x < p.width; ++x) one(x);
}

// Vectors of n channels of a pixel, from or to vectors `slab` elements apart. `step`: between channels.
template <typename T>
inline void pack_pixel(const T* pixel, int64_t n, int64_t step, acc_t<T>* to, int64_t slab) {
  constexpr int lanes = kLanes<acc_t<T>>;
  if (step == 1) {
    for (int64_t c = 0; c < n; c += lanes, to += slab) store<lanes>(to, load_some<lanes>(pixel + c, n - c));
    return;
  }
  for (int64_t c = 0; c < n; c += lanes, to += slab) {
    T gathered[lanes] = {};
    for (int64_t i = 0; i < lanes && c + i < n; ++i) gathered[i] = pixel[(c + i) * step];
    store<lanes>(to, load<lanes>(gathered));
  }
}
template <typename T>
inline void unpack_lanes(Vec<acc_t<T>, kLanes<acc_t<T>>> v, T* to, int64_t n, int64_t step) {
  constexpr int lanes = kLanes<acc_t<T>>;
  if (step == 1) return store_some<lanes>(to, v, n);
  T values[lanes];
  store<lanes>(values, v);
  for (int64_t i = 0; i < lanes && i < n; ++i) to[i * step] = values[i];
}

// The same of a row of pixels of a channels_last image. Null is a row of padding.
template <typename T>
void pack_pixel_row(const T* row, int64_t n, const DepthwisePlan& p, acc_t<T>* to, int64_t slab) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t slabs = (n + lanes - 1) / lanes, whole = n / lanes;
  const auto padding = [&](A* cell, int64_t cells) {
    for (int64_t s = 0; s < slabs; ++s) zero(cell + s * slab, cells * lanes);
  };
  for (int64_t phase = 0; phase < p.stride_w; ++phase, to += p.phase_cells * lanes) {
    if (row == nullptr) {
      padding(to, p.pitch);
      continue;
    }
    // Cells [begin, end) are pixels of the map.
    const int64_t last = p.pad_left + p.width;
    const int64_t begin = p.pad_left > phase ? (p.pad_left - phase + p.stride_w - 1) / p.stride_w : 0;
    const int64_t end = last > phase ? (last - phase + p.stride_w - 1) / p.stride_w : 0;
    const int64_t step = p.stride_w * p.channels;
    const T* pixel = row + (begin * p.stride_w + phase - p.pad_left) * p.channels;
    padding(to, begin);
    A* cell = to + begin * lanes;
    if (n == whole * lanes) {
      for (int64_t c = begin; c < end; ++c, cell += lanes, pixel += step)
        for (int64_t s = 0; s < whole; ++s) store<lanes>(cell + s * slab, load<lanes>(pixel + s * lanes));
    } else {
      for (int64_t c = begin; c < end; ++c, cell += lanes, pixel += step) pack_pixel(pixel, n, 1, cell, slab);
    }
    if (end > begin)
      padding(to + end * lanes, p.pitch - end);
    else
      padding(to + begin * lanes, p.pitch - begin);
  }
}

// Rows [first, first + count) of cells of the input, in every phase. x: of the plane, or of the image and group, of n
// channels; end: of the tensor.
template <typename T>
void pack_input(const T* x, const T* end, int64_t n, const DepthwisePlan& p, int64_t first, int64_t count, acc_t<T>* to,
                int64_t slab) {
  constexpr int lanes = kLanes<acc_t<T>>;
  for (int64_t phase = 0; phase < p.stride_h; ++phase) {
    for (int64_t r = 0; r < count; ++r) {
      const int64_t y = (first + r) * p.stride_h + phase - p.pad_top;
      const bool inside = y >= 0 && y < p.height;
      const int64_t cell = phase * p.stride_w * p.phase_cells + r * p.pitch;
      if (p.channels_last)
        pack_pixel_row(inside ? x + y * p.width * p.channels : nullptr, n, p, to + cell * lanes, slab);
      else
        pack_plane_row(inside ? x + y * p.width : nullptr, end, p, to + cell);
    }
  }
}

// Weights of one vector of channels, tap after tap in the plan's order, or of one channel, from [channels, taps].
template <typename T>
void pack_weights(const T* weight, int64_t n, int64_t step, const DepthwisePlan& p, acc_t<T>* to) {
  constexpr int lanes = kLanes<acc_t<T>>;
  if (!p.channels_last) {
    for (int64_t t = 0; t < p.taps; ++t) to[t] = load<1>(weight + p.order[t])[0];
    return;
  }
  for (int64_t t = 0; t < p.taps; ++t) {
    T gathered[lanes] = {};
    for (int64_t i = 0; i < lanes && i < n; ++i) gathered[i] = weight[i * step * p.taps + p.order[t]];
    store<lanes>(to + t * lanes, load<lanes>(gathered));
  }
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
