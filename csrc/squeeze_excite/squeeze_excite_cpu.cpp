#include "squeeze_excite_images.h"

namespace fastcnn {
namespace {

template <typename A>
Rows<const A> images_of(const Batch& batch, const A* at, int64_t stride) {
  return {at + batch.first * stride, stride};
}
template <typename A>
Rows<A> images_of(const Batch& batch, A* at, int64_t stride) {
  return {at + batch.first * stride, stride};
}

struct Weights {
  Tensor weight1, weight2;
  int64_t hidden;

  // fastcnn.ops says so better; who calls the op itself must not read past the end.
  Weights(const char* op, const Tensor& x, const Tensor& w1, const Tensor& w2)
      : weight1(matrix(op, x, w1)), weight2(matrix(op, x, w2)), hidden(w1.size(0)) {
    STD_TORCH_CHECK(x.dim() == 4 && w1.size(1) == x.size(1) && w2.size(0) == x.size(1) && w2.size(1) == hidden, op,
                    ": expected input [N, C, H, W], weight1 [R, C] and weight2 [C, R]");
  }
  static Tensor matrix(const char* op, const Tensor& x, const Tensor& w) {
    STD_TORCH_CHECK(w.scalar_type() == x.scalar_type() && w.dim() >= 2 && w.numel() == w.size(0) * w.size(1), op,
                    ": expected weights [out, in] or [out, in, 1, 1] of the dtype of the input");
    return contiguous_as(w, w.scalar_type());
  }
};

std::optional<Tensor> checked_bias(const Tensor& x, const std::optional<Tensor>& bias, int64_t size) {
  if (!bias) return std::nullopt;
  STD_TORCH_CHECK(bias->numel() == size && bias->scalar_type() == x.scalar_type(),
                  "squeeze_excite: expected a bias of ", size, " numbers of the dtype of the input");
  return contiguous_as(*bias, bias->scalar_type());
}

ScalarType accumulated(ScalarType dtype) { return dtype == ScalarType::Double ? dtype : ScalarType::Float; }

// The dispatcher would take a microsecond for each of the many small results.
Tensor like(const Tensor& x, const std::vector<int64_t>& sizes, ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size(); d-- > 1;) strides[d - 1] = strides[d] * std::max<int64_t>(sizes[d], 1);
  int32_t device_type, device_index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(x.get(), &device_index));
  const auto type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle result;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(), type,
                                                         device_type, device_index, &result));
  return Tensor(result);
}

std::tuple<Tensor, Tensor> squeeze_excite_cpu(const Tensor& input, const Tensor& weight1, std::optional<Tensor> bias1,
                                              const Tensor& weight2, std::optional<Tensor> bias2, bool silu,
                                              bool hard) {
  const Weights weights("squeeze_excite", input, weight1, weight2);
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  const Shape shape(x, weights.hidden, channels_last);
  const auto b1 = checked_bias(x, bias1, shape.hidden), b2 = checked_bias(x, bias2, shape.channels);
  Tensor out = empty_4d(x, shape.images, shape.channels, x.size(2), x.size(3), channels_last);
  Tensor saved = like(x, {shape.images, shape.saved()}, accumulated(x.scalar_type()));
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "squeeze_excite", {
    using A = acc_t<scalar_t>;
    const auto pointer = [](const auto& t) { return t ? static_cast<const scalar_t*>(t->const_data_ptr()) : nullptr; };
    const auto* from = static_cast<const scalar_t*>(x.const_data_ptr());
    const auto* w1 = static_cast<const scalar_t*>(weights.weight1.const_data_ptr());
    const auto* w2 = static_cast<const scalar_t*>(weights.weight2.const_data_ptr());
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    const int64_t c = shape.channels;
    const int64_t r = shape.hidden;
    const int64_t stride = shape.saved();
    A* const means = static_cast<A*>(saved.mutable_data_ptr());
    A* const hidden = means + c;
    A* const gates = hidden + r;
    const auto linear_kernel = FASTCNN_SELECT(linear<scalar_t>);
    const auto activation = FASTCNN_SELECT(activate<A>);
    for_each_batch(shape, [&](const Batch& batch) {
      const int64_t n = batch.count;
      pool<scalar_t>(shape, batch, from, nullptr, A(1) / A(shape.pixels), {means, stride});
      const auto mean = images_of<const A>(batch, means, stride);
      const auto z1 = images_of(batch, hidden, stride);
      const auto z2 = images_of(batch, gates, stride);
      const auto layer = [&](const scalar_t* w, const scalar_t* b, int64_t width, int64_t rows, Rows<const A> in,
                             Rows<A> result) {
        const int64_t blocks = (rows + kPlanes - 1) / kPlanes;
        batch.share_out(blocks, kPlanes * width * n, [&](int64_t begin, int64_t end) {
          linear_kernel(w, b, width, begin * kPlanes, std::min(end * kPlanes, rows), n, in, result);
        });
      };
      layer(w1, pointer(b1), c, r, mean, z1);
      const auto activated = std::make_unique_for_overwrite<A[]>(n * r);
      for (int64_t i = 0; i < n; ++i)
        activation(silu ? Activation::silu : Activation::relu, z1.at + i * stride, r, activated.get() + i * r);
      layer(w2, pointer(b2), r, c, {activated.get(), r}, z2);
      for (int64_t i = 0; i < n; ++i)
        activation(hard ? Activation::hardsigmoid : Activation::sigmoid, z2.at + i * stride, c, z2.at + i * stride);
      scale_images<scalar_t>(shape, batch, from, {gates, stride}, {nullptr, 0}, to);
    });
  });
  return {out, saved};
}

// Which gradients are needed, bit by bit, in the order of the arguments.
enum Needed : int64_t { kInput = 1, kWeight1 = 2, kBias1 = 4, kWeight2 = 8, kBias2 = 16 };

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> squeeze_excite_backward_cpu(const Tensor& grad, const Tensor& input,
                                                                               const Tensor& weight1,
                                                                               const Tensor& weight2,
                                                                               const Tensor& saved_tensor, bool silu,
                                                                               bool hard, int64_t needed) {
  const Weights weights("squeeze_excite_backward", input, weight1, weight2);
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  const Shape shape(x, weights.hidden, channels_last);
  const auto dtype = x.scalar_type();
  STD_TORCH_CHECK(grad.scalar_type() == dtype && saved_tensor.numel() == shape.images * shape.saved(),
                  "squeeze_excite_backward: expected a gradient as the input, and what the forward pass saved");
  const Tensor saved = contiguous_as(saved_tensor, accumulated(dtype));
  const auto result = [&](bool wanted, const Tensor& of) {
    if (!wanted) return like(x, {0}, dtype);
    std::vector<int64_t> sizes;
    for (int64_t d = 0; d < of.dim(); ++d) sizes.push_back(of.size(d));
    return like(x, sizes, dtype);
  };
  const auto vector = [&](bool wanted, int64_t size) { return like(x, {wanted ? size : 0}, dtype); };
  Tensor grad_input = needed & kInput ? empty_4d(x, shape.images, shape.channels, x.size(2), x.size(3), channels_last)
                                      : like(x, {0}, dtype);
  const Tensor g = laid_out_as(grad, x);
  Tensor grad_weight1 = result(needed & kWeight1, weight1), grad_weight2 = result(needed & kWeight2, weight2);
  Tensor grad_bias1 = vector(needed & kBias1, shape.hidden), grad_bias2 = vector(needed & kBias2, shape.channels);
  FASTCNN_DISPATCH_FLOATING(dtype, "squeeze_excite_backward", {
    using A = acc_t<scalar_t>;
    const auto* from = static_cast<const scalar_t*>(x.const_data_ptr());
    const auto* of = static_cast<const scalar_t*>(g.const_data_ptr());
    const auto* w1 = static_cast<const scalar_t*>(weights.weight1.const_data_ptr());
    const auto* w2 = static_cast<const scalar_t*>(weights.weight2.const_data_ptr());
    const int64_t c = shape.channels;
    const int64_t r = shape.hidden;
    const int64_t images = shape.images;
    const int64_t stride = shape.saved();
    const A* const means = static_cast<const A*>(saved.const_data_ptr());
    const A* const hidden = means + c;
    const A* const gates = hidden + r;
    // Gradients before the gate, before the activation and of the means; the hidden layer after its activation.
    const auto work = std::make_unique_for_overwrite<A[]>(images * 2 * (c + r));
    A* const of_gate = work.get();
    A* const of_mean = of_gate + images * c;
    A* const of_hidden = of_mean + images * c;
    A* const activated = of_hidden + images * r;
    const auto transposed = FASTCNN_SELECT(linear_transposed<scalar_t>);
    const auto activation = FASTCNN_SELECT(activate<A>);
    const auto slope = FASTCNN_SELECT(activate_backward<A>);
    const auto kind = silu ? Activation::silu : Activation::relu;
    for_each_batch(shape, [&](const Batch& batch) {
      const int64_t n = batch.count;
      const auto back = [&](const scalar_t* w, int64_t rows, int64_t width, const A* in, A factor, A* result) {
        const int64_t blocks = (width + 4 * kPlanes - 1) / (4 * kPlanes);
        batch.share_out(blocks, 4 * kPlanes * rows * n, [&](int64_t begin, int64_t end) {
          transposed(w, rows, width, begin * 4 * kPlanes, std::min(end * 4 * kPlanes, width), n,
                     images_of<const A>(batch, in, rows), factor, images_of(batch, result, width));
        });
      };
      pool<scalar_t>(shape, batch, from, of, A(1), {of_gate, c});
      for (int64_t i = batch.first; i < batch.first + n; ++i)
        slope(hard ? Activation::hardsigmoid : Activation::sigmoid, gates + i * stride, c, of_gate + i * c);
      if (needed & (kInput | kWeight1 | kBias1)) {
        back(w2, c, r, of_gate, A(1), of_hidden);
        for (int64_t i = batch.first; i < batch.first + n; ++i) slope(kind, hidden + i * stride, r, of_hidden + i * r);
      }
      if (needed & kInput) {
        back(w1, r, c, of_hidden, A(1) / A(shape.pixels), of_mean);
        scale_images<scalar_t>(shape, batch, of, {gates, stride}, {of_mean, c},
                               static_cast<scalar_t*>(grad_input.mutable_data_ptr()));
      }
      if (needed & kWeight2)
        for (int64_t i = batch.first; i < batch.first + n; ++i)
          activation(kind, hidden + i * stride, r, activated + i * r);
    });
    const auto outer = FASTCNN_SELECT(outer_sum<scalar_t>);
    const auto sum_over_images = [&](bool wanted, Rows<const A> a, int64_t rows, Rows<const A> b, int64_t width,
                                     Tensor& to) {
      if (!wanted) return;
      auto* data = static_cast<scalar_t*>(to.mutable_data_ptr());
      torch::stable::parallel_for(
          0, (rows + 7) / 8, std::max<int64_t>(1, kGrain / std::max<int64_t>(8 * width * images, 1)),
          [&](int64_t begin, int64_t end) { outer(a, b, images, 8 * begin, std::min(8 * end, rows), width, data); });
    };
    const A one = 1;
    sum_over_images(needed & kWeight1, {of_hidden, r}, r, {means, stride}, c, grad_weight1);
    sum_over_images(needed & kBias1, {&one, 0}, 1, {of_hidden, r}, r, grad_bias1);
    sum_over_images(needed & kWeight2, {of_gate, c}, c, {activated, r}, r, grad_weight2);
    sum_over_images(needed & kBias2, {&one, 0}, 1, {of_gate, c}, c, grad_bias2);
  });
  return {grad_input, grad_weight1, grad_bias1, grad_weight2, grad_bias2};
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("squeeze_excite", TORCH_BOX(&fastcnn::squeeze_excite_cpu));
  m.impl("squeeze_excite_backward", TORCH_BOX(&fastcnn::squeeze_excite_backward_cpu));
}
