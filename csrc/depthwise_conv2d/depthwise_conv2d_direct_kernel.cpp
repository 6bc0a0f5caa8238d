#include "depthwise_conv2d_kernel.h"
#include "direct.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

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

}  // namespace

template <typename T>
void depthwise_direct_forward(const T* x, const T* weight, const T* bias, T* out, const DepthwisePlan& p,
                              Activation activation, int64_t begin, int64_t end, acc_t<T>* weights) {
  constexpr int64_t lanes = kLanes<acc_t<T>>;
  const int64_t in_row = p.width * p.step, out_row = p.out_width * p.channels;
  const int64_t tiles = (p.out_height + p.tile - 1) / p.tile;
  T* const stage = reinterpret_cast<T*>(weights + depthwise_direct_weights(p));
  const auto function = direct_function<T>(p.kernel_w, p.stride_w);
  pack_direct_weights(weight, p.channels, p.taps, nullptr, weights);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / tiles, first = task % tiles * p.tile;
    const int64_t last = p.out_height - first < p.tile ? p.out_height : first + p.tile;
    const int64_t above = first * p.stride_h - p.pad_top;
    const int64_t below = (last - 1) * p.stride_h - p.pad_top + (p.kernel_h - 1) * p.dilation_h + 1;
    const T* from_image = stage_rows(x + image * p.height * p.width * p.channels, above, below, p.height, p.width,
                                     p.channels, p.step, stage);
    for (int64_t r = first; r < last; ++r) {
      const int64_t top = r * p.stride_h - p.pad_top;  // The kernel's rows [from, to) are on the map.
      const int64_t from = top < 0 ? (p.dilation_h - 1 - top) / p.dilation_h : 0;
      const int64_t fitting = p.height > top ? (p.height - top + p.dilation_h - 1) / p.dilation_h : 0;
      const int64_t to = fitting < p.kernel_h ? fitting : p.kernel_h;
      const DirectRow<T> row{from_image + (top + from * p.dilation_h) * in_row,
                             to > from ? to - from : 0,
                             p.dilation_h * in_row,
                             p.width,
                             p.step,
                             -p.pad_left,
                             weights + from * p.kernel_w * lanes,
                             p.taps * lanes,
                             out + (image * p.out_height + r) * out_row,
                             p.out_width,
                             p.channels,
                             p.channels,
                             p.large,
                             p.streams};
      function(row, bias, activation);
    }
  }
  if (p.streams) end_stream();
}

template <typename T>
void depthwise_direct_backward(const T* grad, const T* x, const T* weight, T* grad_x, acc_t<T>* partial,
                               const DepthwisePlan& p, int64_t, int64_t begin, int64_t end, acc_t<T>* weights) {
  const int64_t in_image = p.height * p.width * p.channels, out_image = p.out_height * p.out_width * p.channels;
  const int64_t tiles = (p.rows + p.tile - 1) / p.tile;
  int64_t place[kDirectTaps];
  place_taps(p, place);
  if (grad_x != nullptr) pack_direct_weights(weight, p.channels, p.taps, place, weights);
  if (partial != nullptr) memset(partial, 0, depthwise_sums(p) * sizeof(*partial));
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

template <typename T>
void depthwise_direct_reduce(const acc_t<T>* partial, int64_t chunks, const DepthwisePlan& p, T* grad_weight,
                             T* grad_bias, int64_t begin, int64_t end) {
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

#define INSTANTIATE(T)                                                                                          \
  template void depthwise_direct_forward<T>(const T*, const T*, const T*, T*, const DepthwisePlan&, Activation, \
                                            int64_t, int64_t, acc_t<T>*);                                       \
  template void depthwise_direct_backward<T>(const T*, const T*, const T*, T*, acc_t<T>*, const DepthwisePlan&, \
                                             int64_t, int64_t, int64_t, acc_t<T>*);                             \
  template void depthwise_direct_reduce<T>(const acc_t<T>*, int64_t, const DepthwisePlan&, T*, T*, int64_t, int64_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
