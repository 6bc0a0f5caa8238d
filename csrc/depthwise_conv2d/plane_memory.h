#pragma once

// Where planes.h finds the rows of planes that it reads, and where it leaves its results.

#include "depthwise_conv2d_kernel.h"
#include "planes.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Where the rows of planes that are worked on lie: in the tensor, or in a copy of them.
template <typename T, int K>
struct Source {
  using A = acc_t<T>;
  using E = InElement<T, K>;
  static constexpr bool kInPlace = std::is_same_v<T, E> && kMaskedRows;
  static constexpr int lanes = kLanes<A>;
  int64_t height, width, left, pitch;  // left: zeros before a row of the copy.
  A* copy;

  Source(int64_t height, int64_t width, int64_t left, int64_t pitch, A* copy)
      : height(height), width(width), left(left), pitch(pitch), copy(copy) {}

  // Past the copies of n rows, or of as many pixels as are copied at once.
  A* end(int64_t n) const { return copy + (kInPlace ? 0 : depthwise_copy(n * pitch)); }

  // Of `count` planes rows [begin, end), as far as they are on them, ready to be read; of several planes, all rows.
  Rows<E> rows(const T* plane, int64_t begin, int64_t end, int64_t count) const {
    begin = begin < 0 || count > 1 ? 0 : begin;
    end = end < 0 ? 0 : end > height || count > 1 ? height : end;
    if constexpr (kInPlace) {
      return {plane, height, width, width};
    } else if constexpr (kMaskedRows) {
      const T* from = plane + begin * width;
      for (int64_t i = 0, n = count * (end - begin) * width; i < n; i += lanes)
        store<lanes>(copy + i, load_some<lanes>(from + i, n - i));
      return {copy - begin * width, height, width, width};
    } else {
      A* to = copy;
      for (int64_t y = begin; y < end; ++y, to += pitch) {
        for (int64_t i = 0; i < left; i += lanes) store<lanes>(to + i, Vec<A, lanes>{});
        const T* from = plane + y * width;
        int64_t x = 0;
        for (; x + lanes <= width; x += lanes) store<lanes>(to + left + x, load<lanes>(from + x));
        for (; left + x < pitch; x += lanes)
          store<lanes>(to + left + x, x < width ? load_some<lanes>(from + x, width - x) : Vec<A, lanes>{});
      }
      return {copy + left - begin * pitch, end, width, pitch};
    }
  }
};

// Where rows [first, last) of a plane are computed: in the tensor, or in scratch if its elements are not those
// computed.
template <typename T>
struct Target {
  using A = acc_t<T>;
  static constexpr bool kDirect = std::is_same_v<T, OutElement<T>>;
  T* plane;
  A* scratch;
  int64_t width;

  // Row 0 of the plane.
  OutElement<T>* begin(int64_t first) const {
    if constexpr (kDirect)
      return plane;
    else
      return scratch - first * width;
  }
  void end(int64_t first, int64_t last) const {
    constexpr int lanes = kLanes<A>;
    if constexpr (!kDirect)
      for (int64_t i = 0, n = (last - first) * width; i < n; i += lanes)
        store_some<lanes>(plane + first * width + i, load<lanes>(scratch + i), n - i);
  }
};

// The columns that are left go into half a vector where they fit: body(vector's lanes, begin, end).
template <typename A, typename Body>
inline void for_columns(int64_t begin, int64_t end, const Body& body) {
  constexpr int lanes = kLanes<A>;
  if constexpr (kMaskedRows) {
    const int64_t rest = (end - begin) % lanes;
    const int64_t whole = rest > lanes / 2 ? end : end - rest;
    if (begin < whole) body(std::integral_constant<int, lanes>{}, begin, whole);
    if (whole < end) body(std::integral_constant<int, lanes / 2>{}, whole, end);
  } else {
    body(std::integral_constant<int, lanes>{}, begin, end);
  }
}

// Small planes are convolved several at once; their weights and biases:
constexpr int64_t kManyPlanes = 16;

template <int K, typename T>
struct Filters {
  acc_t<T> weight[kManyPlanes * K * K], bias[kManyPlanes];

  static int64_t count(const DepthwisePlan& p, int64_t left) {
    const int64_t in_pixels = p.height * p.width, out_pixels = p.out_height * p.out_width;
    const int64_t fitting = kMaskedRows ? kDepthwisePixels / (in_pixels > out_pixels ? in_pixels : out_pixels) : 1;
    const int64_t most = fitting < 1 ? 1 : fitting < kManyPlanes ? fitting : kManyPlanes;
    return left < most ? left : most;
  }
  void load_one(int64_t i, const T* weights, bool flipped) {
    constexpr int taps = K * K, lanes = kLanes<acc_t<T>>;
    acc_t<T> widened[taps + lanes];
    for (int t = 0; t < taps; t += lanes) store<lanes>(widened + t, load_some<lanes>(weights + t, taps - t));
    for (int t = 0; t < taps; ++t) weight[i * taps + t] = widened[flipped ? taps - 1 - t : t];
  }
};

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
