#include "convolve.h"
#include "depthwise_conv2d_kernel.h"
#include "pack.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Where a task's copies lie in the scratch.
template <typename A>
struct Scratch {
  A *in, *grad_in, *grad, *weights, *sums;

  Scratch(A* at, const DepthwisePlan& p) {
    const int64_t width = p.channels_last ? kDepthwiseGroup : 1, cells = p.stride_h * p.stride_w * p.phase_cells;
    in = at;
    grad_in = in + width * cells;
    grad = grad_in + width * cells;
    weights = grad + width * ((p.tile + p.reach_h) * p.pitch + p.reach_w + 2 * kDepthwiseSlack);
    sums = weights + kDepthwiseGroup * p.multiplier * p.taps;
  }
};

// Rows [first, first + count) of cells of the gradient of one output channel or vector of them: 0 outside the map, in
// the gaps between rows, and where vectors and taps reach beyond the ends. Cell 0 of the first row is at `to`.
template <typename T>
void pack_grad(const T* grad, const T* end, int64_t n, const DepthwisePlan& p, int64_t first, int64_t count,
               acc_t<T>* to) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t cell = p.channels_last ? lanes : 1, channels = p.channels * p.multiplier;
  zero(to - p.reach_w * cell, p.reach_w * cell);
  for (int64_t r = 0; r < count; ++r) {
    const int64_t y = first + r;
    A* row = to + r * p.pitch * cell;
    if (y < 0 || y >= p.out_height) {
      zero(row, p.pitch * cell);
      continue;
    }
    if (p.channels_last)
      for (int64_t c = 0; c < p.out_width; ++c)
        pack_pixel(grad + (y * p.out_width + c) * channels, n < lanes ? n : lanes, p.multiplier, row + c * lanes, 0);
    else
      copy_in(grad + y * p.out_width, end, p.out_width, row);
    zero(row + p.out_width * cell, (p.pitch - p.out_width) * cell);
  }
  if (!p.channels_last) zero(to + count * p.pitch, kDepthwiseSlack);
}

// Adds up the gradient of the bias of one output channel or vector of them.
template <typename A>
void sum_grad(const A* grad, int64_t vectors, A* sums) {
  constexpr int lanes = kLanes<A>;
  Vec<A, lanes> sum[4] = {};
  for (int64_t i = 0; i < vectors; ++i) sum[i % 4] += load<lanes>(grad + i * lanes);
  store<lanes>(sums, load<lanes>(sums) + ((sum[0] + sum[1]) + (sum[2] + sum[3])));
}

// One tile of one plane, or of one vector of n channels of a group, all multipliers; in: packed if partial sums are
// wanted. Leaves the gradient of the input in grad_in.
template <bool kLast, typename T>
void tile_gradients(const T* grad, const T* grad_end, int64_t n, const DepthwisePlan& p, int64_t first, int64_t rows,
                    const acc_t<T>* in, const acc_t<T>* weights, acc_t<T>* packed_grad, acc_t<T>* grad_in,
                    acc_t<T>* sums) {
  using A = acc_t<T>;
  constexpr int64_t lanes = kLanes<A>, cell = kLast ? lanes : 1;
  const int64_t phases = p.stride_h * p.stride_w;
  const int64_t own = p.out_height - first < rows ? p.out_height - first : rows;  // Of the output, may be negative.
  const int64_t pixels = p.out_height * p.out_width;
  A* const grad_begin = packed_grad + (p.reach_w + kDepthwiseSlack) * cell;
  A* const grad_own = grad_begin + p.reach_h * p.pitch * cell;
  for (int64_t m = 0; m < p.multiplier; ++m) {
    pack_grad(grad + (kLast ? m : m * pixels), grad_end, n, p, first - p.reach_h, rows + p.reach_h, grad_begin);
    if (sums != nullptr && own > 0) {
      // Rows of channels skip the gap; planes run over it, and the zeros in it.
      const int64_t runs = kLast ? own : 1, length = kLast ? p.out_width : (own * p.pitch + lanes - 1) / lanes;
      correlate<kLast>(in, grad_own, p.x_offset, p.taps, runs, length, p.pitch * cell, sums);
      if (p.sums_bias) sum_grad(grad_own, kLast ? own * p.pitch : length, sums + p.taps * lanes);
      sums += (p.taps + 1) * lanes;
    }
    if (grad_in == nullptr) continue;
    for (int64_t phase = 0; phase < phases; ++phase) {
      const int64_t begin = p.phase_first[phase], taps = p.phase_first[phase + 1] - begin;
      const A* w = weights + (m * p.taps + begin) * cell;
      A* to = grad_in + phase * p.phase_cells * cell;
      if (kLast) {
        for (int64_t r = 0; r < rows; ++r)
          convolve<true>(grad_own + r * p.pitch * lanes, p.shift + begin, w, taps, to + r * p.pitch * lanes, p.pitch,
                         m > 0);
      } else {
        convolve<false>(grad_own, p.shift + begin, w, taps, to, (rows * p.pitch + lanes - 1) / lanes, m > 0);
      }
    }
  }
}

// The rows of pixels of the input that a tile of cells holds, in order: body(row, cells of its columns' first phase).
template <typename Body>
inline void for_each_row(const DepthwisePlan& p, int64_t first, int64_t rows, const Body& body) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t phase = 0; phase < p.stride_h; ++phase) {
      const int64_t y = (first + r) * p.stride_h + phase - p.pad_top;
      if (y >= 0 && y < p.height) body(y, phase * p.stride_w * p.phase_cells + r * p.pitch);
    }
  }
}

template <typename T>
void backward_planes(const T* grad, const T* x, const T* weight, T* grad_x, acc_t<T>* partial, const DepthwisePlan& p,
                     int64_t channel, int64_t begin, int64_t end, acc_t<T>* scratch) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const Scratch<A> s(scratch, p);
  const int64_t in_pixels = p.height * p.width, out_pixels = p.out_height * p.out_width;
  const int64_t tiles = (p.rows + p.tile - 1) / p.tile, stored = p.multiplier * (p.taps + 1);
  // Vectors run on into cells that were never written, where the gradient is 0 but NaN would stay.
  zero(s.in, p.stride_h * p.stride_w * p.phase_cells);
  zero(s.sums, stored * lanes);
  for (int64_t m = 0; m < p.multiplier; ++m)
    pack_weights(weight + (channel * p.multiplier + m) * p.taps, 1, 1, p, s.weights + m * p.taps);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t image = unit / tiles, first = unit % tiles * p.tile, plane = image * p.channels + channel;
    const int64_t rows = p.rows - first < p.tile ? p.rows - first : p.tile;
    if (partial != nullptr)
      pack_input(x + plane * in_pixels, x + p.images * p.channels * in_pixels, 1, p, first, rows + p.reach_h, s.in, 0);
    tile_gradients<false>(grad + plane * p.multiplier * out_pixels,
                          grad + p.images * p.channels * p.multiplier * out_pixels, 1, p, first, rows, s.in, s.weights,
                          s.grad, grad_x == nullptr ? nullptr : s.grad_in, partial == nullptr ? nullptr : s.sums);
    if (grad_x == nullptr) continue;
    T* to = grad_x + plane * in_pixels;
    const int64_t below = (first + rows) * p.stride_h - p.pad_top;
    T* const to_end = to + (below < 0 ? 0 : below < p.height ? below : p.height) * p.width;
    for_each_row(p, first, rows,
                 [&](int64_t y, int64_t cell) { unpack_plane_row(s.grad_in + cell, p, to + y * p.width, to_end); });
  }
  if (partial == nullptr) return;
  for (int64_t m = 0; m < p.multiplier; ++m) {
    for (int64_t i = 0; i <= p.taps; ++i) {
      A sum = 0;
      for (int lane = 0; lane < lanes; ++lane) sum += s.sums[(m * (p.taps + 1) + i) * lanes + lane];
      partial[(channel * p.multiplier + m) * (p.taps + 1) + (i < p.taps ? p.order[i] : i)] = sum;
    }
  }
}

template <typename T>
void backward_group(const T* grad, const T* x, const T* weight, T* grad_x, acc_t<T>* partial, const DepthwisePlan& p,
                    int64_t group, int64_t begin, int64_t end, acc_t<T>* scratch) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const Scratch<A> s(scratch, p);
  const int64_t in_pixels = p.height * p.width, out_pixels = p.out_height * p.out_width;
  const int64_t tiles = (p.rows + p.tile - 1) / p.tile, stored = p.multiplier * (p.taps + 1);
  const int64_t slab = p.stride_h * p.stride_w * p.phase_cells * lanes;
  const int64_t c = group * kDepthwiseGroup;
  const int64_t n = p.channels - c < kDepthwiseGroup ? p.channels - c : kDepthwiseGroup;
  zero(s.sums, stored * kDepthwiseGroup);
  A* to = s.weights;
  for (int64_t i = 0; i < n; i += lanes)
    for (int64_t m = 0; m < p.multiplier; ++m, to += p.taps * lanes)
      pack_weights(weight + ((c + i) * p.multiplier + m) * p.taps, n - i, p.multiplier, p, to);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t image = unit / tiles, first = unit % tiles * p.tile;
    const int64_t rows = p.rows - first < p.tile ? p.rows - first : p.tile;
    if (partial != nullptr)
      pack_input(x + image * p.channels * in_pixels + c, x + p.images * p.channels * in_pixels, n, p, first,
                 rows + p.reach_h, s.in, slab);
    for (int64_t i = 0; i < n; i += lanes) {
      const int64_t at = i / lanes;
      tile_gradients<true>(grad + (image * p.channels * out_pixels + c + i) * p.multiplier, x, n - i, p, first, rows,
                           s.in + at * slab, s.weights + at * p.multiplier * p.taps * lanes, s.grad,
                           grad_x == nullptr ? nullptr : s.grad_in,
                           partial == nullptr ? nullptr : s.sums + at * stored * lanes);
      if (grad_x == nullptr) continue;
      T* image_to = grad_x + image * p.channels * in_pixels + c + i;
      for_each_row(p, first, rows, [&](int64_t y, int64_t cell) {
        for (int64_t px = 0; px < p.width; ++px) {
          const int64_t padded = px + p.pad_left;
          const int64_t from = cell + padded % p.stride_w * p.phase_cells + padded / p.stride_w;
          store_some<lanes>(image_to + (y * p.width + px) * p.channels, load<lanes>(s.grad_in + from * lanes), n - i);
        }
      });
    }
  }
  if (partial == nullptr) return;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t m = 0; m < p.multiplier; ++m)
      for (int64_t t = 0; t <= p.taps; ++t)
        partial[((c + i) * p.multiplier + m) * (p.taps + 1) + (t < p.taps ? p.order[t] : t)] =
            s.sums[(i / lanes * stored + m * (p.taps + 1) + t) * lanes + i % lanes];
}

}  // namespace

template <typename T>
void depthwise_backward(const T* grad, const T* x, const T* weight, T* grad_x, acc_t<T>* partial,
                        const DepthwisePlan& plan, int64_t group, int64_t begin, int64_t end, acc_t<T>* scratch) {
  if (plan.channels_last)
    backward_group(grad, x, weight, grad_x, partial, plan, group, begin, end, scratch);
  else
    backward_planes(grad, x, weight, grad_x, partial, plan, group, begin, end, scratch);
}

template <typename T>
void depthwise_reduce(const acc_t<T>* partial, int64_t chunks, const DepthwisePlan& p, T* grad_weight, T* grad_bias,
                      int64_t begin, int64_t end) {
  using A = acc_t<T>;
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t t = 0; t <= p.taps; ++t) {
      const A* at = partial + c * (p.taps + 1) + t;
      Vec<A, 1> sum = {};
      for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += at[chunk * depthwise_sums(p)];
      if (t < p.taps && grad_weight != nullptr) store<1>(grad_weight + c * p.taps + t, sum);
      if (t == p.taps && grad_bias != nullptr) store<1>(grad_bias + c, sum);
    }
  }
}

#define INSTANTIATE(T)                                                                                            \
  template void depthwise_backward<T>(const T*, const T*, const T*, T*, acc_t<T>*, const DepthwisePlan&, int64_t, \
                                      int64_t, int64_t, acc_t<T>*);                                               \
  template void depthwise_reduce<T>(const acc_t<T>*, int64_t, const DepthwisePlan&, T*, T*, int64_t, int64_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
