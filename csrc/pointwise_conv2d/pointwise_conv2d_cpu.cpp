#include "pointwise.h"

namespace fastcnn {
namespace {

// Of filters of any shape, one after the other, as the panels of a 1x1 convolution.
Tensor pointwise_conv2d_pack_cpu(const Tensor& weight) {
  STD_TORCH_CHECK(weight.dim() > 0 && weight.size(0) > 0, "pointwise_conv2d_pack: expected filters");
  const ScalarType wide = weight.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const Tensor w = contiguous_as(weight, wide);
  Tensor packed = torch::stable::empty({w.numel()}, wide, std::nullopt, w.device());
  const Panels panels(w.numel() / w.size(0), w.size(0));
  FASTCNN_DISPATCH_FLOATING(wide, "pointwise_conv2d_pack", {
    using A = acc_t<scalar_t>;
    pack(panels, static_cast<const A*>(w.const_data_ptr()), static_cast<A*>(packed.mutable_data_ptr()));
  });
  return packed;
}

template <typename T>
void forward(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
             const std::optional<Tensor>& residual, Activation activation, const std::optional<Tensor>& packed,
             int64_t x_row, double slope, Tensor& out) {
  using A = acc_t<T>;
  constexpr ScalarType kWide = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;
  const Panels panels(x.size(1), out.size(1));
  const Tensor weights = packed ? *packed : pointwise_conv2d_pack_cpu(weight);
  const std::optional<Tensor> b = bias ? std::optional(contiguous_as(*bias, kWide)) : std::nullopt;
  const Pointwise<T> product{x.size(0) * x.size(2) * x.size(3),
                             panels,
                             static_cast<const T*>(x.const_data_ptr()),
                             x_row,
                             static_cast<const A*>(weights.const_data_ptr()),
                             b ? static_cast<const A*>(b->const_data_ptr()) : nullptr,
                             residual ? static_cast<const T*>(residual->const_data_ptr()) : nullptr,
                             activation,
                             static_cast<T*>(out.mutable_data_ptr()),
                             A(slope)};
  product.run();
}

// fastcnn.ops says better what is wrong; who calls the op itself must not read past the end.
Tensor pointwise_conv2d_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> bias,
                            std::optional<Tensor> residual, int64_t activation, std::optional<Tensor> packed,
                            double slope) {
  constexpr const char* op = "pointwise_conv2d";
  STD_TORCH_CHECK(input.dim() == 4 && weight.dim() == 4 && weight.size(1) == input.size(1) && weight.size(2) == 1 &&
                      weight.size(3) == 1 && weight.scalar_type() == input.scalar_type(),
                  op, ": expected input [N, C, H, W] and weight [out, C, 1, 1] of one dtype");
  const int64_t n = input.size(0), in = input.size(1), out = weight.size(0), h = input.size(2), w = input.size(3);
  STD_TORCH_CHECK(in > 0 && out >= kGemmLanes, op, ": expected at least one channel and ", kGemmLanes,
                  " of the result");
  STD_TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == out && bias->scalar_type() == input.scalar_type()), op,
                  ": expected a bias for each of ", out, " channels");
  const std::optional<Tensor> added = checked(op, residual, input.scalar_type(), n, out, h, w);
  const Activation kind = checked(op, activation, slope);
  const ScalarType wide = input.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(!packed || (packed->dim() == 1 && packed->size(0) == in * out && packed->scalar_type() == wide &&
                              packed->stride(0) == 1),
                  op, ": expected ", in * out, " packed weights");
  const bool wide_type = input.scalar_type() == wide;  // Others are converted anyway, from one piece.
  const int64_t row = wide_type ? pixel_row(input) : 0, x_row = row ? row : in;
  const Tensor x = row ? input : dense_as(input, true);
  const bool channels_last = is_channels_last(input), turn = !channels_last && n > 0 && h * w > 1;
  Tensor y = empty_4d(input, n, out, h, w, channels_last || turn);
  if (y.numel() > 0) {
    FASTCNN_DISPATCH_FLOATING(input.scalar_type(), op,
                              forward<scalar_t>(x, weight, bias, added, kind, packed, x_row, slope, y));
  }
  return turn ? dense_as(y, false) : y;
}

Tensor linear_cpu(const Tensor& input, const Tensor& weight, const Tensor& packed, std::optional<Tensor> bias) {
  constexpr const char* op = "linear";
  STD_TORCH_CHECK(input.dim() == 2 && input.scalar_type() == ScalarType::Float && weight.dim() == 2 &&
                      weight.size(1) == input.size(1) && input.size(1) > 0 && weight.size(0) >= kGemmLanes,
                  op, ": expected float input [N, C] and weight [out, C], out at least ", kGemmLanes);
  const int64_t n = input.size(0), in = input.size(1), out = weight.size(0);
  const Tensor x = contiguous_as(input, ScalarType::Float);
  Tensor y = torch::stable::empty({n, out}, ScalarType::Float, std::nullopt, x.device());
  const Pointwise<float> product{n,
                                 Panels(in, out),
                                 static_cast<const float*>(x.const_data_ptr()),
                                 in,
                                 floats(op, packed, in * out),
                                 floats(op, bias, out),
                                 nullptr,
                                 Activation::none,
                                 static_cast<float*>(y.mutable_data_ptr())};
  if (n > 0) product.run();
  return y;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("pointwise_conv2d", TORCH_BOX(&fastcnn::pointwise_conv2d_cpu));
  m.impl("linear", TORCH_BOX(&fastcnn::linear_cpu));
  m.impl("pointwise_conv2d_pack", TORCH_BOX(&fastcnn::pointwise_conv2d_pack_cpu));
}
