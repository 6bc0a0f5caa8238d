#include "../squeeze_excite/squeeze_excite_images.h"

namespace fastcnn {
namespace {

Tensor channel_means_cpu(const Tensor& input) {
  STD_TORCH_CHECK(input.dim() == 4 && input.scalar_type() == ScalarType::Float && input.numel() > 0,
                  "channel_means: expected float input [N, C, H, W]");
  const Tensor x = dense(input);
  const Shape shape(x, 0, is_channels_last(input));
  Tensor means = empty_4d(x, shape.images, shape.channels, 1, 1, false);
  for_each_batch(shape, [&](const Batch& batch) {
    pool<float>(shape, batch, static_cast<const float*>(x.const_data_ptr()), nullptr, 1 / float(shape.pixels),
                {static_cast<float*>(means.mutable_data_ptr()), shape.channels});
  });
  return means;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) { m.impl("channel_means", TORCH_BOX(&fastcnn::channel_means_cpu)); }
