#include "../nms/nms_cuda.h"

namespace fastcnn {
namespace {

std::tuple<Tensor, Tensor> batched_nms_padded_cuda(const Tensor& boxes, const Tensor& scores, const Tensor& idxs,
                                                   double iou_threshold, int64_t max_output_size,
                                                   std::optional<double> score_threshold) {
  const BoxesToSuppress input{"batched_nms_padded", boxes, scores, &idxs};
  input.check(3);
  STD_TORCH_CHECK(max_output_size >= 0, "batched_nms_padded: expected a max_output_size of 0 or more");
  const DeviceGuard guard(boxes.get_device_index());
  const Kept kept = suppress_on_device(input, iou_threshold, score_threshold, max_output_size);
  return {kept.indices, kept.counts};
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CUDA, m) {
  m.impl("batched_nms_padded", TORCH_BOX(&fastcnn::batched_nms_padded_cuda));
}
