#include "../common/parallel_map.h"
#include "hardsigmoid_kernel.h"

namespace fastcnn {
namespace {

Tensor hardsigmoid_cpu(const Tensor& input) {
  Tensor out = torch::stable::empty_like(input);
  const Tensor x = laid_out_as(input, out);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "hardsigmoid",
                            parallel_map<scalar_t>(FASTCNN_SELECT(hardsigmoid<scalar_t>), out, x));
  return out;
}

Tensor hardsigmoid_backward_cpu(const Tensor& grad, const Tensor& input) {
  Tensor out = torch::stable::empty_like(input);
  const Tensor x = laid_out_as(input, out), g = laid_out_as(grad, out);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "hardsigmoid_backward",
                            parallel_map<scalar_t>(FASTCNN_SELECT(hardsigmoid_backward<scalar_t>), out, g, x));
  return out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("hardsigmoid", TORCH_BOX(&fastcnn::hardsigmoid_cpu));
  m.impl("hardsigmoid_backward", TORCH_BOX(&fastcnn::hardsigmoid_backward_cpu));
}
