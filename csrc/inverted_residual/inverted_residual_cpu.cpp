#include "../depthwise_conv2d/plan.h"
#include "../pointwise_conv2d/pointwise.h"

namespace fastcnn {
namespace {

constexpr int64_t kBandBytes = 400 << 10;   // Of the expanded map; it stays in L2 until it is read.
constexpr int64_t kBandedPixels = 28 * 28;  // Smaller maps of a single image have too few rows to share out.

struct Dense {
  const float* packed = nullptr;
  const float* bias = nullptr;
  Activation activation = Activation::none;
};

// 1x1 convolution, depthwise convolution, 1x1 convolution; the first or the last may be missing. NHWC, float32.
struct Block {
  const DepthwisePlan& plan;  // Of images and rows; its tiles are bands.
  int64_t in, out;
  const float* x;
  int64_t x_row;
  Dense expand, project;
  const float* weight;
  const float* bias;
  Activation activation;
  const float* residual;
  float* y;

  Pointwise<float> expansion(float* to) const {
    const Panels panels(in, plan.channels);
    return {plan.images * plan.height * plan.width,
            panels,
            x,
            x_row,
            expand.packed,
            expand.bias,
            nullptr,
            expand.activation,
            to};
  }
  Pointwise<float> projection(const float* from) const {
    const Panels panels(plan.channels, out);
    return {plan.images * plan.out_height * plan.out_width,
            panels,
            from,
            plan.channels,
            project.packed,
            project.bias,
            residual,
            project.activation,
            y};
  }

  // One after the other, each shared out among all threads.
  void run_in_turn() const {
    const DepthwisePlan& p = plan;
    const int64_t tiles = (p.out_height + p.tile - 1) / p.tile;
    const auto expanded = make_scratch<float>(expand.packed ? p.images * p.height * p.width * p.channels : 0);
    const auto filtered = make_scratch<float>(project.packed ? p.images * p.out_height * p.out_width * p.channels : 0);
    if (expand.packed) expansion(expanded.get()).run();
    const float* const from = expand.packed ? expanded.get() : x;
    float* const to = project.packed ? filtered.get() : y;
    const auto kernel = FASTCNN_SELECT(depthwise_direct_forward<float>);
    torch::stable::parallel_for(0, p.images * tiles, grain_for(p, p.out_width * p.tile),
                                [&](int64_t begin, int64_t end) {
                                  const auto scratch = make_scratch<float>(depthwise_forward_scratch(p, end - begin));
                                  kernel(from, weight, bias, to, p, activation, begin, end, aligned(scratch.get()));
                                });
    if (project.packed) projection(filtered.get()).run();
  }

  // Band by band, in memory that stays in L2; rows that the next band needs too are kept.
  void run_banded() const {
    const DepthwisePlan& p = plan;
    const int64_t bands = (p.out_height + p.tile - 1) / p.tile, row = p.width * p.channels;
    const int64_t most_rows = std::min((p.tile - 1) * p.stride_h + p.kernel_h, p.height);
    const auto kernel = FASTCNN_SELECT(depthwise_direct_forward<float>);
    torch::stable::parallel_for(0, p.images * bands, 1, [&](int64_t begin, int64_t end) {
      const auto scratch = make_scratch<float>(depthwise_forward_scratch(p, 1));
      const auto expanded = make_scratch<float>(expand.packed ? most_rows * row : 0);
      const auto filtered = make_scratch<float>(project.packed ? p.tile * p.out_width * p.channels : 0);
      int64_t kept_from = 0, kept_to = 0;  // Rows, counted through all images, that lie in `expanded`.
      for (int64_t task = begin; task < end; ++task) {
        const int64_t image = task / bands, top = task % bands * p.tile;
        const int64_t count = std::min(p.tile, p.out_height - top), above = top * p.stride_h - p.pad_top;
        const int64_t low = image * p.height + std::clamp<int64_t>(above, 0, p.height);
        const int64_t below = above + (count - 1) * p.stride_h + p.kernel_h;
        const int64_t high = std::max(low, image * p.height + std::clamp<int64_t>(below, 0, p.height));
        const float* from = x;
        if (expand.packed) {
          const bool keeps = kept_from <= low && low < kept_to;
          if (keeps)
            memmove(expanded.get(), expanded.get() + (low - kept_from) * row, (kept_to - low) * row * sizeof(float));
          const int64_t first = keeps ? std::min(kept_to, high) : low;
          float* const base = expanded.get() - low * row;
          if (first < high) expansion(base).run_pixels(first * p.width, (high - first) * p.width);
          kept_from = low, kept_to = std::max(first, high);
          from = base;
        }
        const int64_t pixel = (image * p.out_height + top) * p.out_width;
        float* const to = project.packed ? filtered.get() - pixel * p.channels : y;
        kernel(from, weight, bias, to, p, activation, task, task + 1, aligned(scratch.get()));
        if (project.packed) projection(to).run_pixels(pixel, count * p.out_width);
      }
    });
  }
};

Tensor inverted_residual_cpu(const Tensor& input, std::optional<Tensor> expand, std::optional<Tensor> expand_packed,
                             std::optional<Tensor> expand_bias, int64_t expand_activation, const Tensor& weight,
                             std::optional<Tensor> bias, std::vector<int64_t> stride, std::vector<int64_t> padding,
                             int64_t activation, std::optional<Tensor> project, std::optional<Tensor> project_packed,
                             std::optional<Tensor> project_bias, int64_t project_activation,
                             std::optional<Tensor> residual) {
  constexpr const char* op = "inverted_residual";
  STD_TORCH_CHECK(input.dim() == 4 && input.scalar_type() == ScalarType::Float && weight.dim() == 4 &&
                      weight.size(1) == 1 && stride.size() == 2 && padding.size() == 4 &&
                      expand.has_value() == expand_packed.has_value() &&
                      project.has_value() == project_packed.has_value(),
                  op, ": expected float input [N, C, H, W], weight [C', 1, h, w] and packed weights");
  const int64_t in = input.size(1), channels = weight.size(0);
  const int64_t out = project ? project->size(0) : channels;
  STD_TORCH_CHECK(in > 0 && (expand ? channels >= kGemmLanes : channels == in) && (!project || out >= kGemmLanes), op,
                  ": expected at least ", kGemmLanes, " channels of every 1x1 convolution");
  const int64_t row_of_wider = expand ? pixel_row(input) : 0;
  const Tensor x = row_of_wider ? input : dense_as(input, true);
  OwnedPlan owned(op, {x.size(0), channels, x.size(2), x.size(3)}, true, sizeof(float),
                  {channels, weight.size(2), weight.size(3)}, stride, padding, {1, 1});
  DepthwisePlan& p = owned.plan;
  STD_TORCH_CHECK(p.direct, op, ": expected a kernel of width 3, 5 or 7 at a stride of 1 or 2");
  const int64_t pixels = p.images * p.out_height * p.out_width;
  Tensor y = empty_4d(input, p.images, out, p.out_height, p.out_width, true);
  STD_TORCH_CHECK(project || !residual, op, ": a residual needs a projection to be added to");
  const std::optional<Tensor> added =
      checked(op, residual, ScalarType::Float, p.images, out, p.out_height, p.out_width);
  const Block block{
      p,
      in,
      out,
      static_cast<const float*>(x.const_data_ptr()),
      row_of_wider ? row_of_wider : in,
      {floats(op, expand_packed, in * channels), floats(op, expand_bias, channels), checked(op, expand_activation)},
      {floats(op, project_packed, channels * out), floats(op, project_bias, out), checked(op, project_activation)},
      floats(op, weight, channels * p.taps),
      floats(op, bias, channels),
      checked(op, activation),
      added ? static_cast<const float*>(added->const_data_ptr()) : nullptr,
      static_cast<float*>(y.mutable_data_ptr())};
  if (pixels == 0) return y;
  const int64_t threads = int64_t(torch::stable::get_num_threads());
  if (p.images < threads && p.out_height * p.out_width < kBandedPixels) {
    block.run_in_turn();
  } else {
    const int64_t row = p.width * channels * int64_t(sizeof(float));
    const int64_t fits = std::max<int64_t>((kBandBytes / row - (p.kernel_h - p.stride_h)) / p.stride_h, 1);
    const int64_t wanted = std::max((p.out_height + fits - 1) / fits, (threads + p.images - 1) / p.images);
    p.tile = (p.out_height + wanted - 1) / wanted;
    block.run_banded();
  }
  return y;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) { m.impl("inverted_residual", TORCH_BOX(&fastcnn::inverted_residual_cpu)); }
