#pragma once

// The pixels one bin reads along one axis, numbered so that a warp can work them out one per lane.

#include "../common/roi_geometry.h"

namespace fastcnn {

// Every bin has per_bin slots: both taps of every sample, or, where samples lie closer than pixels, every pixel in
// reach with the weights of all its taps added up, which is fewer.
template <typename T>
struct RoiSlots {
  RoiAxis<T> axis;
  int size;
  int per_bin;
  bool merged;
};

// A pixel of the map, always a valid one. weight < 0: no sample touches it, and it must not be used, not even times 0.
template <typename T>
struct RoiSlot {
  int pixel;
  T weight;
};

template <typename T>
FASTCNN_HD int clamp_index(T at, int end) {
  return at > T(0) ? (at < T(end) ? int(at) : end) : 0;
}

// Of all samples of a bin that touch a pixel.
template <typename T>
FASTCNN_HD T roi_pixel_weight(const RoiAxis<T>& axis, int bin, int pixel, int size) {
  int begin = 0, end = axis.grid > 0 ? axis.grid : 0;
  const T step = axis.bin / T(axis.grid);
  if (step > T(0)) {
    // Samples within one pixel, found with room for rounding; roi_tap decides.
    const T per_pixel = T(1) / step, at = (T(pixel) - (axis.start + T(bin) * axis.bin)) * per_pixel;
    begin = clamp_index(at - per_pixel - T(1.5), end);
    end = clamp_index(at + per_pixel + T(1.5), end);
  }
  T weight = T(0);
  bool touched = false;
#pragma unroll 1
  for (int sample = begin; sample < end; ++sample) {
    const RoiTap<T> tap = roi_tap(axis, bin, sample, size);
    const bool low = tap.inside && tap.low == pixel, high = tap.inside && tap.high == pixel;
    if (low) weight += tap.w_low;
    if (high) weight += tap.w_high;
    touched = touched || low || high;
  }
  return touched ? weight : T(-1);
}

template <typename T>
FASTCNN_HD RoiSlots<T> roi_slots(const RoiAxis<T>& axis, int size) {
  RoiSlots<T> slots{axis, size, axis.grid > 0 ? 2 * axis.grid : 0, false};
  if (axis.grid <= 0 || !(axis.bin > T(0))) return slots;
  const T reach = axis.bin - axis.bin / T(axis.grid);
  int span = reach < T(size) ? int(reach) + 3 : size;
  span = span < size ? span : size;
  if (span < slots.per_bin) {
    slots.per_bin = span;
    slots.merged = true;
  }
  return slots;
}

template <typename T>
FASTCNN_HD RoiSlot<T> roi_slot(const RoiSlots<T>& slots, int bin, int slot) {
  const RoiAxis<T>& axis = slots.axis;
  if (!slots.merged) {
    const RoiTap<T> tap = roi_tap(axis, bin, slot / 2, slots.size);
    if (!tap.inside) return {0, T(-1)};
    return slot % 2 ? RoiSlot<T>{tap.high, tap.w_high} : RoiSlot<T>{tap.low, tap.w_low};
  }
  const T first = axis.start + T(bin) * axis.bin + T(0.5) * axis.bin / T(axis.grid);
  const int pixel = clamp_index(first, slots.size - 1) + slot;
  if (pixel >= slots.size) return {slots.size - 1, T(-1)};
  return {pixel, roi_pixel_weight(axis, bin, pixel, slots.size)};
}

// Pixels [begin, end) hold all that any bin of the axis touches.
struct RoiRange {
  int begin, end;
};

template <typename T>
FASTCNN_HD RoiRange roi_range(const RoiAxis<T>& axis, int bins, int size) {
  const T far = axis.start + T(bins) * axis.bin;
  const T low = axis.start < far ? axis.start : far, high = axis.start < far ? far : axis.start;
  if (axis.grid <= 0 || !(high >= T(-1)) || !(low <= T(size))) return {0, 0};
  const int begin = clamp_index(low - T(1), size - 1), last = clamp_index(high + T(1), size - 1);
  return {begin, last + 1};
}

}  // namespace fastcnn
