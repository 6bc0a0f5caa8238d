#include "../roi_align/roi_align_cpu.h"

namespace fastcnn {
namespace {

const int64_t* level_of_rois(const char* op, const Tensor& levels, const Tensor& rois) {
  STD_TORCH_CHECK(levels.dim() == 1 && levels.size(0) == rois.size(0) && levels.scalar_type() == ScalarType::Long &&
                      levels.is_contiguous(),
                  op, ": expected contiguous int64 levels, one for each box");
  return static_cast<const int64_t*>(levels.const_data_ptr());
}

Tensor multi_scale_roi_align_cpu(std::vector<Tensor> features, const Tensor& rois, const Tensor& levels,
                                 std::vector<double> scales, int64_t pooled_height, int64_t pooled_width,
                                 int64_t sampling_ratio, bool aligned) {
  constexpr const char* op = "multi_scale_roi_align";
  STD_TORCH_CHECK(!features.empty() && scales.size() == features.size(), op, ": expected a scale for each feature map");
  const bool channels_last = is_channels_last(features[0]);
  std::vector<RoiLevel> maps(features.size());
  for (size_t i = 0; i < features.size(); ++i) {
    Tensor& x = features[i];
    STD_TORCH_CHECK(x.dim() == 4 && x.size(0) == features[0].size(0) && x.size(1) == features[0].size(1) &&
                        x.scalar_type() == features[0].scalar_type(),
                    op, ": expected feature maps [N, C, H, W] that differ in height and width only");
    x = torch::stable::contiguous(x, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
    maps[i].shape = checked_shape(op, rois, x.size(0), x.size(1), x.size(2), x.size(3), pooled_height, pooled_width);
    maps[i].spatial_scale = scales[i];
  }
  const int64_t images = features[0].size(0), channels = features[0].size(1);
  Tensor out = empty_4d(features[0], rois.size(0), channels, pooled_height, pooled_width, channels_last);
  FASTCNN_DISPATCH_FLOATING(out.scalar_type(), op, {
    using A = acc_t<scalar_t>;
    const auto boxes = checked_rois<A>(op, rois, images);
    const int64_t* level = level_of_rois(op, levels, rois);
    const RoiPlans<A> plans(boxes, maps, level, sampling_ratio, aligned);
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    for (size_t i = 0; i < maps.size(); ++i)
      roi_align_level(static_cast<const scalar_t*>(features[i].const_data_ptr()), images, maps[i], plans, channels_last,
                      to);
    const int64_t size = channels * maps[0].shape.bins();
    for (int64_t k = 0; k < boxes.count; ++k)
      if (level[k] < 0 || level[k] >= int64_t(maps.size())) std::fill(to + k * size, to + (k + 1) * size, scalar_t{});
  });
  return out;
}

std::vector<Tensor> multi_scale_roi_align_backward_cpu(const Tensor& grad, const Tensor& rois, const Tensor& levels,
                                                       std::vector<double> scales, int64_t sampling_ratio, bool aligned,
                                                       std::vector<int64_t> sizes, bool channels_last) {
  constexpr const char* op = "multi_scale_roi_align_backward";
  STD_TORCH_CHECK(sizes.size() == 2 + 2 * scales.size() && grad.dim() == 4 && grad.size(0) == rois.size(0) &&
                      grad.size(1) == sizes[1],
                  op, ": expected a gradient [K, C, height, width] and sizes N, C and H, W of each feature map");
  const Tensor g =
      torch::stable::contiguous(grad, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  std::vector<RoiLevel> maps(scales.size());
  std::vector<Tensor> grads;
  for (size_t i = 0; i < maps.size(); ++i) {
    const int64_t height = sizes[2 + 2 * i], width = sizes[3 + 2 * i];
    maps[i].shape = checked_shape(op, rois, sizes[0], sizes[1], height, width, grad.size(2), grad.size(3));
    maps[i].spatial_scale = scales[i];
  }
  FASTCNN_DISPATCH_FLOATING(grad.scalar_type(), op, {
    using A = acc_t<scalar_t>;
    const RoiPlans<A> plans(checked_rois<A>(op, rois, sizes[0]), maps, level_of_rois(op, levels, rois), sampling_ratio,
                            aligned);
    for (size_t i = 0; i < maps.size(); ++i)
      grads.push_back(roi_align_level_backward<scalar_t>(g, sizes[0], maps[i], plans, channels_last));
  });
  return grads;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("multi_scale_roi_align", TORCH_BOX(&fastcnn::multi_scale_roi_align_cpu));
  m.impl("multi_scale_roi_align_backward", TORCH_BOX(&fastcnn::multi_scale_roi_align_backward_cpu));
}
