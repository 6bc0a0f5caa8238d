#include <algorithm>
#include <atomic>
#include <numeric>
#include <unordered_map>

#include "../nms/nms_cpu.h"
#include "../nms/nms_kernel.h"
#include "batched_nms.h"

namespace fastcnn {
namespace {

constexpr int64_t kBoxesPerThread = 1024;  // For fewer a second thread is not worth waking.

// Numbers the classes of the boxes from 0. Returns how many there are at most: some may have no boxes.
int64_t number_classes(const int64_t* classes, std::span<const int32_t> order, std::vector<int32_t>& number) {
  number.resize(order.size());
  int64_t low = classes[order[0]], high = low;
  for (int32_t i : order) low = std::min(low, classes[i]), high = std::max(high, classes[i]);
  const uint64_t range = uint64_t(high) - uint64_t(low);
  if (range <= 2 * order.size()) {
    for (size_t i = 0; i < order.size(); ++i) number[i] = int32_t(classes[order[i]] - low);
    return int64_t(range) + 1;
  }
  std::unordered_map<int64_t, int32_t> numbers;
  for (size_t i = 0; i < order.size(); ++i)
    number[i] = numbers.try_emplace(classes[order[i]], int32_t(numbers.size())).first->second;
  return int64_t(numbers.size());
}

}  // namespace

template <typename T>
std::vector<int32_t> suppress_by_class(const Box<T>* boxes, const int64_t* classes, std::span<const int32_t> order,
                                       double iou_threshold) {
  const int64_t n = int64_t(order.size());
  if (n == 0) return {};
  std::vector<int32_t> number;
  const int64_t count = number_classes(classes, order, number);
  std::vector<int64_t> begin(count + 1), next(count);
  for (int32_t c : number) ++begin[c + 1];
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  std::copy_n(begin.begin(), count, next.begin());
  // Class by class, each by descending score.
  std::vector<Box<T>> sorted(n);
  std::vector<int32_t> rank(n);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = next[number[i]]++;
    sorted[at] = boxes[order[i]];
    rank[at] = int32_t(i);
  }
  std::vector<char> kept(n);
  const T threshold = threshold_for<T>(iou_threshold);
  const auto kernel = FASTCNN_SELECT(nms<T>);
  const int64_t threads = std::clamp<int64_t>(n / kBoxesPerThread, 1, torch::stable::get_num_threads());
  std::atomic<int64_t> turn = 0;
  // Classes differ in size, so each thread takes the next when it is done; what they keep does not depend on it.
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    std::vector<int64_t> keep(n);
    for (int64_t c; (c = turn++) < count;) {
      const int64_t size = begin[c + 1] - begin[c];
      const int64_t found = size > 0 ? kernel(sorted.data() + begin[c], size, threshold, keep.data()) : 0;
      for (int64_t i = 0; i < found; ++i) kept[rank[begin[c] + keep[i]]] = 1;
    }
  });
  std::vector<int32_t> result;
  for (int64_t i = 0; i < n; ++i)
    if (kept[i]) result.push_back(order[i]);
  return result;
}

template std::vector<int32_t> suppress_by_class(const Box<float>*, const int64_t*, std::span<const int32_t>, double);
template std::vector<int32_t> suppress_by_class(const Box<double>*, const int64_t*, std::span<const int32_t>, double);

namespace {

template <typename T>
std::vector<int32_t> batched_nms_as(const Tensor& boxes, const Tensor& scores, const Tensor& idxs,
                                    double iou_threshold) {
  const Tensor b = contiguous_as(boxes, comparing_dtype(boxes)), s = contiguous_as(scores, comparing_dtype(scores)),
               c = contiguous_as(idxs, ScalarType::Long);
  return suppress_by_class(static_cast<const Box<T>*>(b.const_data_ptr()),
                           static_cast<const int64_t*>(c.const_data_ptr()), order_of(s, 0, s.numel()), iou_threshold);
}

Tensor batched_nms_cpu(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  // fastcnn.ops says so better; who calls the op itself must not read past the end.
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && scores.dim() == 1 && scores.size(0) == boxes.size(0) &&
                      idxs.dim() == 1 && idxs.size(0) == boxes.size(0) && idxs.scalar_type() == ScalarType::Long,
                  "batched_nms: expected boxes [N, 4], scores [N] and int64 idxs [N]");
  const auto keep = boxes.scalar_type() == ScalarType::Double
                        ? batched_nms_as<double>(boxes, scores, idxs, iou_threshold)
                        : batched_nms_as<float>(boxes, scores, idxs, iou_threshold);
  Tensor out = torch::stable::empty({int64_t(keep.size())}, ScalarType::Long);
  std::copy(keep.begin(), keep.end(), static_cast<int64_t*>(out.mutable_data_ptr()));
  return out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) { m.impl("batched_nms", TORCH_BOX(&fastcnn::batched_nms_cpu)); }
