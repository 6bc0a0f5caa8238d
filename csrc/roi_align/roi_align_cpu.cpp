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
Tensor roi_align_level_backward(const Tensor& grad, int64_t images, const RoiLevel& level,
                                const RoiPlans<acc_t<T>>& plans, bool channels_last) {
  using A = acc_t<T>;
  const RoiShape& shape = level.shape;
  const int64_t bins = shape.bins(), pixels = shape.pixels(), scratch_size = roi_align_scratch(shape);
  const T* from = static_cast<const T*>(grad.const_data_ptr());
  // A task owns its channels of an image and takes the RoIs in order: the sum does not depend on the threads.
  Tensor out = empty_4d(grad, images, shape.channels, shape.height, shape.width, channels_last);
  T* to = static_cast<T*>(out.mutable_data_ptr());
  if (channels_last) {
    const auto kernel = FASTCNN_SELECT(roi_align_channels_last_backward<T>);
    const auto add = [&](const auto& places, int64_t c, int64_t n, A* image, int64_t stride, A* scratch) {
      for (const RoiPlace& place : places)
        kernel(from + place.roi * shape.channels * bins + c, n, plans[place.roi], shape, image, stride, scratch);
    };
    if constexpr (std::is_same_v<T, A>) {
      torch::stable::zero_(out);
      share_out<A>(level.places, images, shape.channels, kRoiBlock, 1, scratch_size,
                   [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                     add(places, c, n, to + image * shape.channels * pixels + c, shape.channels, scratch);
                   });
    } else {  // 16-bit gradients are added up in float, to be rounded once.
      const auto round = FASTCNN_SELECT(roi_align_round<T>);
      const int64_t stride = pixels * kRoiBlock * int64_t(sizeof(A)) <= kRoiSumBytes ? kRoiBlock : kRoiGroup;
      share_out<A>(level.places, images, shape.channels, stride, 1, scratch_size + pixels * stride,
                   [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                     A* sum = scratch + scratch_size;
                     std::fill_n(sum, pixels * stride, A(0));
                     add(places, c, n, sum, stride, scratch);
                     round(sum, n, pixels, stride, shape.channels, to + image * shape.channels * pixels + c);
                   });
    }
    return out;
  }
  const auto kernel = FASTCNN_SELECT(roi_align_interleaved_backward<T>);
  const auto separate = FASTCNN_SELECT(roi_align_separate<T>);
  const int side_by_side = pixels * kRoiBlock * int64_t(sizeof(A)) <= kRoiCopyBytes ? kRoiBlock : kRoiGroup;
  share_out<A>(level.places, images, shape.channels, side_by_side, 1,
               scratch_size + (pixels + kRoiBlock) * side_by_side,
               [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                 T* planes = to + (image * shape.channels + c) * pixels;
                 if (places.empty()) {
                   std::fill_n(planes, n * pixels, T{});
                   return;
                 }
                 A* sum = scratch + scratch_size;
                 std::fill_n(sum, pixels * side_by_side, A(0));
                 for (const RoiPlace& place : places)
                   kernel(from + (place.roi * shape.channels + c) * bins, n, side_by_side, plans[place.roi], shape, sum,
                          scratch);
                 separate(sum, n, pixels, side_by_side, planes);
               });
  return out;
}

#define INSTANTIATE(T)                                                                                    \
  template void roi_align_level(const T*, int64_t, const RoiLevel&, const RoiPlans<acc_t<T>>&, bool, T*); \
  template Tensor roi_align_level_backward<T>(const Tensor&, int64_t, const RoiLevel&, const RoiPlans<acc_t<T>>&, bool);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

namespace {

Tensor roi_align_cpu(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                     int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  constexpr const char* op = "roi_align";
  STD_TORCH_CHECK(input.dim() == 4, op, ": expected input [N, C, H, W]");
  std::vector<RoiLevel> levels(1);
  levels[0].shape =
      checked_shape(op, rois, input.size(0), input.size(1), input.size(2), input.size(3), pooled_height, pooled_width);
  levels[0].spatial_scale = spatial_scale;
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  Tensor out = empty_4d(x, rois.size(0), x.size(1), pooled_height, pooled_width, channels_last);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), op, {
    using A = acc_t<scalar_t>;
    const RoiPlans<A> plans(checked_rois<A>(op, rois, x.size(0)), levels, nullptr, sampling_ratio, aligned);
    roi_align_level(static_cast<const scalar_t*>(x.const_data_ptr()), x.size(0), levels[0], plans, channels_last,
                    static_cast<scalar_t*>(out.mutable_data_ptr()));
  });
  return out;
}

Tensor roi_align_backward_cpu(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t sampling_ratio,
                              bool aligned, std::vector<int64_t> input_size, bool channels_last) {
  constexpr const char* op = "roi_align_backward";
  STD_TORCH_CHECK(
      input_size.size() == 4 && grad.dim() == 4 && grad.size(0) == rois.size(0) && grad.size(1) == input_size[1], op,
      ": expected a gradient [K, C, height, width] and sizes N, C, H, W of the input");
  const Tensor g =
      torch::stable::contiguous(grad, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  std::vector<RoiLevel> levels(1);
  levels[0].shape =
      checked_shape(op, rois, input_size[0], input_size[1], input_size[2], input_size[3], grad.size(2), grad.size(3));
  levels[0].spatial_scale = spatial_scale;
  Tensor out = grad;
  FASTCNN_DISPATCH_FLOATING(grad.scalar_type(), op, {
    using A = acc_t<scalar_t>;
    const RoiPlans<A> plans(checked_rois<A>(op, rois, input_size[0]), levels, nullptr, sampling_ratio, aligned);
    out = roi_align_level_backward<scalar_t>(g, input_size[0], levels[0], plans, channels_last);
  });
  return out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&fastcnn::roi_align_cpu));
  m.impl("roi_align_backward", TORCH_BOX(&fastcnn::roi_align_backward_cpu));
}
