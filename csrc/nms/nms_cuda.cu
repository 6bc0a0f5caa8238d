#include <array>

#include "../common/cuda_utils.h"
#include "nms_cuda.cuh"

namespace fastcnn {
namespace {

// Indices by descending score, NaN first, ties by index.
Tensor order_of(const Tensor& scores) {
  using torch::stable::detail::from;
  std::array<StableIValue, 4> stack{from(scores), from(std::optional<bool>(true)), from(int64_t(0)), from(true)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // The sorted scores: taken only to be freed.
  return torch::stable::detail::to<Tensor>(stack[1]);
}

// The indices kept, of which the first `count` count; nothing waits for the device.
struct Kept {
  Tensor indices, count;
};

template <typename In>
Kept nms_on_device(const Tensor& boxes, const Tensor& order, float threshold) {
  using T = acc_t<In>;
  const int n = int(boxes.size(0));
  const int tiles = ceil_div(n, kNmsTile);
  const cudaStream_t stream = current_stream(boxes);
  const auto bytes = [&](int64_t size) {
    return torch::stable::empty({size}, ScalarType::Byte, std::nullopt, boxes.device());
  };
  const auto longs = [&](int64_t size) {
    return torch::stable::empty({size}, ScalarType::Long, std::nullopt, boxes.device());
  };
  const Tensor sorted = bytes(n * int64_t(sizeof(Box<T>))), kept = bytes(n * int64_t(sizeof(Box<T>)));
  const Tensor state = bytes(sizeof(NmsState)), tile_bytes = bytes(tiles * int64_t(sizeof(NmsTile)));
  const Kept result{longs(n), longs(1)};
  auto* sorted_boxes = static_cast<Box<T>*>(sorted.mutable_data_ptr());
  auto* states = static_cast<NmsState*>(state.mutable_data_ptr());
  const auto* indices = static_cast<const int64_t*>(order.const_data_ptr());
  nms_gather<<<tiles, kNmsTile, 0, stream>>>(static_cast<const In*>(boxes.const_data_ptr()), indices, n, sorted_boxes,
                                             states);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  nms_tiles<<<tiles, kNmsTile, 0, stream>>>(
      sorted_boxes, indices, n, IouAbove<T>{threshold}, states, static_cast<NmsTile*>(tile_bytes.mutable_data_ptr()),
      static_cast<Box<T>*>(kept.mutable_data_ptr()), static_cast<int64_t*>(result.indices.mutable_data_ptr()),
      static_cast<int64_t*>(result.count.mutable_data_ptr()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return result;
}

Tensor nms_cuda(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  const DeviceGuard guard(boxes.get_device_index());
  const int64_t n = boxes.size(0);
  if (n == 0) return torch::stable::empty({0}, ScalarType::Long, std::nullopt, boxes.device());
  STD_TORCH_CHECK(n <= INT32_MAX - kNmsTile, "nms: too many boxes: ", n);
  const Tensor contiguous = torch::stable::contiguous(boxes), order = torch::stable::contiguous(order_of(scores));
  // As torchvision's CUDA kernel, for every dtype: the threshold is rounded to float.
  const float threshold = float(iou_threshold);
  std::optional<Kept> kept;
  FASTCNN_DISPATCH_FLOATING(boxes.scalar_type(), "nms",
                            { kept = nms_on_device<scalar_t>(contiguous, order, threshold); });
  int64_t count = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_item_int64(kept->count.get(), &count));  // The one wait for the device.
  return torch::stable::narrow(kept->indices, 0, 0, count);
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CUDA, m) { m.impl("nms", TORCH_BOX(&fastcnn::nms_cuda)); }
