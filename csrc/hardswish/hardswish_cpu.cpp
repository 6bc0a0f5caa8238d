#include "../common/parallel_map.h"
#include "hardswish_kernel.h"

namespace fastcnn {
namespace {

Tensor hardswish_cpu(const Tensor& input) {
  Tensor out = torch::stable::empty_like(input);
  const Tensor x = laid_out_as(input, out);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "hardswish",
                            parallel_map<scalar_t>(FASTCNN_SELECT(hardswish<scalar_t>), out, x));
  return out;
}

Tensor hardswish_backward_cpu(const Tensor& grad, const Tensor& input) {
  Tensor out = torch::stable::empty_like(input);
  const Tensor x = laid_out_as(input, out), g = laid_out_as(grad, out);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "hardswish_backward",
                            parallel_map<scalar_t>(FASTCNN_SELECT(hardswish_backward<scalar_t>), out, g, x));
  return out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("hardswish", TORCH_BOX(&fastcnn::hardswish_cpu));
  m.impl("hardswish_backward", TORCH_BOX(&fastcnn::hardswish_backward_cpu));
}
