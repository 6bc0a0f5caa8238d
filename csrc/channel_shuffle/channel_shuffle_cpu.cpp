#include <algorithm>
#include <cstring>

#include "channel_shuffle.h"
#include "../pointwise_conv2d/pointwise.h"
#include "channel_shuffle_kernel.h"

namespace fastcnn {
namespace {

constexpr int64_t kGrainBytes = 1 << 17;  // What a thread must copy for a second one to pay.

template <typename U>
void shuffle_channels_last(const Tensor& x, Tensor& out, int64_t groups) {
  const int64_t channels = x.size(1), pixels = x.numel() / channels;
  const auto kernel = FASTCNN_SELECT(shuffle_pixels<U>);
  const auto* from = static_cast<const U*>(x.const_data_ptr());
  auto* to = static_cast<U*>(out.mutable_data_ptr());
  const int64_t grain = std::max<int64_t>(kGrainBytes / int64_t(channels * sizeof(U)), 1);
  torch::stable::parallel_for(0, pixels, grain, [&](int64_t begin, int64_t end) {
    kernel(from + begin * channels, channels, to + begin * channels, end - begin, groups, channels / groups);
  });
}

void shuffle_planes(const Tensor& x, Tensor& out, int64_t groups) {
  const int64_t planes = x.size(0) * x.size(1), each = x.size(1) / groups;
  const int64_t bytes = x.numel() / planes * x.element_size();
  const auto* from = static_cast<const char*>(x.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  torch::stable::parallel_for(0, planes, std::max<int64_t>(kGrainBytes / bytes, 1), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t channel = plane % (groups * each), image = plane - channel;
      memcpy(to + plane * bytes, from + (image + channel % groups * each + channel / groups) * bytes, bytes);
    }
  });
}

}  // namespace

Tensor channel_shuffle_cpu(const Tensor& input, int64_t groups) {
  STD_TORCH_CHECK(input.dim() >= 3, "channel_shuffle: expected input [N, C, *]");
  STD_TORCH_CHECK(groups > 0 && input.size(1) % groups == 0, "channel_shuffle: ", input.size(1),
                  " channels are not divisible into ", groups, " groups");
  const bool channels_last = is_channels_last(input);
  const Tensor x = channels_last ? dense(input) : torch::stable::contiguous(input);
  Tensor out = x.dim() == 4 ? empty_4d(x, x.size(0), x.size(1), x.size(2), x.size(3), channels_last)
                            : torch::stable::empty_like(x);
  if (x.numel() == 0) return out;
  if (!channels_last) {
    shuffle_planes(x, out, groups);
    return out;
  }
  switch (x.element_size()) {
    case 1:
      shuffle_channels_last<uint8_t>(x, out, groups);
      break;
    case 2:
      shuffle_channels_last<uint16_t>(x, out, groups);
      break;
    case 4:
      shuffle_channels_last<uint32_t>(x, out, groups);
      break;
    case 8:
      shuffle_channels_last<uint64_t>(x, out, groups);
      break;
    default:
      STD_TORCH_CHECK(x.element_size() == 16, "channel_shuffle: no dtype has elements of ", x.element_size(), " bytes");
      shuffle_channels_last<Element16>(x, out, groups);
  }
  return out;
}

namespace {

constexpr int64_t kPairPixels = 16;  // Brought together at a time, in L1.

Tensor shuffle_pair_cpu(const Tensor& first, const Tensor& second) {
  constexpr const char* op = "shuffle_pair";
  STD_TORCH_CHECK(first.dim() == 4 && first.scalar_type() == ScalarType::Float && first.size(1) > 0, op,
                  ": expected float maps [N, C, H, W]");
  const int64_t n = first.size(0), each = first.size(1), h = first.size(2), w = first.size(3);
  const Tensor second_map = *checked(op, second, ScalarType::Float, n, each, h, w);
  const int64_t row = pixel_row(first);
  const Tensor first_map = row ? first : dense_as(first, true);
  Tensor out = empty_4d(first, n, 2 * each, h, w, true);
  const auto* a = static_cast<const uint32_t*>(first_map.const_data_ptr());
  const auto* b = static_cast<const uint32_t*>(second_map.const_data_ptr());
  auto* to = static_cast<uint32_t*>(out.mutable_data_ptr());
  const auto kernel = FASTCNN_SELECT(shuffle_pixels<uint32_t>);
  const int64_t grain = std::max<int64_t>(kGrainBytes / (8 * each), 1), a_row = row ? row : each;
  torch::stable::parallel_for(0, n * h * w, grain, [&](int64_t begin, int64_t end) {
    const auto pair = std::make_unique_for_overwrite<uint32_t[]>(2 * each * kPairPixels);
    for (int64_t pixel = begin; pixel < end; pixel += kPairPixels) {
      const int64_t count = std::min(kPairPixels, end - pixel);
      for (int64_t i = 0; i < count; ++i) {
        std::copy_n(a + (pixel + i) * a_row, each, pair.get() + 2 * i * each);
        std::copy_n(b + (pixel + i) * each, each, pair.get() + (2 * i + 1) * each);
      }
      kernel(pair.get(), 2 * each, to + 2 * pixel * each, count, 2, each);
    }
  });
  return out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("channel_shuffle", TORCH_BOX(&fastcnn::channel_shuffle_cpu));
  m.impl("shuffle_pair", TORCH_BOX(&fastcnn::shuffle_pair_cpu));
}
