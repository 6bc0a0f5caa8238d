#include "../channel_shuffle/channel_shuffle.h"
#include "../pointwise_conv2d/pointwise.h"
#include "convolution.h"
#include "weight_gradient.h"

namespace fastcnn {
namespace {

constexpr int64_t kPixelChannels = 16;  // Of a group, below which vectors over channels are mostly empty.
constexpr int64_t kMaxSize = int64_t(1) << 31;

using Sizes = std::vector<int64_t>;

int64_t out_size(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  return (size + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1;
}

// The convolution from the shapes of its tensors; fastcnn.ops says better what is wrong with them, but who calls the op
// itself must not read past the end.
Convolution convolution(const char* op, const Sizes& input, const Sizes& weight, const Sizes& stride,
                        const Sizes& padding, const Sizes& dilation, int64_t groups, int64_t shuffle_groups) {
  STD_TORCH_CHECK(input.size() == 4 && weight.size() == 4, op, ": expected input and weight with 4 dimensions");
  STD_TORCH_CHECK(stride.size() == 2 && padding.size() == 2 && dilation.size() == 2, op, ": expected pairs");
  for (const Sizes* sizes : {&input, &weight, &stride, &padding, &dilation})
    for (const int64_t size : *sizes)
      STD_TORCH_CHECK(size >= 0 && size < kMaxSize, op, ": expected sizes below 2^31, got ", size);
  STD_TORCH_CHECK(groups > 0 && groups < kMaxSize && input[1] == weight[1] * groups && weight[0] % groups == 0, op,
                  ": expected ", groups, " groups of channels");
  STD_TORCH_CHECK(shuffle_groups > 0 && weight[0] % shuffle_groups == 0, op, ": ", weight[0],
                  " channels are not divisible into ", shuffle_groups, " groups");
  for (int i = 0; i < 2; ++i) {
    STD_TORCH_CHECK(weight[2 + i] > 0 && stride[i] > 0 && dilation[i] > 0, op, ": expected positive sizes");
    STD_TORCH_CHECK(input[2 + i] + 2 * padding[i] >= (weight[2 + i] - 1) * dilation[i] + 1, op,
                    ": the kernel is larger than the padded input");
  }
  const Window window{input[2],
                      input[3],
                      out_size(input[2], weight[2], stride[0], padding[0], dilation[0]),
                      out_size(input[3], weight[3], stride[1], padding[1], dilation[1]),
                      weight[2],
                      weight[3],
                      stride[0],
                      stride[1],
                      padding[0],
                      padding[1],
                      dilation[0],
                      dilation[1],
                      1,
                      1};
  const int64_t out = weight[0], each = out / shuffle_groups;
  Convolution c{window, input[0], groups, weight[1], out / groups, false, evenly_spaced(input[1], 1), Sizes(out)};
  for (int64_t o = 0; o < out; ++o) c.target[o] = o % each * shuffle_groups + o / each;
  return c;
}

Sizes sizes_of(const Tensor& x) {
  Sizes sizes;
  for (int64_t d = 0; d < x.dim(); ++d) sizes.push_back(x.size(d));
  return sizes;
}

// Whether an NHWC tensor is best taken as a list of pixels.
bool by_pixel(const Convolution& c) {
  return c.channels_last && is_flat(c.window) && c.in >= kPixelChannels && c.out >= kPixelChannels;
}

template <typename T>
constexpr ScalarType kAccumulate = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;

template <typename T>
const acc_t<T>* data_of(const std::optional<Tensor>& x) {
  return x ? static_cast<const acc_t<T>*>(x->const_data_ptr()) : nullptr;
}

template <typename T>
void forward(const Convolution& c, const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
             int64_t shuffle_groups, Activation activation, Tensor& out) {
  using A = acc_t<T>;
  const std::optional<Tensor> w = contiguous_as(weight, kAccumulate<T>);
  const std::optional<Tensor> b = bias ? std::optional(contiguous_as(*bias, kAccumulate<T>)) : std::nullopt;
  const auto* from = static_cast<const T*>(input.const_data_ptr());
  auto* to = static_cast<T*>(out.mutable_data_ptr());
  if (!by_pixel(c))
    return convolve_planes(c, from, Weights<A>{data_of<T>(w), c.out * c.terms(), c.terms(), 1}, data_of<T>(b),
                           activation, to);
  const PixelConvolution pixels{c.images * c.in_pixels(), c.groups, c.in, c.out, c.in, 1, shuffle_groups};
  convolve_pixels<T>(pixels, from, data_of<T>(w), true, data_of<T>(b), activation, nullptr, to);
}

Tensor grouped_conv2d_shuffle_cpu(const Tensor& input, const Tensor& weight, std::optional<Tensor> bias, Sizes stride,
                                  Sizes padding, Sizes dilation, int64_t groups, int64_t shuffle_groups, bool relu) {
  constexpr const char* op = "grouped_conv2d_shuffle";
  Convolution c = convolution(op, sizes_of(input), sizes_of(weight), stride, padding, dilation, groups, shuffle_groups);
  STD_TORCH_CHECK(weight.scalar_type() == input.scalar_type() && (!bias || bias->scalar_type() == input.scalar_type()),
                  op, ": expected input, weight and bias of one dtype");
  STD_TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == weight.size(0)), op, ": expected a bias of ",
                  weight.size(0), " elements");
  c.channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  const int64_t channels = weight.size(0);
  const Activation kind = relu ? Activation::relu : Activation::none;
  Tensor out = empty_4d(x, c.images, channels, c.window.out_height, c.window.out_width, c.channels_last);
  if (out.numel() == 0) return out;
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), op, forward<scalar_t>(c, x, weight, bias, shuffle_groups, kind, out));
  return out;
}

Tensor grouped_pointwise_cpu(const Tensor& input, const Tensor& weight, const Tensor& turned,
                             std::optional<Tensor> bias, int64_t groups, int64_t shuffle_groups, int64_t activation,
                             std::optional<Tensor> residual) {
  constexpr const char* op = "grouped_pointwise";
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float && weight.dim() == 4 && weight.size(2) == 1 &&
                      weight.size(3) == 1 && !(residual && shuffle_groups > 1),
                  op, ": expected float input, weight [out, C, 1, 1], and a residual or a shuffle");
  const Convolution c =
      convolution(op, sizes_of(input), sizes_of(weight), {1, 1}, {0, 0}, {1, 1}, groups, shuffle_groups);
  STD_TORCH_CHECK(c.in > 0 && c.out >= kGemmLanes, op, ": expected at least ", kGemmLanes, " filters to a group");
  const Tensor x = dense_as(input, true);
  const int64_t channels = weight.size(0), height = input.size(2), width = input.size(3);
  const std::optional<Tensor> added = checked(op, residual, ScalarType::Float, c.images, channels, height, width);
  Tensor y = empty_4d(x, c.images, channels, height, width, true);
  if (y.numel() == 0) return y;
  const PixelConvolution pixels{c.images * height * width, groups, c.in, c.out, c.in, 1, shuffle_groups};
  convolve_pixels<float>(pixels, static_cast<const float*>(x.const_data_ptr()), floats(op, turned, weight.numel()),
                         false, floats(op, bias, channels), checked(op, activation),
                         added ? static_cast<const float*>(added->const_data_ptr()) : nullptr,
                         static_cast<float*>(y.mutable_data_ptr()));
  return y;
}

// The convolution that gives the gradient of the input of `c`: over its gradient, spread by the stride.
Convolution transposed(const Convolution& c) {
  const Window& w = c.window;
  Convolution t{Window{w.out_height, w.out_width, w.height, w.width, w.kernel_h, w.kernel_w, 1, 1,
                       (w.kernel_h - 1) * w.dilation_h - w.pad_h, (w.kernel_w - 1) * w.dilation_w - w.pad_w,
                       w.dilation_h, w.dilation_w, w.stride_h, w.stride_w},
                c.images,
                c.groups,
                c.out,
                c.in,
                c.channels_last,
                c.target,
                c.source};
  return t;
}

// Weights by channel of the input, then of the result, then the taps from last to first.
template <typename A>
std::vector<A> turned(const Convolution& c, const A* weight) {
  const int64_t taps = c.window.kernel_h * c.window.kernel_w;
  std::vector<A> result(c.groups * c.out * c.in * taps);
  for (int64_t o = 0; o < c.groups * c.out; ++o)
    for (int64_t i = 0; i < c.in; ++i)
      for (int64_t tap = 0; tap < taps; ++tap)
        result[((o / c.out * c.in + i) * c.out + o % c.out) * taps + taps - 1 - tap] =
            weight[(o * c.in + i) * taps + tap];
  return result;
}

// What both gradients need of the convolution and of the gradient of its result.
struct Backward {
  Convolution c;
  Tensor grad;
  PixelConvolution pixels;  // Its in_group and in_step are those of `grad`.

  Backward(const char* op, const Tensor& gradient, const Sizes& input, const Sizes& weight, const Sizes& stride,
           const Sizes& padding, const Sizes& dilation, int64_t groups, int64_t shuffle_groups, bool channels_last)
      : c(convolution(op, input, weight, stride, padding, dilation, groups, shuffle_groups)) {
    STD_TORCH_CHECK(sizes_of(gradient) == Sizes({input[0], weight[0], c.window.out_height, c.window.out_width}), op,
                    ": the gradient has not the shape of the result");
    c.channels_last = channels_last;
    grad = dense_as(gradient, channels_last);
    const bool even = shuffle_groups == groups || shuffle_groups == 1 || shuffle_groups == weight[0];
    // Channels that are not evenly spaced are put in the order in which the convolution gave them.
    if (!even && by_pixel(c)) grad = channel_shuffle_cpu(grad, weight[0] / shuffle_groups);
    const bool spaced = even && shuffle_groups == groups;
    pixels = {c.images * c.in_pixels(), groups, c.in, c.out, spaced ? 1 : c.out, spaced ? groups : 1, 1};
  }
};

template <typename T>
void backward_input(const Backward& b, const Tensor& weight, Tensor& out) {
  using A = acc_t<T>;
  constexpr const A* kNoBias = nullptr;
  const std::optional<Tensor> w = contiguous_as(weight, kAccumulate<T>);
  const auto* from = static_cast<const T*>(b.grad.const_data_ptr());
  auto* to = static_cast<T*>(out.mutable_data_ptr());
  if (by_pixel(b.c)) {
    PixelConvolution pixels = b.pixels;
    std::swap(pixels.in, pixels.out);
    return convolve_pixels<T>(pixels, from, data_of<T>(w), false, kNoBias, Activation::none, nullptr, to);
  }
  const Convolution t = transposed(b.c);
  if (t.terms() == t.in)
    return convolve_planes(t, from, Weights<A>{data_of<T>(w), t.in * t.out, 1, t.out}, kNoBias, Activation::none, to);
  const std::vector<A> turned_weight = turned(b.c, data_of<T>(w));
  convolve_planes(t, from, Weights<A>{turned_weight.data(), t.out * t.terms(), t.terms(), 1}, kNoBias, Activation::none,
                  to);
}

Tensor grouped_conv2d_shuffle_backward_input_cpu(const Tensor& gradient, const Tensor& weight, Sizes input_size,
                                                 Sizes stride, Sizes padding, Sizes dilation, int64_t groups,
                                                 int64_t shuffle_groups, bool channels_last) {
  constexpr const char* op = "grouped_conv2d_shuffle_backward_input";
  const Backward b(op, gradient, input_size, sizes_of(weight), stride, padding, dilation, groups, shuffle_groups,
                   channels_last);
  STD_TORCH_CHECK(weight.scalar_type() == gradient.scalar_type(), op, ": expected gradient and weight of one dtype");
  const Convolution& c = b.c;
  Tensor out = empty_4d(gradient, c.images, input_size[1], c.window.height, c.window.width, channels_last);
  if (out.numel() == 0) return out;
  FASTCNN_DISPATCH_FLOATING(gradient.scalar_type(), op, backward_input<scalar_t>(b, weight, out));
  return out;
}

Tensor grouped_conv2d_shuffle_backward_weight_cpu(const Tensor& gradient, const Tensor& input, Sizes weight_size,
                                                  Sizes stride, Sizes padding, Sizes dilation, int64_t groups,
                                                  int64_t shuffle_groups) {
  constexpr const char* op = "grouped_conv2d_shuffle_backward_weight";
  const bool channels_last = is_channels_last(input);
  const Backward b(op, gradient, sizes_of(input), weight_size, stride, padding, dilation, groups, shuffle_groups,
                   channels_last);
  STD_TORCH_CHECK(input.scalar_type() == gradient.scalar_type(), op, ": expected gradient and input of one dtype");
  const Tensor x = dense(input);
  Tensor out = empty_4d(input, weight_size[0], weight_size[1], weight_size[2], weight_size[3], false);
  if (out.numel() == 0) return out;
  if (x.numel() == 0 || b.grad.numel() == 0) return torch::stable::zero_(out);
  FASTCNN_DISPATCH_FLOATING(gradient.scalar_type(), op, {
    const auto* grad = static_cast<const scalar_t*>(b.grad.const_data_ptr());
    const auto* from = static_cast<const scalar_t*>(x.const_data_ptr());
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    if (by_pixel(b.c))
      weight_gradient_pixels(b.pixels, from, grad, b.pixels.in_group, b.pixels.in_step, to);
    else
      weight_gradient_planes(b.c, from, grad, to);
  });
  return out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("grouped_conv2d_shuffle", TORCH_BOX(&fastcnn::grouped_conv2d_shuffle_cpu));
  m.impl("grouped_pointwise", TORCH_BOX(&fastcnn::grouped_pointwise_cpu));
  m.impl("grouped_conv2d_shuffle_backward_input", TORCH_BOX(&fastcnn::grouped_conv2d_shuffle_backward_input_cpu));
  m.impl("grouped_conv2d_shuffle_backward_weight", TORCH_BOX(&fastcnn::grouped_conv2d_shuffle_backward_weight_cpu));
}
