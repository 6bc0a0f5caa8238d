#include "convolve.h"
#include "direct.h"
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

// Where taps go that are taken phase by phase of rows and columns, and within a phase last to first, as the gradient of
// the input meets them.
inline void place_taps(const DepthwisePlan& p, int64_t* place) {
  int64_t at = 0;
  for (int64_t phase_y = 0; phase_y < p.stride_h; ++phase_y)
    for (int64_t phase_x = 0; phase_x < p.stride_w; ++phase_x)
      for (int64_t y = p.kernel_h - 1; y >= 0; --y)
        for (int64_t x = p.kernel_w - 1; x >= 0; --x)
          if (y % p.stride_h == phase_y && x % p.stride_w == phase_x) place[y * p.kernel_w + x] = at++;
}

// Row y of the gradient of the input.
template <typename T>
void direct_grad_row(const T* grad, const acc_t<T>* weights, T* out, const DepthwisePlan& p, int64_t y) {
  constexpr int64_t lanes = kLanes<acc_t<T>>;
  const int64_t padded = y + p.pad_top, phase_y = padded % p.stride_h;
  const int64_t kernel_rows = (p.kernel_h - phase_y + p.stride_h - 1) / p.stride_h;
  const int64_t top = padded / p.stride_h - kernel_rows + 1;  // The row of grad that the packed kernel's first meets.
  const int64_t begin = top < 0 ? -top : 0;
  const int64_t end = p.out_height - top < kernel_rows ? p.out_height - top : kernel_rows;
  int64_t before = 0;  // Taps of earlier phases.
  for (int64_t earlier = 0; earlier < phase_y; ++earlier)
    before += p.kernel_w * ((p.kernel_h - earlier + p.stride_h - 1) / p.stride_h);
  for (int64_t phase_x = 0; phase_x < p.stride_w; ++phase_x) {
    const int64_t columns = (p.kernel_w - phase_x + p.stride_w - 1) / p.stride_w;
    const int64_t x = (phase_x + p.stride_w - p.pad_left % p.stride_w) % p.stride_w;  // The first pixel of the phase.
    const DirectRow<T> row{grad + (top + begin) * p.out_width * p.step,
                           end > begin ? end - begin : 0,
                           p.out_width * p.step,
                           p.out_width,
                           p.step,
                           (x + p.pad_left) / p.stride_w - columns + 1,
                           weights + (before + begin * columns) * lanes,
                           p.taps * lanes,
                           out + (y * p.width + x) * p.channels,
                           p.width > x ? (p.width - x + p.stride_w - 1) / p.stride_w : 0,
                           p.stride_w * p.channels,
                           p.channels,
                           p.large,
                           p.streams};
    direct_function<T>(columns, 1)(row, nullptr, Activation::none);
    before += kernel_rows * columns;
  }
}

// Adds what row r of the gradient of the output gives to the gradients of weights and biases.
template <typename T>
void direct_correlate(const T* grad, const T* x, acc_t<T>* sums, const DepthwisePlan& p, int64_t r) {
  constexpr int64_t lanes = kLanes<acc_t<T>>;
  const int64_t top = r * p.stride_h - p.pad_top, row_step = p.width * p.step;
  const int64_t begin = top < 0 ? -top : 0, end = p.height - top < p.kernel_h ? p.height - top : p.kernel_h;
  const DirectRow<T> row{x + (top + begin) * row_step,
                         end > begin ? end - begin : 0,
                         row_step,
                         p.width,
                         p.step,
                         -p.pad_left,
                         nullptr,
                         (p.taps + 1) * lanes,
                         nullptr,
                         p.out_width,
                         p.step,
                         p.channels,
                         false,
                         false};
  correlate_function<T>(p.kernel_w, p.stride_w)(row, grad + r * p.out_width * p.step, sums + begin * p.kernel_w * lanes,
                                                p.sums_bias ? sums + p.taps * lanes : nullptr);
}

template <typename T>
void backward_direct(const T* grad, const T* x, const T* weight, T* grad_x, acc_t<T>* partial, const DepthwisePlan& p,
                     int64_t begin, int64_t end, acc_t<T>* weights) {
  const int64_t in_image = p.height * p.width * p.channels, out_image = p.out_height * p.out_width * p.channels;
  const int64_t tiles = (p.rows + p.tile - 1) / p.tile;
  int64_t place[kDirectTaps];
  place_taps(p, place);
  if (grad_x != nullptr) pack_direct_weights(weight, p.channels, p.taps, place, weights);
  if (partial != nullptr) zero(partial, depthwise_sums(p));
  T* const x_stage = reinterpret_cast<T*>(weights + depthwise_direct_weights(p));
  T* const grad_stage = reinterpret_cast<T*>(weights + depthwise_direct_weights(p) + depthwise_staged(p));
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t image = unit / tiles, tile = unit % tiles;
    const int64_t first = p.height * tile / tiles, last = p.height * (tile + 1) / tiles;          // Rows of the input,
    const int64_t top = p.out_height * tile / tiles, bottom = p.out_height * (tile + 1) / tiles;  // of the output.
    const int64_t above = (first + p.pad_top) / p.stride_h - p.reach_h;
    const int64_t below = (last - 1 + p.pad_top) / p.stride_h + 1;
    const T* g = stage_rows(grad + image * out_image, above < top ? above : top, below > bottom ? below : bottom,
                            p.out_height, p.out_width, p.channels, p.step, grad_stage);
    if (grad_x != nullptr)
      for (int64_t y = first; y < last; ++y) direct_grad_row(g, weights, grad_x + image * in_image, p, y);
    if (partial == nullptr) continue;
    const int64_t under = (bottom - 1) * p.stride_h - p.pad_top + p.kernel_h;
    const T* in = stage_rows(x + image * in_image, top * p.stride_h - p.pad_top, under, p.height, p.width, p.channels,
                             p.step, x_stage);
    for (int64_t r = top; r < bottom; ++r) direct_correlate(g, in, partial, p, r);
  }
  if (p.streams) end_stream();
}

// depthwise_reduce of what backward_direct leaves: sums of vectors of channels.
template <typename T>
void reduce_direct(const acc_t<T>* partial, int64_t chunks, const DepthwisePlan& p, T* grad_weight, T* grad_bias,
                   int64_t begin, int64_t end) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const auto total = [&](int64_t vector) {
    Vec<A, lanes> sum = {};
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      sum += load<lanes>(partial + chunk * depthwise_sums(p) + vector * lanes);
    return sum;
  };
  // The last vector may hold channels of the one before it too.
  for (int64_t c = begin; c < end; c += lanes) {
    const int64_t first = c / lanes * (p.taps + 1), n = end - c < lanes ? end - c : lanes;
    const int64_t skipped = c > 0 ? lanes - n : 0;
    for (int64_t t = 0; grad_weight != nullptr && t < p.taps; t += lanes) {
      Vec<A, lanes> rows[lanes] = {};
      for (int64_t i = 0; i < lanes && t + i < p.taps; ++i) rows[i] = total(first + t + i);
      transpose<A, lanes>(rows);
      for (int64_t i = 0; i < n; ++i)
        store_some<lanes>(grad_weight + (c + i) * p.taps + t, rows[skipped + i], p.taps - t);
    }
    if (grad_bias == nullptr) continue;
    const Vec<A, lanes> sum = total(first + p.taps);
    for (int64_t i = 0; i < n; ++i) store<1>(grad_bias + c + i, Vec<A, 1>{sum[skipped + i]});
  }
}

}  // namespace

template <typename T>
void depthwise_backward(const T* grad, const T* x, const T* weight, T* grad_x, acc_t<T>* partial,
                        const DepthwisePlan& plan, int64_t group, int64_t begin, int64_t end, acc_t<T>* scratch) {
  if (plan.direct)
    backward_direct(grad, x, weight, grad_x, partial, plan, begin, end, scratch);
  else if (plan.channels_last)
    backward_group(grad, x, weight, grad_x, partial, plan, group, begin, end, scratch);
  else
    backward_planes(grad, x, weight, grad_x, partial, plan, group, begin, end, scratch);
}

template <typename T>
void depthwise_reduce(const acc_t<T>* partial, int64_t chunks, const DepthwisePlan& p, T* grad_weight, T* grad_bias,
                      int64_t begin, int64_t end) {
  if (p.direct) return reduce_direct(partial, chunks, p, grad_weight, grad_bias, begin, end);
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
