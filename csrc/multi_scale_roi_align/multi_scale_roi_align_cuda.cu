#include "../roi_align/roi_align_cuda.h"

namespace fastcnn {
namespace {

// Of maps and RoIs on one device.
const int64_t* level_of_rois(const char* op, const Tensor& levels, const Tensor& rois, size_t maps, size_t scales) {
  STD_TORCH_CHECK(maps > 0 && scales == maps, op, ": expected a scale for each feature map");
  STD_TORCH_CHECK(maps <= kMaxRoiLevels, op, ": expected at most ", kMaxRoiLevels, " feature maps on a GPU, got ",
                  maps);
  STD_TORCH_CHECK(levels.dim() == 1 && levels.size(0) == rois.size(0) && levels.scalar_type() == ScalarType::Long &&
                      levels.is_contiguous() && levels.get_device_index() == rois.get_device_index(),
                  op, ": expected contiguous int64 levels, one for each box and on their device");
  return static_cast<const int64_t*>(levels.const_data_ptr());
}

Tensor multi_scale_roi_align_cuda(std::vector<Tensor> features, const Tensor& rois, const Tensor& levels,
                                  std::vector<double> scales, int64_t pooled_height, int64_t pooled_width,
                                  int64_t sampling_ratio, bool aligned) {
  constexpr const char* op = "multi_scale_roi_align";
  const int64_t* level_of = level_of_rois(op, levels, rois, features.size(), scales.size());
  for (const Tensor& x : features)
    STD_TORCH_CHECK(x.dim() == 4 && x.size(0) == features[0].size(0) && x.size(1) == features[0].size(1) &&
                        x.scalar_type() == features[0].scalar_type() &&
                        x.get_device_index() == features[0].get_device_index(),
                    op, ": expected feature maps [N, C, H, W] on one device that differ in height and width only");
  return roi_align_levels<kMaxRoiLevels>({op, rois, level_of, scales, sampling_ratio, aligned}, std::move(features),
                                         pooled_height, pooled_width);
}

std::vector<Tensor> multi_scale_roi_align_backward_cuda(const Tensor& grad, const Tensor& rois, const Tensor& levels,
                                                        std::vector<double> scales, int64_t sampling_ratio,
                                                        bool aligned, std::vector<int64_t> sizes, bool channels_last) {
  constexpr const char* op = "multi_scale_roi_align_backward";
  STD_TORCH_CHECK(sizes.size() == 2 + 2 * scales.size(), op,
                  ": expected sizes N, C and H, W of each feature map, and a scale for each");
  const int64_t* level_of = level_of_rois(op, levels, rois, scales.size(), scales.size());
  return roi_align_levels_backward<kMaxRoiLevels>({op, rois, level_of, scales, sampling_ratio, aligned}, grad, sizes[0],
                                                  sizes[1], {sizes.begin() + 2, sizes.end()}, channels_last);
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CUDA, m) {
  m.impl("multi_scale_roi_align", TORCH_BOX(&fastcnn::multi_scale_roi_align_cuda));
  m.impl("multi_scale_roi_align_backward", TORCH_BOX(&fastcnn::multi_scale_roi_align_backward_cuda));
}
