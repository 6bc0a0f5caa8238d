#include "nms_cpu.h"

#include <algorithm>

#include "../common/score_key.h"
#include "nms_kernel.h"

namespace fastcnn {
namespace {

template <typename T>
std::vector<std::pair<ScoreKey<T>, int32_t>> sort_keys(const T* scores, int64_t n, std::optional<double> above) {
  std::vector<std::pair<ScoreKey<T>, int32_t>> keys;
  keys.reserve(n);
  for (int64_t i = 0; i < n; ++i)
    if (!above || scores[i] > T(*above)) keys.emplace_back(score_key(scores[i]), int32_t(i));
  return keys;
}

// Stable. A least-significant-digit radix sort: linear, where comparing costs n log n.
template <typename T>
std::vector<int32_t> order_by_score(const T* scores, int64_t n, std::optional<double> above) {
  using Key = ScoreKey<T>;
  constexpr int kDigitBits = 11;
  auto keys = sort_keys(scores, n, above);
  if (keys.size() < 512) {
    std::stable_sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  } else {
    std::vector<std::pair<Key, int32_t>> other(keys.size());
    for (int shift = 0; shift < int(8 * sizeof(Key)); shift += kDigitBits) {
      const auto digit = [&](Key key) { return size_t(key >> shift) & ((1 << kDigitBits) - 1); };
      int64_t place[1 << kDigitBits] = {};
      for (const auto& key : keys) ++place[digit(key.first)];
      if (place[digit(keys[0].first)] == int64_t(keys.size())) continue;
      int64_t total = 0;
      for (int64_t& p : place) total += std::exchange(p, total);
      for (const auto& key : keys) other[place[digit(key.first)]++] = key;
      keys.swap(other);
    }
  }
  std::vector<int32_t> order;
  order.reserve(keys.size());
  for (const auto& [key, i] : keys) order.push_back(i);
  return order;
}

}  // namespace

std::vector<int32_t> order_of(const Tensor& scores, int64_t begin, int64_t n, std::optional<double> above) {
  return scores.scalar_type() == ScalarType::Double
             ? order_by_score(static_cast<const double*>(scores.const_data_ptr()) + begin, n, above)
             : order_by_score(static_cast<const float*>(scores.const_data_ptr()) + begin, n, above);
}

namespace {

template <typename T>
Tensor nms_as(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  const Tensor dense_boxes = contiguous_as(boxes, comparing_dtype(boxes));
  const auto* all = static_cast<const Box<T>*>(dense_boxes.const_data_ptr());
  const int64_t n = boxes.size(0);
  const std::vector<int32_t> order = order_of(contiguous_as(scores, comparing_dtype(scores)), 0, n);
  std::vector<Box<T>> sorted(n);
  for (int64_t i = 0; i < n; ++i) sorted[i] = all[order[i]];
  std::vector<int64_t> keep(n);
  const auto kernel = FASTCNN_SELECT(nms<T>);
  const int64_t kept = kernel(sorted.data(), n, threshold_for<T>(iou_threshold), keep.data());
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
