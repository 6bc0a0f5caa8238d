#pragma once

// Planes N, C, H, W side by side: between them and pixels whose channels lie together, which vectors then run over.

#include "simd.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// out[(y * cols + x) * stride + p] = planes[p * plane + y * row + x] for p in [0, n_planes), which `stride` has room
// for.
template <typename T, typename Out>
inline void interleave_planes(const T* planes, int64_t plane, int64_t row, int64_t n_planes, int64_t rows, int64_t cols,
                              int stride, Out* out) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  for (int64_t y = 0; y < rows; ++y, planes += row, out += cols * stride) {
    for (int64_t at = 0; at < cols; at += lanes) {
      const int count = cols - at < lanes ? int(cols - at) : lanes;
      for (int64_t first = 0; first < n_planes; first += lanes) {
        const int group = n_planes - first < lanes ? int(n_planes - first) : lanes;
        Vec<A, lanes> tile[lanes] = {};
        for (int p = 0; p < group; ++p) {
          const T* from = planes + (first + p) * plane + at;
          tile[p] = load_some<lanes>(from, count);
        }
        transpose<A, lanes>(tile);
        for (int i = 0; i < count; ++i) store_some<lanes>(out + (at + i) * stride + first, tile[i], group);
      }
    }
  }
}

// out[plane][bin] = pooled[bin][plane], pooled having rows of `stride` elements and room for a vector of rows more.
template <typename T>
inline void store_bins(const acc_t<T>* pooled, int stride, int n_planes, int32_t bins, T* out) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  for (int plane = 0; plane < n_planes; plane += lanes) {
    for (int32_t bin = 0; bin < bins; bin += lanes) {
      Vec<A, lanes> tile[lanes];
      for (int i = 0; i < lanes; ++i) tile[i] = load<lanes>(pooled + (bin + i) * stride + plane);
      transpose<A, lanes>(tile);
      for (int p = 0; p < lanes && plane + p < n_planes; ++p) {
        store_some<lanes>(out + int64_t(plane + p) * bins + bin, tile[p], bins - bin);
      }
    }
  }
}

// to[0, n) = from[0, n), where either is of the type accumulated in.
template <int lanes, typename From, typename To>
inline void convert(const From* from, To* to, int64_t n) {
  for (int64_t i = 0; i < n; i += lanes) store_some<lanes>(to + i, load_some<lanes>(from + i, n - i), n - i);
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
