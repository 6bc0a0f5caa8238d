#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "../common/tensor.h"
#include "nms_kernel.h"

namespace fastcnn {
namespace {

// Ascending keys order scores from high to low, NaN before all; the zeros tie.
template <typename T, typename Key>
std::vector<std::pair<Key, int32_t>> sort_keys(const T* scores, int64_t n) {
  constexpr Key sign = Key(1) << (8 * sizeof(Key) - 1);
  std::vector<std::pair<Key, int32_t>> keys(n);
  for (int64_t i = 0; i < n; ++i) {
    const T score = scores[i] == T(0) ? T(0) : scores[i];
    const Key bits = std::bit_cast<Key>(score);
    const Key descending = bits & sign ? bits : ~(bits | sign);
    keys[i] = {score != score ? Key(0) : descending, int32_t(i)};
  }
  return keys;
}

// Stable order by descending score. A least-significant-digit radix sort: linear, where comparing costs n log n.
template <typename T>
std::vector<int32_t> order_by_score(const T* scores, int64_t n) {
  using Key = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  constexpr int kDigitBits = 11;
  auto keys = sort_keys<T, Key>(scores, n);
  if (n < 512) {
    std::stable_sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  } else {
    std::vector<std::pair<Key, int32_t>> other(n);
    for (int shift = 0; shift < int(8 * sizeof(Key)); shift += kDigitBits) {
      const auto digit = [&](Key key) { return size_t(key >> shift) & ((1 << kDigitBits) - 1); };
      int64_t place[1 << kDigitBits] = {};
      for (const auto& key : keys) ++place[digit(key.first)];
      if (place[digit(keys[0].first)] == n) continue;
      int64_t total = 0;
      for (int64_t& p : place) total += std::exchange(p, total);
      for (const auto& key : keys) other[place[digit(key.first)]++] = key;
      keys.swap(other);
    }
  }
  std::vector<int32_t> order(n);
  for (int64_t i = 0; i < n; ++i) order[i] = keys[i].second;
  return order;
}

std::vector<int32_t> order_of(const Tensor& scores) {
  const bool wide = scores.scalar_type() == ScalarType::Double;
  const Tensor s = contiguous_as(scores, wide ? ScalarType::Double : ScalarType::Float);
  return wide ? order_by_score(static_cast<const double*>(s.const_data_ptr()), s.numel())
              : order_by_score(static_cast<const float*>(s.const_data_ptr()), s.numel());
}

template <typename T>
Tensor nms_as(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  constexpr auto dtype = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;
  const Tensor dense_boxes = contiguous_as(boxes, dtype);
  const auto* all = static_cast<const Box<T>*>(dense_boxes.const_data_ptr());
  const int64_t n = boxes.size(0);
  const std::vector<int32_t> order = order_of(scores);
  std::vector<Box<T>> sorted(n);
  for (int64_t i = 0; i < n; ++i) sorted[i] = all[order[i]];
  // iou > threshold in double is iou > the largest T not above the threshold.
  T threshold = T(iou_threshold) + T(0);  // No -0, whose inverse is the other infinity.
  if (double(threshold) > iou_threshold) threshold = std::nextafter(threshold, -std::numeric_limits<T>::infinity());
  std::vector<int64_t> keep(n);
  const auto kernel = FASTCNN_SELECT(nms<T>);
  const int64_t kept = kernel(sorted.data(), n, threshold, keep.data());
  Tensor out = torch::stable::empty({kept}, ScalarType::Long);
  auto* to = static_cast<int64_t*>(out.mutable_data_ptr());
  for (int64_t i = 0; i < kept; ++i) to[i] = order[keep[i]];
  return out;
}

Tensor nms_cpu(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  // fastcnn.ops says so better; who calls the op itself must not read past the end.
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && scores.dim() == 1 && scores.size(0) == boxes.size(0),
                  "nms: expected boxes [N, 4] and scores [N]");
  return boxes.scalar_type() == ScalarType::Double ? nms_as<double>(boxes, scores, iou_threshold)
                                                   : nms_as<float>(boxes, scores, iou_threshold);
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) { m.impl("nms", TORCH_BOX(&fastcnn::nms_cpu)); }
