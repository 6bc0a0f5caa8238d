#include <algorithm>

#include "../common/cuda_utils.h"
#include "roi_align_backward_cuda.cuh"

namespace fastcnn {
namespace {

template <typename A>
constexpr ScalarType kAccumulateDtype = sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float;

template <typename T>
constexpr int kVector = 16 / sizeof(T);

// Whether the vectors of channels_last kernels fit the channels and lie on 16-byte boundaries.
template <typename T>
bool vectorizes(const RoiAlignShape& shape, const Tensor& x, const Tensor& y) {
  return shape.channels % kVector<T> == 0 && aligned_to_16(x) && aligned_to_16(y);
}

RoiAlignShape shape_of(int64_t images, int64_t channels, int64_t height, int64_t width, int64_t pooled_height,
                       int64_t pooled_width) {
  STD_TORCH_CHECK(height <= INT32_MAX && width <= INT32_MAX, "roi_align: a map of ", height, "x", width,
                  " is too large");
  STD_TORCH_CHECK(pooled_height * pooled_width <= INT32_MAX, "roi_align: too many bins: ", pooled_height, "x",
                  pooled_width);
  return {images, channels, int(height), int(width), int(pooled_height), int(pooled_width)};
}

Tensor empty(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last) {
  return torch::stable::empty({n, c, h, w}, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

// The boxes in the type of the geometry, and how to read them.
template <typename A>
struct Boxes {
  Tensor tensor;
  RoiAlignOptions<A> options;

  Boxes(const Tensor& rois, double spatial_scale, int64_t sampling_ratio, bool aligned)
      : tensor(torch::stable::contiguous(torch::stable::to(rois, kAccumulateDtype<A>))),
        options{A(spatial_scale), int(std::clamp<int64_t>(sampling_ratio, 0, kMaxRoiGrid)), aligned} {}

  const A* data() const { return static_cast<const A*>(tensor.const_data_ptr()); }
  int64_t size() const { return tensor.size(0); }
};

template <typename T>
void launch_forward(const Tensor& x, const Boxes<acc_t<T>>& boxes, const RoiAlignShape& shape, bool channels_last,
                    const Tensor& out) {
  const auto kernel = !channels_last                 ? &roi_align_planes<T>
                      : vectorizes<T>(shape, x, out) ? &roi_align_channels_last<T, kVector<T>, 2>
                                                     : &roi_align_channels_last<T, 1, 8>;
  const int64_t blocks = roi_align_blocks<acc_t<T>>(shape, boxes.size(), channels_last);
  kernel<<<grid_size(blocks), kRoiAlignWarps * kWarp, 0, current_stream(x)>>>(
      static_cast<const T*>(x.const_data_ptr()), boxes.data(), boxes.size(), shape, boxes.options,
      static_cast<T*>(out.mutable_data_ptr()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T>
void launch_backward(const Tensor& grad, const Boxes<acc_t<T>>& boxes, const RoiAlignShape& shape, bool channels_last,
                     const Tensor& out) {
  using Plan = RoiPlan<acc_t<T>>;
  constexpr int kPlanThreads = 128;
  const cudaStream_t stream = current_stream(grad);
  const Tensor plan_bytes =
      torch::stable::empty({boxes.size() * int64_t(sizeof(Plan))}, ScalarType::Byte, std::nullopt, grad.device());
  auto* plans = static_cast<Plan*>(plan_bytes.mutable_data_ptr());
  plan_rois<<<grid_size(ceil_div<int64_t>(boxes.size(), kPlanThreads)), kPlanThreads, 0, stream>>>(
      boxes.data(), boxes.size(), shape, boxes.options, plans);
  STD_CUDA_KERNEL_LAUNCH_CHECK();

  auto kernel = &roi_align_backward_planes<T>;
  int columns = kWarp, channels = kRoiAlignPlanes<acc_t<T>>;
  if (channels_last) {
    const bool vector = vectorizes<T>(shape, grad, out);
    kernel = vector ? &roi_align_backward_channels_last<T, kVector<T>> : &roi_align_backward_channels_last<T, 1>;
    columns = kTileColumnsLast;
    channels = kWarp * (vector ? kVector<T> : 1);
  }
  kernel<<<grid_size(roi_align_backward_blocks(shape, columns, channels)), kTileThreads, 0, stream>>>(
      static_cast<const T*>(grad.const_data_ptr()), plans, boxes.size(), shape,
      static_cast<T*>(out.mutable_data_ptr()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor roi_align_cuda(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                      int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  const DeviceGuard guard(input.get_device_index());
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  const RoiAlignShape shape = shape_of(x.size(0), x.size(1), x.size(2), x.size(3), pooled_height, pooled_width);
  Tensor out = empty(x, rois.size(0), shape.channels, pooled_height, pooled_width, channels_last);
  if (out.numel() == 0) return out;
  if (x.numel() == 0) return torch::stable::zero_(out);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "roi_align", {
    const Boxes<acc_t<scalar_t>> boxes(rois, spatial_scale, sampling_ratio, aligned);
    launch_forward<scalar_t>(x, boxes, shape, channels_last, out);
  });
  return out;
}

Tensor roi_align_backward_cuda(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t sampling_ratio,
                               bool aligned, std::vector<int64_t> input_size, bool channels_last) {
  const DeviceGuard guard(grad.get_device_index());
  const Tensor g =
      torch::stable::contiguous(grad, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  const RoiAlignShape shape =
      shape_of(input_size[0], input_size[1], input_size[2], input_size[3], g.size(2), g.size(3));
  Tensor out = empty(g, shape.images, shape.channels, shape.height, shape.width, channels_last);
  if (out.numel() == 0) return out;
  if (g.numel() == 0) return torch::stable::zero_(out);
  FASTCNN_DISPATCH_FLOATING(g.scalar_type(), "roi_align_backward", {
    const Boxes<acc_t<scalar_t>> boxes(rois, spatial_scale, sampling_ratio, aligned);
    launch_backward<scalar_t>(g, boxes, shape, channels_last, out);
  });
  return out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&fastcnn::roi_align_cuda));
  m.impl("roi_align_backward", TORCH_BOX(&fastcnn::roi_align_backward_cuda));
}
