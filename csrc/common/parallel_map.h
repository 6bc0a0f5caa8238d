#pragma once

// The host side of elementwise kernels.

#include "tensor.h"

namespace fastcnn {

// Calls kernel(in..., out, n) on pieces of the memory of tensors that are laid out alike, in parallel.
template <typename T, typename Kernel, typename... In>
void parallel_map(Kernel* kernel, Tensor& out, const In&... in) {
  constexpr int64_t kGrain = 1 << 15;  // Elements a thread must have for a second one to pay.
  STD_TORCH_CHECK(((in.scalar_type() == out.scalar_type()) && ...), "expected tensors of one dtype");
  auto* to = static_cast<T*>(out.mutable_data_ptr());
  torch::stable::parallel_for(0, out.numel(), kGrain, [&](int64_t begin, int64_t end) {
    kernel((static_cast<const T*>(in.const_data_ptr()) + begin)..., to + begin, end - begin);
  });
}

}  // namespace fastcnn
