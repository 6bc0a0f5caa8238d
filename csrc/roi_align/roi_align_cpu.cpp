#include "roi_align_cpu.h"

namespace fastcnn {
namespace {

// Planes are read in runs of columns, of which a wide RoI uses a few each; side by side, a cache line holds nothing but
// what is used, at the price of moving every pixel once. Counted in cache lines, moving costs about a third of a line a
// pixel.
template <typename A>
bool interleaving_pays(const RoiPlans<A>& plans, const RoiLevel& level, int64_t images) {
  double lines = 0, pixels = 0;
  for (const RoiPlace& place : level.places) {
    const auto& roi = plans.owned(place.roi);
    const double rows = double(roi.row_index.size());
    lines += rows * std::min<double>(double(roi.columns.size()) / 2, double(level.shape.width) / 16 + 1);
    pixels += rows * double(roi.columns.size());
  }
  return lines > double(images) * double(level.shape.pixels()) / 3 + pixels / 16;
}

}  // namespace

template <typename T>
void roi_align_level(const T* maps, int64_t images, const RoiLevel& level, const RoiPlans<acc_t<T>>& plans,
                     bool channels_last, T* out) {
  using A = acc_t<T>;
  const RoiShape& shape = level.shape;
  const int64_t bins = shape.bins(), pixels = shape.pixels(), count = int64_t(level.places.size());
  const int64_t scratch_size = roi_align_scratch(shape);
  if (channels_last) {
    const auto kernel = FASTCNN_SELECT(roi_align_channels_last<T>);
    share_out<A>(level.places, images, shape.channels, kRoiBlock, count, scratch_size,
                 [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                   for (const RoiPlace& place : places)
                     kernel(maps + image * shape.channels * pixels + c, n, plans[place.roi], shape,
                            out + place.roi * shape.channels * bins + c, scratch);
                 });
  } else if (interleaving_pays(plans, level, images)) {
    const auto interleave = FASTCNN_SELECT(roi_align_interleave<T>);
    const auto kernel = FASTCNN_SELECT(roi_align_interleaved<T>);
    const int side_by_side = pixels * kRoiBlock * int64_t(sizeof(T)) <= kRoiCopyBytes ? kRoiBlock : kRoiGroup;
    share_out<A>(level.places, images, shape.channels, side_by_side, 1, scratch_size + pixels * side_by_side,
                 [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                   if (places.empty()) return;
                   auto* copy = reinterpret_cast<T*>(scratch + scratch_size);
                   interleave(maps + (image * shape.channels + c) * pixels, n, pixels, side_by_side, copy);
                   for (const RoiPlace& place : places)
                     kernel(copy, n, side_by_side, plans[place.roi], shape,
                            out + (place.roi * shape.channels + c) * bins, scratch);
                 });
  } else {
    const auto kernel = FASTCNN_SELECT(roi_align_planes<T>);
    share_out<A>(level.places, images, shape.channels, kRoiGroup, count, scratch_size,
                 [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                   for (const RoiPlace& place : places)
                     kernel(maps + (image * shape.channels + c) * pixels, n, plans[place.roi], shape,
                            out + (place.roi * shape.channels + c) * bins, scratch);
                 });
  }
}

template <typename T>
void roi_align_level_backward(const T* grad, int64_t images, const RoiLevel& level, const RoiPlans<acc_t<T>>& plans,
                              bool channels_last, acc_t<T>* grad_maps) {
  using A = acc_t<T>;
  const RoiShape& shape = level.shape;
  const int64_t bins = shape.bins(), pixels = shape.pixels(), scratch_size = roi_align_scratch(shape);
  // A task owns its channels of an image and takes the RoIs in order: the sum does not depend on the threads.
  if (channels_last) {
    const auto kernel = FASTCNN_SELECT(roi_align_channels_last_backward<T>);
    share_out<A>(level.places, images, shape.channels, kRoiBlock, 1, scratch_size,
                 [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                   for (const RoiPlace& place : places)
                     kernel(grad + place.roi * shape.channels * bins + c, n, plans[place.roi], shape,
                            grad_maps + image * shape.channels * pixels + c, scratch);
                 });
  } else if (interleaving_pays(plans, level, images)) {
    const auto kernel = FASTCNN_SELECT(roi_align_interleaved_backward<T>);
    const auto separate = FASTCNN_SELECT(roi_align_separate<A>);
    const int side_by_side = pixels * kRoiBlock * int64_t(sizeof(A)) <= kRoiCopyBytes ? kRoiBlock : kRoiGroup;
    const int64_t sum_size = (pixels + kRoiGroup) * side_by_side;  // With room for a vector of pixels more.
    share_out<A>(level.places, images, shape.channels, side_by_side, 1, scratch_size + sum_size,
                 [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                   if (places.empty()) return;
                   A* sum = scratch + scratch_size;
                   std::fill(sum, sum + sum_size, A(0));
                   for (const RoiPlace& place : places)
                     kernel(grad + (place.roi * shape.channels + c) * bins, n, side_by_side, plans[place.roi], shape,
                            sum, scratch);
                   separate(sum, n, pixels, side_by_side, grad_maps + (image * shape.channels + c) * pixels);
                 });
  } else {
    const auto kernel = FASTCNN_SELECT(roi_align_planes_backward<T>);
    share_out<A>(level.places, images, shape.channels, kRoiGroup, 1, scratch_size,
                 [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                   for (const RoiPlace& place : places)
                     kernel(grad + (place.roi * shape.channels + c) * bins, n, plans[place.roi], shape,
                            grad_maps + (image * shape.channels + c) * pixels, scratch);
                 });
  }
}

#define INSTANTIATE(T)                                                                                        \
  template void roi_align_level(const T*, int64_t, const RoiLevel&, const RoiPlans<acc_t<T>>&, bool, T*);     \
  template void roi_align_level_backward(const T*, int64_t, const RoiLevel&, const RoiPlans<acc_t<T>>&, bool, \
                                         acc_t<T>*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

namespace {

Tensor roi_align_cpu(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                     int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  Tensor out = empty_4d(x, rois.size(0), x.size(1), pooled_height, pooled_width, channels_last);
  std::vector<RoiLevel> levels(1);
  levels[0].shape = {x.size(1), x.size(2), x.size(3), int32_t(pooled_height), int32_t(pooled_width)};
  levels[0].spatial_scale = spatial_scale;
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "roi_align", {
    using A = acc_t<scalar_t>;
    const RoiPlans<A> plans(checked_rois<A>("roi_align", rois, x.size(0)), levels, nullptr, sampling_ratio, aligned);
    roi_align_level(static_cast<const scalar_t*>(x.const_data_ptr()), x.size(0), levels[0], plans, channels_last,
                    static_cast<scalar_t*>(out.mutable_data_ptr()));
  });
  return out;
}

Tensor roi_align_backward_cpu(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t sampling_ratio,
                              bool aligned, std::vector<int64_t> input_size, bool channels_last) {
  const Tensor g =
      torch::stable::contiguous(grad, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  std::vector<RoiLevel> levels(1);
  levels[0].shape = {input_size[1], input_size[2], input_size[3], int32_t(grad.size(2)), int32_t(grad.size(3))};
  levels[0].spatial_scale = spatial_scale;
  Tensor sum = zeros_to_sum(grad, input_size, channels_last);
  FASTCNN_DISPATCH_FLOATING(grad.scalar_type(), "roi_align_backward", {
    using A = acc_t<scalar_t>;
    const RoiPlans<A> plans(checked_rois<A>("roi_align_backward", rois, input_size[0]), levels, nullptr, sampling_ratio,
                            aligned);
    roi_align_level_backward(static_cast<const scalar_t*>(g.const_data_ptr()), input_size[0], levels[0], plans,
                             channels_last, static_cast<A*>(sum.mutable_data_ptr()));
  });
  return sum.scalar_type() == grad.scalar_type() ? sum : torch::stable::to(sum, grad.scalar_type());
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&fastcnn::roi_align_cpu));
  m.impl("roi_align_backward", TORCH_BOX(&fastcnn::roi_align_backward_cpu));
}
