#include "roi_align_cuda.h"

namespace fastcnn {
namespace {

Tensor roi_align_cuda(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                      int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  constexpr const char* op = "roi_align";
  STD_TORCH_CHECK(input.dim() == 4, op, ": expected input [N, C, H, W]");
  return roi_align_levels<1>({op, rois, nullptr, {spatial_scale}, sampling_ratio, aligned}, {input}, pooled_height,
                             pooled_width);
}

Tensor roi_align_backward_cuda(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t sampling_ratio,
                               bool aligned, std::vector<int64_t> input_size, bool channels_last) {
  constexpr const char* op = "roi_align_backward";
  STD_TORCH_CHECK(input_size.size() == 4, op, ": expected sizes N, C, H, W of the input");
  return roi_align_levels_backward<1>({op, rois, nullptr, {spatial_scale}, sampling_ratio, aligned}, grad,
                                      input_size[0], input_size[1], {input_size[2], input_size[3]}, channels_last)[0];
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&fastcnn::roi_align_cuda));
  m.impl("roi_align_backward", TORCH_BOX(&fastcnn::roi_align_backward_cuda));
}
