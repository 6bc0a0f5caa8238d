#include <algorithm>
#include <memory>
#include <vector>

#include "plan.h"

namespace fastcnn {
namespace {

// How a direct plan writes a result: around the caches if it is large and every vector is a whole line of memory.
void plan_writes(const Tensor& to, DepthwisePlan& p) {
  constexpr int64_t kLine = 64, kLarge = 4 << 20;
  const int64_t size = to.element_size(), lanes = isa() == Isa::avx512 ? kLine / std::max<int64_t>(size, 4) : 0;
  p.large = to.numel() * size >= kLarge;
  p.streams = p.direct && p.large && lanes * size == kLine && p.channels * size % kLine == 0 &&
              reinterpret_cast<uintptr_t>(to.const_data_ptr()) % kLine == 0;
}

OwnedPlan plan_of(const char* op, const Tensor& input, const Tensor& weight, const Sizes& stride, const Sizes& padding,
                  const Sizes& dilation) {
  // fastcnn.ops says so better; who calls the op itself must not read past the end.
  STD_TORCH_CHECK(input.dim() == 4 && weight.dim() == 4 && weight.size(1) == 1 && input.size(1) > 0 &&
                      weight.size(0) > 0 && weight.size(0) % input.size(1) == 0 &&
                      weight.scalar_type() == input.scalar_type() && stride.size() == 2 && padding.size() == 4 &&
                      dilation.size() == 2,
                  op, ": expected input [N, C, H, W] and weight [C * M, 1, h, w] of one dtype");
  return OwnedPlan(op, {input.size(0), input.size(1), input.size(2), input.size(3)}, is_channels_last(input),
                   input.element_size(), {weight.size(0), weight.size(2), weight.size(3)}, stride, padding, dilation);
}

Tensor depthwise_conv2d_cpu(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, Sizes stride,
                            Sizes padding, Sizes dilation, int64_t activation) {
  OwnedPlan owned = plan_of("depthwise_conv2d", input, weight, stride, padding, dilation);
  DepthwisePlan& p = owned.plan;
  STD_TORCH_CHECK(activation >= 0 && activation <= int64_t(Activation::silu), "depthwise_conv2d: no such activation");
  STD_TORCH_CHECK(
      !bias || (bias->dim() == 1 && bias->size(0) == weight.size(0) && bias->scalar_type() == input.scalar_type()),
      "depthwise_conv2d: expected one bias for each output channel");
  const Tensor x = dense(input), w = contiguous_as(weight, input.scalar_type());
  const Tensor b = bias ? contiguous_as(*bias, input.scalar_type()) : w;
  Tensor out = empty_4d(x, p.images, p.channels * p.multiplier, p.out_height, p.out_width, p.channels_last);
  plan_writes(out, p);
  const int64_t tiles = p.channels_last ? (p.out_height + p.tile - 1) / p.tile : 1;
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "depthwise_conv2d", {
    using A = acc_t<scalar_t>;
    const auto kernel = p.planes   ? FASTCNN_SELECT(depthwise_planes_forward<scalar_t>)
                        : p.direct ? FASTCNN_SELECT(depthwise_direct_forward<scalar_t>)
                                   : FASTCNN_SELECT(depthwise_forward<scalar_t>);
    const auto* x_ptr = static_cast<const scalar_t*>(x.const_data_ptr());
    const auto* w_ptr = static_cast<const scalar_t*>(w.const_data_ptr());
    const auto* b_ptr = bias ? static_cast<const scalar_t*>(b.const_data_ptr()) : nullptr;
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    const int64_t grain = grain_for(p, p.out_width * (p.channels_last ? p.tile : p.out_height));
    torch::stable::parallel_for(0, p.images * tiles * depthwise_groups(p), grain, [&](int64_t begin, int64_t end) {
      const auto scratch =
          make_scratch<A>(p.planes ? depthwise_planes_scratch(p, false) : depthwise_forward_scratch(p, end - begin));
      kernel(x_ptr, w_ptr, b_ptr, to, p, Activation(activation), begin, end, aligned(scratch.get()));
    });
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> depthwise_conv2d_backward_cpu(const Tensor& grad, const Tensor& input,
                                                                 const Tensor& weight, Sizes stride, Sizes padding,
                                                                 Sizes dilation, bool need_input, bool need_weight,
                                                                 bool need_bias) {
  OwnedPlan owned = plan_of("depthwise_conv2d_backward", input, weight, stride, padding, dilation);
  DepthwisePlan& p = owned.plan;
  p.sums_bias = need_bias;
  // The gradient of the input takes the stride apart by rows too.
  if (p.direct && (p.dilation_h != 1 || p.stride_h != p.stride_w)) p.direct = false;
  if (!p.direct && !p.planes) p.tile = owned.packed_tile;
  const int64_t out_channels = p.channels * p.multiplier;
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == p.images && grad.size(1) == out_channels &&
                      grad.size(2) == p.out_height && grad.size(3) == p.out_width &&
                      grad.scalar_type() == input.scalar_type(),
                  "depthwise_conv2d_backward: grad is not of the output's shape and dtype");
  const Tensor x = dense(input), g = dense_as(grad, p.channels_last);
  const Tensor w = contiguous_as(weight, input.scalar_type());
  const auto make = [&](bool needed, std::initializer_list<int64_t> sizes) {
    return torch::stable::empty(needed ? sizes : std::initializer_list<int64_t>{0}, x.scalar_type(), std::nullopt,
                                x.device());
  };
  Tensor grad_input =
      need_input ? empty_4d(x, p.images, p.channels, p.height, p.width, p.channels_last) : make(false, {});
  plan_writes(grad_input, p);
  Tensor grad_weight = make(need_weight, {out_channels, 1, p.kernel_h, p.kernel_w});
  Tensor grad_bias = make(need_bias, {out_channels});
  const int64_t groups = p.planes ? (p.channels + p.group - 1) / p.group : depthwise_groups(p);
  const int64_t units = p.images * (p.planes ? 1 : (p.rows + p.tile - 1) / p.tile);
  const int64_t grain = grain_for(p, p.out_width * (p.planes ? p.out_height * p.group : p.tile));
  // A group's sum is split only where there are too few groups to share out; by shapes, never by threads.
  const int64_t chunks = std::clamp<int64_t>((16 + groups - 1) / groups, 1, std::max<int64_t>(units / grain, 1));
  const int64_t group_grain = std::max<int64_t>(grain * chunks / std::max<int64_t>(units, 1), 1);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "depthwise_conv2d_backward", {
    using A = acc_t<scalar_t>;
    const auto kernel = p.planes   ? FASTCNN_SELECT(depthwise_planes_backward<scalar_t>)
                        : p.direct ? FASTCNN_SELECT(depthwise_direct_backward<scalar_t>)
                                   : FASTCNN_SELECT(depthwise_backward<scalar_t>);
    const auto* g_ptr = static_cast<const scalar_t*>(g.const_data_ptr());
    const auto* x_ptr = static_cast<const scalar_t*>(x.const_data_ptr());
    const auto* w_ptr = static_cast<const scalar_t*>(w.const_data_ptr());
    auto* to = need_input ? static_cast<scalar_t*>(grad_input.mutable_data_ptr()) : nullptr;
    const bool summed = need_weight || need_bias;
    const int64_t stored = depthwise_sums(p);
    const auto partial_memory = make_scratch<A>(summed ? chunks * stored + kDepthwiseSlack : 0);
    A* const partial = aligned(partial_memory.get());
    torch::stable::parallel_for(0, groups * chunks, group_grain, [&](int64_t begin, int64_t end) {
      const auto scratch =
          make_scratch<A>(p.planes ? depthwise_planes_scratch(p, true) : depthwise_backward_scratch(p));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t group = task / chunks, chunk = task % chunks;
        kernel(g_ptr, x_ptr, w_ptr, to, summed ? partial + chunk * stored : nullptr, p, group, units * chunk / chunks,
               units * (chunk + 1) / chunks, aligned(scratch.get()));
      }
    });
    if (summed) {
      const auto reduce =
          p.direct ? FASTCNN_SELECT(depthwise_direct_reduce<scalar_t>) : FASTCNN_SELECT(depthwise_reduce<scalar_t>);
      auto* w_to = need_weight ? static_cast<scalar_t*>(grad_weight.mutable_data_ptr()) : nullptr;
      auto* b_to = need_bias ? static_cast<scalar_t*>(grad_bias.mutable_data_ptr()) : nullptr;
      const int64_t parts = (out_channels + kDepthwiseGroup - 1) / kDepthwiseGroup;
      const int64_t part_grain = (1 << 16) / (chunks * kDepthwiseGroup * (p.taps + 1)) + 1;
      torch::stable::parallel_for(0, parts, part_grain, [&](int64_t begin, int64_t end) {
        reduce(partial, chunks, p, w_to, b_to, begin * kDepthwiseGroup, std::min(end * kDepthwiseGroup, out_channels));
      });
    }
  });
  return {grad_input, grad_weight, grad_bias};
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("depthwise_conv2d", TORCH_BOX(&fastcnn::depthwise_conv2d_cpu));
  m.impl("depthwise_conv2d_backward", TORCH_BOX(&fastcnn::depthwise_conv2d_backward_cpu));
}
