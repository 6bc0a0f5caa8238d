#include "nms_cuda.h"

#include <algorithm>
#include <array>

#include "nms_lists_cuda.cuh"

namespace fastcnn {
namespace {

using torch::stable::detail::from;
using torch::stable::detail::to;

template <typename T>
T* data(const Tensor& x) {
  if constexpr (std::is_const_v<T>) {
    return static_cast<T*>(x.const_data_ptr());
  } else {
    return static_cast<T*>(x.mutable_data_ptr());
  }
}

struct Sorted {
  Tensor values, indices;
};

// Along the last dimension, ascending, stable.
Sorted sort(const Tensor& x) {
  std::array<StableIValue, 4> stack{from(x), from(std::optional<bool>(true)), from(int64_t(-1)), from(false)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  const Tensor values = to<Tensor>(stack[0]), indices = to<Tensor>(stack[1]);
  return {torch::stable::contiguous(values), torch::stable::contiguous(indices)};
}

// Of x along the last dimension.
Tensor gather(const Tensor& x, const Tensor& indices) {
  std::array<StableIValue, 4> stack{from(x), from(int64_t(-1)), from(indices), from(false)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::gather", "", stack.data(), TORCH_ABI_VERSION));
  return to<Tensor>(stack[0]);
}

template <typename In>
Sorted sort_scores(const Tensor& scores, int n, std::optional<double> above) {
  using T = acc_t<In>;
  const auto dtype = sizeof(T) == 8 ? ScalarType::Long : ScalarType::Int;
  const Tensor keys = torch::stable::empty(scores.sizes(), dtype, std::nullopt, scores.device());
  nms_sort_keys<In, T><<<ceil_div(n, kNmsTile), kNmsTile, 0, current_stream(scores)>>>(
      data<const In>(scores), n, above.has_value(), T(above.value_or(0)), data<SortKey<T>>(keys));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return sort(keys);
}

// What kernels leave each other, in one allocation.
template <typename T>
struct Memory {
  Tensor bytes;
  Box<T>*sorted, *kept;
  NmsTile* tiles;
  int *places, *next_tile;
  unsigned* bits;

  Memory(const Tensor& like, const NmsShape& shape, int tile_count) {
    const int64_t n = shape.total(), words = int64_t(shape.images) * shape.words();
    const int64_t size = 2 * n * sizeof(Box<T>) + tile_count * sizeof(NmsTile) + (n + words + 1) * sizeof(int);
    bytes = torch::stable::empty({size}, ScalarType::Byte, std::nullopt, like.device());
    sorted = data<Box<T>>(bytes);
    kept = sorted + n;
    tiles = reinterpret_cast<NmsTile*>(kept + n);
    places = reinterpret_cast<int*>(tiles + tile_count);
    next_tile = places + n;
    bits = reinterpret_cast<unsigned*>(next_tile + 1);
  }
};

template <typename In>
void suppress(const Tensor& boxes, const Sorted& by_score, const std::optional<Sorted>& by_class, const NmsShape& shape,
              float iou_threshold, const Kept& result) {
  using T = acc_t<In>;
  const int tiles = ceil_div(shape.total(), kNmsTile);
  const int64_t limit = result.indices.size(1);
  const cudaStream_t stream = current_stream(boxes);
  const Memory<T> memory(boxes, shape, tiles);
  const auto* order = data<const int64_t>(by_score.indices);
  const auto gather_boxes = [&](const auto* keys) {
    nms_gather<In, T><<<tiles, kNmsTile, 0, stream>>>(
        data<const In>(boxes), order, keys, by_class ? data<const int64_t>(by_class->indices) : nullptr, shape,
        memory.sorted, memory.places, memory.next_tile, memory.tiles, memory.bits);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  };
  if (by_score.values.scalar_type() == ScalarType::Long) {
    gather_boxes(data<const int64_t>(by_score.values));
  } else {
    gather_boxes(data<const int32_t>(by_score.values));
  }
  nms_tiles<<<tiles, kNmsTile, 0, stream>>>(static_cast<const Box<T>*>(memory.sorted), memory.places,
                                            by_class ? data<const int64_t>(by_class->values) : nullptr, shape,
                                            int(std::min<int64_t>(limit, shape.boxes)), IouAbove<T>{iou_threshold},
                                            memory.next_tile, memory.tiles, memory.kept, memory.bits);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  nms_list<<<grid_size(shape.images * nms_list_blocks(shape, limit)), kNmsTile, 0, stream>>>(
      memory.bits, order, shape, limit, data<int64_t>(result.indices), data<int64_t>(result.counts));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

void BoxesToSuppress::check(int64_t rank_of_boxes) const {
  bool good = boxes.dim() == rank_of_boxes && boxes.size(rank_of_boxes - 1) == 4 && scores.device() == boxes.device();
  const auto fits = [&](const Tensor& x) {
    bool same = x.dim() == rank_of_boxes - 1 && x.device() == boxes.device();
    for (int64_t d = 0; same && d < x.dim(); ++d) same = x.size(d) == boxes.size(d);
    return same;
  };
  good = good && fits(scores) && (classes == nullptr || (fits(*classes) && classes->scalar_type() == ScalarType::Long));
  STD_TORCH_CHECK(good, op, ": expected boxes [..., N, 4], scores [..., N] and int64 classes [..., N] on one device");
}

Kept suppress_on_device(const BoxesToSuppress& input, double iou_threshold, std::optional<double> score_threshold,
                        int64_t limit) {
  const Tensor boxes = dense(input.boxes), scores = torch::stable::contiguous(input.scores);
  const int64_t per_image = boxes.size(boxes.dim() - 2), images = boxes.dim() == 3 ? boxes.size(0) : 1;
  const auto longs = [&](std::initializer_list<int64_t> size) {
    return torch::stable::empty(size, ScalarType::Long, std::nullopt, boxes.device());
  };
  Kept result{longs({images, limit}), longs({images})};
  if (images * per_image == 0 || limit == 0) {
    torch::stable::fill_(result.indices, -1);
    torch::stable::zero_(result.counts);
    return result;
  }
  // Positions are ints, and so are places of bits, of which each image has whole words.
  STD_TORCH_CHECK(images <= (INT32_MAX - kNmsTile) / (ceil_div<int64_t>(per_image, 32) * 32), input.op,
                  ": too many boxes: ", images, " times ", per_image);
  const NmsShape shape{int(images), int(per_image)};
  std::optional<Sorted> by_score, by_class;
  FASTCNN_DISPATCH_FLOATING(scores.scalar_type(), input.op,
                            { by_score = sort_scores<scalar_t>(scores, shape.total(), score_threshold); });
  if (input.classes != nullptr) by_class = sort(gather(*input.classes, by_score->indices));
  // As torchvision's CUDA kernel, for every dtype: the threshold is rounded to float.
  FASTCNN_DISPATCH_FLOATING(boxes.scalar_type(), input.op,
                            { suppress<scalar_t>(boxes, *by_score, by_class, shape, float(iou_threshold), result); });
  return result;
}

Tensor suppress_and_wait(const BoxesToSuppress& input, double iou_threshold) {
  input.check(2);
  const DeviceGuard guard(input.boxes.get_device_index());
  const Kept kept = suppress_on_device(input, iou_threshold, std::nullopt, input.boxes.size(0));
  int64_t count = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_item_int64(kept.counts.get(), &count));  // The one wait for the device.
  Tensor indices = torch::stable::select(kept.indices, 0, 0);
  return torch::stable::narrow(indices, 0, 0, count);
}

namespace {

Tensor nms_cuda(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  return suppress_and_wait({"nms", boxes, scores, nullptr}, iou_threshold);
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CUDA, m) { m.impl("nms", TORCH_BOX(&fastcnn::nms_cuda)); }
