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

// Of an op of one tensor, whose kernels are `op` and `op_backward`: the host side of both, registered.
#define FASTCNN_ELEMENTWISE_CPU(op)                                                                                \
  namespace fastcnn {                                                                                              \
  namespace {                                                                                                      \
  Tensor op##_cpu(const Tensor& input) {                                                                           \
    Tensor out = torch::stable::empty_like(input);                                                                 \
    const Tensor x = laid_out_as(input, out);                                                                      \
    FASTCNN_DISPATCH_FLOATING(x.scalar_type(), #op, parallel_map<scalar_t>(FASTCNN_SELECT(op<scalar_t>), out, x)); \
    return out;                                                                                                    \
  }                                                                                                                \
  Tensor op##_backward_cpu(const Tensor& grad, const Tensor& input) {                                              \
    Tensor out = torch::stable::empty_like(input);                                                                 \
    const Tensor x = laid_out_as(input, out), g = laid_out_as(grad, out);                                          \
    FASTCNN_DISPATCH_FLOATING(x.scalar_type(), #op "_backward",                                                    \
                              parallel_map<scalar_t>(FASTCNN_SELECT(op##_backward<scalar_t>), out, g, x));         \
    return out;                                                                                                    \
  }                                                                                                                \
  }                                                                                                                \
  }                                                                                                                \
  STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {                                                                     \
    m.impl(#op, TORCH_BOX(&fastcnn::op##_cpu));                                                                    \
    m.impl(#op "_backward", TORCH_BOX(&fastcnn::op##_backward_cpu));                                               \
  }
