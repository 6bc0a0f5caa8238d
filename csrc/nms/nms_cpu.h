#pragma once

// What the glue of all suppressing ops shares.

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "../common/tensor.h"

namespace fastcnn {

// What boxes are compared in and scores are sorted in.
inline ScalarType comparing_dtype(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// The n scores from `begin` on, counted from there, from high to low, or only those above a number. Equal ones keep
// their order; NaN comes first, but is above nothing. `scores` is contiguous and of its comparing_dtype.
std::vector<int32_t> order_of(const Tensor& scores, int64_t begin, int64_t n,
                              std::optional<double> above = std::nullopt);

// For T boxes, whose iou > threshold in double is iou > the largest T not above the threshold.
template <typename T>
T threshold_for(double iou_threshold) {
  const T threshold = T(iou_threshold) + T(0);  // No -0, whose inverse is the other infinity.
  return double(threshold) > iou_threshold ? std::nextafter(threshold, -std::numeric_limits<T>::infinity()) : threshold;
}

}  // namespace fastcnn
