#pragma once

// How a depthwise convolution is shared out, from the sizes of its tensors.

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

  // `input` as N, C, H, W; of the filters their number, height and width.
  OwnedPlan(const char* op, const Sizes& input, bool channels_last, int64_t element_size, const Sizes& filters,
            const Sizes& stride, const Sizes& padding, const Sizes& dilation) {
    const Axis y(op, input[2], filters[1], stride[0], padding[0], padding[1], dilation[0]);
    const Axis x(op, input[3], filters[2], stride[1], padding[2], padding[3], dilation[1]);
    DepthwisePlan& p = plan;
    p.channels_last = channels_last;
    p.images = input[0];
    p.channels = input[1];
    p.multiplier = filters[0] / p.channels;
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
      const int64_t size = element_size, pixel = p.channels * size, row = p.width * pixel * y.stride;
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

template <typename A>
std::unique_ptr<A[]> make_scratch(int64_t elements) {
  return std::make_unique_for_overwrite<A[]>(elements);
}

// Vectors of channels should not straddle cache lines.
template <typename A>
A* aligned(A* at) {
  return reinterpret_cast<A*>((reinterpret_cast<uintptr_t>(at) + 63) & ~uintptr_t(63));
}

}  // namespace
}  // namespace fastcnn
