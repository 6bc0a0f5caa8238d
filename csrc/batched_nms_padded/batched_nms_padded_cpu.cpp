#include <algorithm>

#include "../batched_nms/batched_nms.h"
#include "../nms/nms_cpu.h"

namespace fastcnn {
namespace {

// Suppressing the first boxes of the order gives the first of the result, so no more of them are looked at than it
// takes to fill it.
template <typename T>
std::vector<int32_t> first_kept(const Box<T>* boxes, const int64_t* classes, std::span<const int32_t> order,
                                double iou_threshold, int64_t limit) {
  if (limit == 0) return {};
  for (size_t wanted = std::max<int64_t>(4 * limit, 512);; wanted *= 4) {
    auto keep = suppress_by_class(boxes, classes, order.first(std::min(wanted, order.size())), iou_threshold);
    if (int64_t(keep.size()) >= limit || wanted >= order.size()) {
      keep.resize(std::min<size_t>(keep.size(), limit));
      return keep;
    }
  }
}

template <typename T>
void suppress_images(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold,
                     std::optional<double> score_threshold, int64_t limit, int64_t* indices, int64_t* counts) {
  const int64_t images = boxes.size(0), n = boxes.size(1);
  const auto* box = static_cast<const Box<T>*>(boxes.const_data_ptr());
  const auto* classes = static_cast<const int64_t*>(idxs.const_data_ptr());
  const auto suppress = [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) {
      const auto order = order_of(scores, image * n, n, score_threshold);
      const auto keep = first_kept<T>(box + image * n, classes + image * n, order, iou_threshold, std::min(limit, n));
      int64_t* to = indices + image * limit;
      std::fill(std::copy(keep.begin(), keep.end(), to), to + limit, int64_t(-1));
      counts[image] = int64_t(keep.size());
    }
  };
  // A lone image has its classes shared out instead.
  if (images == 1) return suppress(0, 1);
  torch::stable::parallel_for(0, images, 1, suppress);
}

std::tuple<Tensor, Tensor> batched_nms_padded_cpu(const Tensor& boxes, const Tensor& scores, const Tensor& idxs,
                                                  double iou_threshold, int64_t max_output_size,
                                                  std::optional<double> score_threshold) {
  // fastcnn.ops says so better; who calls the op itself must not read past the end.
  STD_TORCH_CHECK(boxes.dim() == 3 && boxes.size(2) == 4 && scores.dim() == 2 && scores.size(0) == boxes.size(0) &&
                      scores.size(1) == boxes.size(1) && idxs.dim() == 2 && idxs.size(0) == boxes.size(0) &&
                      idxs.size(1) == boxes.size(1) && idxs.scalar_type() == ScalarType::Long && max_output_size >= 0,
                  "batched_nms_padded: expected boxes [B, N, 4], scores [B, N], int64 idxs [B, N] and a "
                  "max_output_size of 0 or more");
  const Tensor b = contiguous_as(boxes, comparing_dtype(boxes)), s = contiguous_as(scores, comparing_dtype(scores)),
               c = contiguous_as(idxs, ScalarType::Long);
  Tensor indices = torch::stable::empty({boxes.size(0), max_output_size}, ScalarType::Long);
  Tensor counts = torch::stable::empty({boxes.size(0)}, ScalarType::Long);
  const auto run = b.scalar_type() == ScalarType::Double ? &suppress_images<double> : &suppress_images<float>;
  run(b, s, c, iou_threshold, score_threshold, max_output_size, static_cast<int64_t*>(indices.mutable_data_ptr()),
      static_cast<int64_t*>(counts.mutable_data_ptr()));
  return {indices, counts};
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("batched_nms_padded", TORCH_BOX(&fastcnn::batched_nms_padded_cpu));
}
