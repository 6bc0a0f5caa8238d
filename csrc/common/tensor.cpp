#include "tensor.h"

#include "memory.h"

namespace fastcnn {
namespace {

// In memory that is kept for the results to come, where it is large; else none.
std::optional<Tensor> large(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes,
                            torch::headeronly::IntHeaderOnlyArrayRef strides) {
  size_t bytes = like.element_size();
  for (const int64_t size : sizes) bytes *= size_t(size);
  if (bytes < kLeastKept || like.device().type() != torch::headeronly::DeviceType::CPU) return std::nullopt;
  void* const at = take_memory(bytes);
  if (at == nullptr) return std::nullopt;
  return torch::stable::from_blob(at, sizes, strides, like.device(), like.scalar_type(),
                                  [bytes](void* memory) { give_memory_back(memory, bytes); });
}

}  // namespace

bool is_channels_last(const Tensor& x) {
  if (x.dim() != 4) return false;
  int64_t densest = 0;
  for (int d : {1, 3, 2, 0}) {
    if (x.size(d) == 0 || x.stride(d) < densest) return false;
    if (d == 0 && densest == x.stride(1)) return false;
    densest = x.stride(d) * (x.size(d) > 1 ? x.size(d) : 1);
  }
  return true;
}

Tensor dense(const Tensor& x) {
  if (x.is_contiguous()) return x;  // The dispatcher would take a microsecond to say so.
  return dense_as(x, is_channels_last(x));
}

Tensor dense_as(const Tensor& x, bool channels_last) {
  return torch::stable::contiguous(x, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

Tensor contiguous_as(const Tensor& x, ScalarType dtype) {
  const Tensor converted = x.scalar_type() == dtype ? x : torch::stable::to(x, dtype);
  return converted.is_contiguous() ? converted : torch::stable::contiguous(converted);
}

Tensor laid_out_as(const Tensor& x, const Tensor& dense_like) {
  // fastcnn.ops has seen to it; who calls an op itself must not read past the end.
  bool same = x.dim() == dense_like.dim();
  for (int64_t d = 0; same && d < x.dim(); ++d) same = x.size(d) == dense_like.size(d);
  STD_TORCH_CHECK(same, "expected tensors of one shape");
  for (int64_t d = 0; d < x.dim(); ++d) same = same && (x.size(d) <= 1 || x.stride(d) == dense_like.stride(d));
  if (same) return x;
  Tensor copy = torch::stable::empty_like(dense_like);
  return torch::stable::copy_(copy, x);
}

Tensor empty_laid_out_as(const Tensor& x) {
  // What torch.empty_like does with other strides is for it to say.
  if (x.is_contiguous() || is_channels_last(x)) {
    if (auto out = large(x, x.sizes(), x.strides())) return *out;
  }
  return torch::stable::empty_like(x);
}

Tensor empty_contiguous(const Tensor& x) {
  std::vector<int64_t> strides(size_t(x.dim()), 1);
  for (int64_t d = x.dim() - 2; d >= 0; --d) strides[d] = strides[d + 1] * std::max<int64_t>(x.size(d + 1), 1);
  if (auto out = large(x, x.sizes(), strides)) return *out;
  return torch::stable::empty(x.sizes(), x.scalar_type(), std::nullopt, x.device());
}

Tensor empty_4d(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last) {
  const std::array<int64_t, 4> sizes{n, c, h, w};
  const std::array<int64_t, 4> strides =
      channels_last ? std::array<int64_t, 4>{h * w * c, 1, w * c, c} : std::array<int64_t, 4>{c * h * w, h * w, w, 1};
  if (auto out = large(like, sizes, strides)) return *out;
  return torch::stable::empty({n, c, h, w}, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

}  // namespace fastcnn
