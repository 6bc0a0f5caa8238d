#pragma once

// RoI align is separable: whether a sample counts, how it is clamped and its bilinear weights factor per axis, so the
// geometry of one axis is all there is to write (Mask R-CNN, He et al. 2017, section 3; edge rules as torchvision's).

#include "host_device.h"

namespace fastcnn {

// One axis of one RoI, in pixels of the feature map. grid <= 0 means no samples, hence zeros.
template <typename T>
struct RoiAxis {
  T start;
  T bin;
  int grid;
};

// Boxes come from a network and may be NaN or infinite. Past this many samples per bin an axis counts as not sampled:
// every real box is far below, and the conversion to int stays defined.
constexpr int kMaxRoiGrid = 1 << 20;

template <typename T>
FASTCNN_HD RoiAxis<T> roi_axis(T low, T high, T scale, bool aligned, int bins, int sampling_ratio) {
  const T offset = aligned ? T(0.5) : T(0);
  RoiAxis<T> axis;
  axis.start = low * scale - offset;
  T size = (high * scale - offset) - axis.start;
  if (!aligned && !(size >= T(1))) size = size != size ? size : T(1);
  axis.bin = size / T(bins);
  if (sampling_ratio > 0) {
    axis.grid = sampling_ratio;
  } else {
    // ceil(size / bins) without <cmath>; a NaN or absurd size fails the comparison.
    const bool sane = axis.bin <= T(kMaxRoiGrid) && axis.bin > T(0);
    const int whole = sane ? int(axis.bin) : 0;
    axis.grid = whole + (sane && T(whole) < axis.bin ? 1 : 0);
  }
  return axis;
}

// The two pixels a sample reads and their weights. inside is false for samples that contribute nothing.
template <typename T>
struct RoiTap {
  int low, high;
  T w_low, w_high;
  bool inside;
};

template <typename T>
FASTCNN_HD RoiTap<T> roi_tap(const RoiAxis<T>& axis, int bin, int sample, int size) {
  T at = axis.start + T(bin) * axis.bin + (T(sample) + T(0.5)) * axis.bin / T(axis.grid);
  RoiTap<T> tap{0, 0, T(0), T(0), at >= T(-1) && at <= T(size)};
  if (!tap.inside) return tap;
  if (at <= T(0)) at = T(0);
  tap.low = int(at);
  if (tap.low >= size - 1) {
    tap.low = tap.high = size - 1;
    at = T(tap.low);
  } else {
    tap.high = tap.low + 1;
  }
  tap.w_high = at - T(tap.low);
  tap.w_low = T(1) - tap.w_high;
  return tap;
}

}  // namespace fastcnn
