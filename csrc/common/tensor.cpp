#include "tensor.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastcnn {
namespace {

// Memory fresh from the system is mapped and cleared page by page on first touch, which for a large output takes longer
// than the kernel that writes it; 2 MB pages make that several times cheaper. Below 32 MB malloc comes to keep what is
// freed, and there is nothing to gain.
void advise_huge_pages([[maybe_unused]] const Tensor& x) {
#if defined(__linux__)
  constexpr uintptr_t kHuge = 2 << 20, kMapped = 32 << 20;
  const auto begin = (reinterpret_cast<uintptr_t>(x.const_data_ptr()) + kHuge - 1) & ~(kHuge - 1);
  const auto end = (reinterpret_cast<uintptr_t>(x.const_data_ptr()) + x.numel() * x.element_size()) & ~(kHuge - 1);
  // Best effort: a kernel without such pages refuses, and nothing is lost.
  if (end + 2 * kHuge > begin + kMapped) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
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
  Tensor out = torch::stable::empty_like(x);
  advise_huge_pages(out);
  return out;
}

Tensor empty_contiguous(const Tensor& x) {
  Tensor out = torch::stable::empty(x.sizes(), x.scalar_type(), std::nullopt, x.device());
  advise_huge_pages(out);
  return out;
}

Tensor empty_4d(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last) {
  Tensor out = torch::stable::empty({n, c, h, w}, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                                    channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  advise_huge_pages(out);
  return out;
}

}  // namespace fastcnn
