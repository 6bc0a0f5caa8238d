#include "depthwise_conv2d_kernel.h"

#include "../common/activation.h"
#include "convolve.h"
#include "pack.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

template <Activation kind, typename T>
struct Finish {
  using A = acc_t<T>;
  static constexpr int lanes = kLanes<A>;

  // One row of a plane from the scratch.
  static void row(const A* from, A bias, T* to, T* end, int64_t n) {
    for (int64_t i = 0; i < n; i += lanes)
      store_until(to + i, end, activate<kind, A, lanes>(load<lanes>(from + i) + bias), n - i);
  }

  // n channels of a row of pixels.
  static void pixels(const A* from, const T* bias, T* to, int64_t count, int64_t n, int64_t channels, int64_t step) {
    Vec<A, lanes> b = {};
    for (int64_t i = 0; bias != nullptr && i < n && i < lanes; ++i) b[i] = load<1>(bias + i * step)[0];
    if (n >= lanes && step == 1) {
      for (int64_t i = 0; i < count; ++i, from += lanes, to += channels)
        store<lanes>(to, activate<kind, A, lanes>(load<lanes>(from) + b));
      return;
    }
    for (int64_t i = 0; i < count; ++i, from += lanes, to += channels)
      unpack_lanes(activate<kind, A, lanes>(load<lanes>(from) + b), to, n, step);
  }
};

template <Activation kind, typename T>
void forward_plane(const T* x, const T* x_end, const T* weight, const T* bias, T* out, const DepthwisePlan& p,
                   acc_t<T>* scratch) {
  using A = acc_t<T>;
  A* in = scratch;
  A* sums = in + p.stride_h * p.stride_w * p.phase_cells;
  A* weights = sums + p.tile * p.pitch + kDepthwiseSlack;
  const int64_t pixels = p.out_height * p.out_width;
  for (int64_t first = 0; first < p.out_height; first += p.tile) {
    const int64_t rows = p.out_height - first < p.tile ? p.out_height - first : p.tile;
    pack_input(x, x_end, 1, p, first, rows + p.reach_h, in, 0);
    for (int64_t m = 0; m < p.multiplier; ++m) {
      pack_weights(weight + m * p.taps, 1, 1, p, weights);
      convolve<false>(in, p.x_offset, weights, p.taps, sums, (rows * p.pitch + kLanes<A> - 1) / kLanes<A>, false);
      const A b = bias == nullptr ? A(0) : load<1>(bias + m)[0];
      T* to = out + m * pixels + first * p.out_width;
      for (int64_t r = 0; r < rows; ++r)
        Finish<kind, T>::row(sums + r * p.pitch, b, to + r * p.out_width, to + rows * p.out_width, p.out_width);
    }
  }
}

// A tile of a group of n channels. Weights are packed already, multiplier by multiplier and slab by slab.
template <Activation kind, typename T>
void forward_group(const T* x, const T* x_end, const acc_t<T>* weights, const T* bias, T* out, int64_t n,
                   const DepthwisePlan& p, int64_t first, acc_t<T>* scratch) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t slab = p.stride_h * p.stride_w * p.phase_cells * lanes, channels = p.channels * p.multiplier;
  A* sums = scratch + slab * (kDepthwiseGroup / lanes);
  const int64_t rows = p.out_height - first < p.tile ? p.out_height - first : p.tile;
  pack_input(x, x_end, n, p, first, rows + p.reach_h, scratch, slab);
  for (int64_t m = 0; m < p.multiplier; ++m) {
    for (int64_t c = 0; c < n; c += lanes, weights += p.taps * lanes) {
      const T* b = bias == nullptr ? nullptr : bias + c * p.multiplier + m;
      for (int64_t r = 0; r < rows; ++r) {
        convolve<true>(scratch + c / lanes * slab + r * p.pitch * lanes, p.x_offset, weights, p.taps, sums, p.out_width,
                       false);
        Finish<kind, T>::pixels(sums, b, out + (first + r) * p.out_width * channels + c * p.multiplier + m, p.out_width,
                                n - c, channels, p.multiplier);
      }
    }
  }
}

template <Activation kind, typename T>
void forward_tasks(const T* x, const T* weight, const T* bias, T* out, const DepthwisePlan& p, int64_t begin,
                   int64_t end, acc_t<T>* scratch) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t in_pixels = p.height * p.width, out_pixels = p.out_height * p.out_width;
  const T* x_end = x + p.images * p.channels * in_pixels;
  if (!p.channels_last) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t channel = task % p.channels * p.multiplier;
      forward_plane<kind>(x + task * in_pixels, x_end, weight + channel * p.taps,
                          bias == nullptr ? nullptr : bias + channel, out + task * p.multiplier * out_pixels, p,
                          scratch);
    }
    return;
  }
  const int64_t groups = depthwise_groups(p);
  const int64_t tiles = (p.out_height + p.tile - 1) / p.tile;
  const int64_t slots = groups < end - begin ? groups : end - begin;
  const int64_t slot = kDepthwiseGroup * p.multiplier * p.taps;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / groups / tiles, tile = task / groups % tiles, c = task % groups * kDepthwiseGroup;
    const int64_t n = p.channels - c < kDepthwiseGroup ? p.channels - c : kDepthwiseGroup;
    const int64_t channel = c * p.multiplier;
    A* weights = scratch + task % groups % slots * slot;
    const T* from = x + image * p.channels * in_pixels + c;
    const T* b = bias == nullptr ? nullptr : bias + channel;
    T* to_image = out + image * p.channels * p.multiplier * out_pixels + channel;
    if (task - begin < slots) {
      A* to = weights;
      for (int64_t m = 0; m < p.multiplier; ++m)
        for (int64_t i = 0; i < n; i += lanes, to += p.taps * lanes)
          pack_weights(weight + (channel + i * p.multiplier + m) * p.taps, n - i, p.multiplier, p, to);
    }
    forward_group<kind>(from, x_end, weights, b, to_image, n, p, tile * p.tile, scratch + slots * slot);
  }
}

}  // namespace

template <typename T>
void depthwise_forward(const T* x, const T* weight, const T* bias, T* out, const DepthwisePlan& plan,
                       Activation activation, int64_t begin, int64_t end, acc_t<T>* scratch) {
  const auto run = [&]<Activation kind>() { forward_tasks<kind>(x, weight, bias, out, plan, begin, end, scratch); };
  switch (activation) {
    case Activation::none:
      return run.template operator()<Activation::none>();
    case Activation::relu:
      return run.template operator()<Activation::relu>();
    case Activation::relu6:
      return run.template operator()<Activation::relu6>();
    case Activation::hardswish:
      return run.template operator()<Activation::hardswish>();
    case Activation::silu:
      return run.template operator()<Activation::silu>();
  }
}

#define INSTANTIATE(T)                                                                                            \
  template void depthwise_forward<T>(const T*, const T*, const T*, T*, const DepthwisePlan&, Activation, int64_t, \
                                     int64_t, acc_t<T>*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
