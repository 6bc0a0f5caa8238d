#include "../nms/nms_cuda.h"

namespace fastcnn {
namespace {

Tensor batched_nms_cuda(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  return suppress_and_wait({"batched_nms", boxes, scores, &idxs}, iou_threshold);
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CUDA, m) { m.impl("batched_nms", TORCH_BOX(&fastcnn::batched_nms_cuda)); }
