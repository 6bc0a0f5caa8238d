#include <algorithm>
#include <memory>
#include <vector>

#include "../common/tensor.h"
#include "depthwise_conv2d_kernel.h"

namespace fastcnn {
namespace {

using Sizes = std::vector<int64_t>;

constexpr int64_t kTaskWork = 1 << 19;  // Products, and as many again for moving, that make a second thread pay.
constexpr int64_t kMovedPerCell = 16;
constexpr int64_t kMaxStride = 64, kMaxSize = int64_t(1) << 31;
// What a tile's copy of the input may take, so that it is still in L1 (planes) or L2 (groups) when it is read.
constexpr int64_t kPlaneBytes = 24 << 10, kGroupBytes = 100 << 10, kDirectBytes = 128 << 10, kStagedBytes = 300 << 10;
constexpr int64_t kCacheSetBytes = 4096;  // Pixels this far apart, or a multiple, share one set of L1.
constexpr int64_t kPlaneRows = 28;        // Tiles of planes are multiples, as maps and blocks of rows are.

struct Axis {
  int64_t in, kernel, stride, low, high, dilation, out;

  Axis(const char* op, int64_t in, int64_t kernel, int64_t stride, int64_t low, int64_t high, int64_t dilation)
      : in(in), kernel(kernel), stride(stride), low(low), high(high), dilation(dilation) {
    STD_TORCH_CHECK(kernel >= 1 && kernel < kMaxSize && stride >= 1 && stride <= kMaxStride && low >= 0 && high >= 0 &&
                        dilation >= 1 && low < kMaxSize && high < kMaxSize && dilation < kMaxSize,
                    op, ": bad kernel size, stride (at most 64), padding or dilation");
    const int64_t span = in + low + high - dilation * (kernel - 1) - 1;
    STD_TORCH_CHECK(in >= 1 && span >= 0, op, ": the kernel is larger than the padded input");
    out = span / stride + 1;
  }

  int64_t reach() const { return (kernel - 1) * dilation / stride; }
  int64_t cells() const { return std::max(out + reach(), (low + in - 1) / stride + 1); }
};

// The plan, and the memory it points into.
struct OwnedPlan {
  DepthwisePlan plan{};
  int64_t packed_tile;
  Sizes order, x_offset, shift, phase_first;

  OwnedPlan(const char* op, const Tensor& input, const Tensor& weight, const Sizes& stride, const Sizes& padding,
            const Sizes& dilation) {
    // fastcnn.ops says so better; who calls the op itself must not read past the end.
    STD_TORCH_CHECK(input.dim() == 4 && weight.dim() == 4 && weight.size(1) == 1 && input.size(1) > 0 &&
                        weight.size(0) > 0 && weight.size(0) % input.size(1) == 0 &&
                        weight.scalar_type() == input.scalar_type() && stride.size() == 2 && padding.size() == 4 &&
                        dilation.size() == 2,
                    op, ": expected input [N, C, H, W] and weight [C * M, 1, h, w] of one dtype");
    const Axis y(op, input.size(2), weight.size(2), stride[0], padding[0], padding[1], dilation[0]);
    const Axis x(op, input.size(3), weight.size(3), stride[1], padding[2], padding[3], dilation[1]);
    DepthwisePlan& p = plan;
    p.channels_last = is_channels_last(input);
    p.images = input.size(0);
    p.channels = input.size(1);
    p.multiplier = weight.size(0) / p.channels;
    p.height = y.in, p.width = x.in, p.out_height = y.out, p.out_width = x.out;
    p.stride_h = y.stride, p.stride_w = x.stride, p.pad_top = y.low, p.pad_left = x.low;
    p.kernel_h = y.kernel, p.kernel_w = x.kernel, p.taps = y.kernel * x.kernel;
    p.dilation_h = y.dilation;
    p.reach_h = y.reach(), p.reach_w = x.reach();
    p.pitch = x.cells();
    p.rows = std::max(y.out, (y.low + y.in - 1) / y.stride + 1);
    const int64_t row_bytes = p.stride_h * p.stride_w * p.pitch * 4 * (p.channels_last ? kDepthwiseGroup : 1);
    const int64_t fitting = (p.channels_last ? kGroupBytes : kPlaneBytes) / row_bytes - p.reach_h;
    p.tile = packed_tile = std::min(p.out_height, std::max({fitting, 2 * p.reach_h, int64_t(4)}));
    p.direct = p.channels_last && p.multiplier == 1 && x.dilation == 1 && x.stride <= 2 &&
               (x.kernel == 3 || x.kernel == 5 || x.kernel == 7) && p.taps <= kDirectTaps;
    p.step = p.channels;
    if (p.direct) {
      const int64_t size = input.element_size(), pixel = p.channels * size, row = p.width * pixel * y.stride;
      // Wider padding than kernels need would move the rows of a tile's input away from those of its output.
      const bool staged = pixel % kCacheSetBytes == 0 && std::max(y.low, y.high) < y.kernel;
      if (staged) p.step += 64 / size;
      p.tile =
          std::clamp((staged ? kStagedBytes : kDirectBytes) / row, std::min<int64_t>(4, p.out_height), p.out_height);
    }
    p.planes = !p.channels_last && p.multiplier == 1 && y.dilation == 1 && x.dilation == 1 && y.stride == x.stride &&
               y.kernel == x.kernel &&
               (((y.kernel == 3 || y.kernel == 5) && y.stride <= 2) || (y.kernel == 7 && y.stride == 1));
    if (p.planes) {
      const int64_t row = p.out_width * y.stride * int64_t(sizeof(float));
      p.tile = std::max(kPlaneBytes / row / kPlaneRows, int64_t(1)) * kPlaneRows;
      p.group = std::clamp(p.channels / 16, int64_t(1), int64_t(16));
      const auto vectors = [](int64_t n) { return (n + 15) & -16; };
      p.copy_pitch = std::max(x.low + x.in, x.stride * vectors(x.out)) + kDepthwiseSlack;
      p.grad_pitch = vectors(std::max(x.out, (x.low + x.in) / x.stride + 1)) + kDepthwiseSlack;
    }
    p.phase_cells = (p.tile + p.reach_h) * p.pitch + p.reach_w + kDepthwiseSlack;
    for (int64_t phase_y = 0; phase_y < y.stride; ++phase_y) {
      for (int64_t phase_x = 0; phase_x < x.stride; ++phase_x) {
        phase_first.push_back(int64_t(order.size()));
        for (int64_t ky = 0; ky < y.kernel; ++ky) {
          for (int64_t kx = 0; kx < x.kernel; ++kx) {
            if (ky * y.dilation % y.stride != phase_y || kx * x.dilation % x.stride != phase_x) continue;
            const int64_t at = ky * y.dilation / y.stride * p.pitch + kx * x.dilation / x.stride;
            order.push_back(ky * x.kernel + kx);
            x_offset.push_back((phase_y * x.stride + phase_x) * p.phase_cells + at);
            shift.push_back(-at);
          }
        }
      }
    }
    phase_first.push_back(int64_t(order.size()));
    p.order = order.data(), p.x_offset = x_offset.data(), p.shift = shift.data(), p.phase_first = phase_first.data();
  }
};

// Of one task of `cells` output cells.
int64_t grain_for(const DepthwisePlan& p, int64_t cells) {
  const int64_t channels = p.direct ? p.channels : p.channels_last ? std::min(kDepthwiseGroup, p.channels) : 1;
  return std::max<int64_t>(kTaskWork / (cells * channels * p.multiplier * (p.taps + kMovedPerCell)), 1);
}

// How a direct plan writes a result: around the caches if it is large and every vector is a whole line of memory.
void plan_writes(const Tensor& to, DepthwisePlan& p) {
  constexpr int64_t kLine = 64, kLarge = 4 << 20;
  const int64_t size = to.element_size(), lanes = isa() == Isa::avx512 ? kLine / std::max<int64_t>(size, 4) : 0;
  p.large = to.numel() * size >= kLarge;
  p.streams = p.direct && p.large && lanes * size == kLine && p.channels * size % kLine == 0 &&
              reinterpret_cast<uintptr_t>(to.const_data_ptr()) % kLine == 0;
}

template <typename A>
std::unique_ptr<A[]> make_scratch(int64_t elements) {
  return std::make_unique_for_overwrite<A[]>(elements);
}

// Vectors of channels should not straddle cache lines.
template <typename A>
A* aligned(A* at) {
  return reinterpret_cast<A*>((reinterpret_cast<uintptr_t>(at) + 63) & ~uintptr_t(63));
}

Tensor dense_as(const Tensor& x, bool channels_last) {
  return torch::stable::contiguous(x, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

Tensor depthwise_conv2d_cpu(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, Sizes stride,
                            Sizes padding, Sizes dilation, int64_t activation) {
  OwnedPlan owned("depthwise_conv2d", input, weight, stride, padding, dilation);
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
  OwnedPlan owned("depthwise_conv2d_backward", input, weight, stride, padding, dilation);
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
