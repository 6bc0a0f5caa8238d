#pragma once

// The bins of RoI pool (Fast R-CNN, Girshick 2015, section 2.1, quantised as torchvision does it).

#include <cmath>

#include "../common/host_device.h"

namespace fastcnn {

// Boxes come from a network and may be huge: pixels this far outside any map stand for all beyond.
constexpr int kFarPixel = 1 << 26;

// One axis of one RoI: its first pixel, and pixels per bin.
template <typename A>
struct PoolAxis {
  int start;
  A step;
};

template <typename A>
FASTCNN_HD int far_pixel(A at) {
  return at > A(-kFarPixel) ? (at < A(kFarPixel) ? int(at) : kFarPixel) : -kFarPixel;
}

template <typename A>
FASTCNN_HD PoolAxis<A> pool_axis(A low, A high, A scale, int bins) {
  // Rounds half away from zero.
  const A first = A(std::round(low * scale)), last = A(std::round(high * scale));
  if (first != first || last != last) return {-kFarPixel, A(0)};  // No bin has a pixel.
  const int start = far_pixel(first), size = far_pixel(last) - start + 1;
  return {start, A(size > 1 ? size : 1) / A(bins)};
}

// Pixels [begin, end) of the map. Of successive bins neither ever decreases.
struct PoolBin {
  int begin, end;
};

template <typename A>
FASTCNN_HD PoolBin pool_bin(const PoolAxis<A>& axis, int bin, int size) {
  const int begin = axis.start + int(std::floor(A(bin) * axis.step));
  const int end = axis.start + int(std::ceil(A(bin + 1) * axis.step));
  return {begin > 0 ? (begin < size ? begin : size) : 0, end > 0 ? (end < size ? end : size) : 0};
}

}  // namespace fastcnn
