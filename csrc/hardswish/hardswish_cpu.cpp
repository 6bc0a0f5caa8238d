#include "../common/tensor.h"
#include "hardswish_kernel.h"

namespace fastcnn {
namespace {

constexpr int64_t kGrain = 1 << 15;  // Elements a thread must have for a second one to pay.

Tensor hardswish_cpu(const Tensor& input) {
  Tensor out = torch::stable::empty_like(input);
  const Tensor x = laid_out_as(input, out);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "hardswish", {
    const auto kernel = FASTCNN_SELECT(hardswish<scalar_t>);
    const auto* from = static_cast<const scalar_t*>(x.const_data_ptr());
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    torch::stable::parallel_for(0, x.numel(), kGrain,
                                [&](int64_t begin, int64_t end) { kernel(from + begin, to + begin, end - begin); });
  });
  return out;
}

Tensor hardswish_backward_cpu(const Tensor& grad, const Tensor& input) {
  Tensor out = torch::stable::empty_like(input);
  const Tensor x = laid_out_as(input, out), g = laid_out_as(grad, out);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "hardswish_backward", {
    const auto kernel = FASTCNN_SELECT(hardswish_backward<scalar_t>);
    const auto* grad_ptr = static_cast<const scalar_t*>(g.const_data_ptr());
    const auto* from = static_cast<const scalar_t*>(x.const_data_ptr());
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    torch::stable::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernel(grad_ptr + begin, from + begin, to + begin, end - begin);
    });
  });
  return out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("hardswish", TORCH_BOX(&fastcnn::hardswish_cpu));
  m.impl("hardswish_backward", TORCH_BOX(&fastcnn::hardswish_backward_cpu));
}
