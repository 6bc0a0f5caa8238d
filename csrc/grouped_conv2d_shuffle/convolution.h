#pragma once

// A grouped convolution, forwards or as the gradient of its input, as products of small matrices: by planes, where
// vectors run over pixels, or by pixels, where they run over channels.

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "../channel_shuffle/channel_shuffle_kernel.h"
#include "../common/tensor.h"
#include "grouped_conv2d_shuffle_kernel.h"

namespace fastcnn {
namespace {

constexpr int64_t kPackedElements = 1 << 16;  // What packed planes may take of L2.
constexpr int64_t kTilePixels = 48;           // Pixels below which a matrix is too narrow.
constexpr int64_t kGrainFlops = 1 << 19;      // What a thread must have for a second one to pay.

// Element (row, step) of a group's matrix of weights.
template <typename A>
struct Weights {
  const A* data;
  int64_t group, row, step;
};

// `in` and `out` count the channels of a group. Channel i of group g is channel source[g * in + i] of the tensor, and
// target likewise.
struct Convolution {
  Window window;
  int64_t images, groups, in, out;
  bool channels_last;
  std::vector<int64_t> source, target;

  int64_t in_pixels() const { return window.height * window.width; }
  int64_t out_pixels() const { return window.out_height * window.out_width; }
  int64_t terms() const { return in * window.kernel_h * window.kernel_w; }
};

// The offset of each term of a sum, a channel and a tap, in planes packed for `rows` rows of the result.
inline std::vector<int64_t> term_offsets(const Window& w, int64_t channels, int64_t rows) {
  const Packing p = packing(w, rows);
  std::vector<int64_t> offsets;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t tap = 0; tap < w.kernel_h * w.kernel_w; ++tap) {
      const int64_t y = tap / w.kernel_w * w.dilation_h, x = tap % w.kernel_w * w.dilation_w;
      const int64_t phase = y % w.stride_h * p.phases_w + x % w.stride_w;
      offsets.push_back(c * p.plane + (phase * p.rows + y / w.stride_h) * p.pitch + x / w.stride_w);
    }
  }
  return offsets;
}

inline std::vector<int64_t> evenly_spaced(int64_t count, int64_t stride) {
  std::vector<int64_t> rows(count);
  for (int64_t i = 0; i < count; ++i) rows[i] = i * stride;
  return rows;
}

// A window in which every pixel counts has no need of rows: as a single column it can be cut anywhere.
inline Window by_pixels(Window w) {
  if (!is_flat(w)) return w;
  w.height = w.out_height = w.height * w.width;
  w.width = w.out_width = 1;
  return w;
}

// In how many bands of rows to cut the result: packed planes of `channels` channels should fit, and all of at least
// `wanted` tasks have something to do.
inline int64_t bands(const Window& w, int64_t channels, int64_t wanted) {
  const int64_t pitch = packing(w, 1).pitch;
  int64_t fit = w.out_height;
  while (fit > 1 && channels * packing(w, fit).plane > kPackedElements) fit = (fit + 1) / 2;
  const int64_t most = std::max<int64_t>(w.out_height * pitch / kTilePixels, 1);
  return std::clamp<int64_t>(std::max((w.out_height + fit - 1) / fit, wanted), 1, std::min(most, w.out_height));
}

inline int64_t grain(int64_t flops, int64_t tasks) {
  return std::max<int64_t>(kGrainFlops / std::max<int64_t>(flops / tasks, 1), 1);
}

// Packs planes for one task: a group of NCHW, all channels of NHWC.
template <typename T>
struct Packer {
  const Convolution& c;
  const Window& window;
  int64_t rows, plane, channels, channels_of_task;
  std::vector<int64_t> offsets;  // In NHWC, where the plane of each channel of the tensor goes.

  Packer(const Convolution& conv, const Window& w, int64_t band_rows)
      : c(conv), window(w), rows(band_rows), plane(packing(w, band_rows).plane), channels(conv.groups * conv.in) {
    channels_of_task = c.channels_last ? channels : c.in;
    offsets.resize(channels);
    for (int64_t i = 0; i < channels; ++i) offsets[c.source[i]] = i * plane;
  }
  // Taps reach past the last plane, and vectors past its end.
  int64_t slack() const { return kGemmLanes + (window.kernel_w - 1) * window.dilation_w; }
  int64_t size() const { return channels_of_task * plane + slack(); }

  void operator()(const T* x, int64_t image, int64_t group, int64_t y, acc_t<T>* to) const {
    const auto kernel = FASTCNN_SELECT(pack_planes<T>);
    kernel(window, y, rows, x + image * channels * c.in_pixels(), c.channels_last, channels_of_task,
           c.channels_last ? offsets.data() : c.source.data() + group * c.in, to);
    std::fill_n(to + channels_of_task * plane, slack(), acc_t<T>(0));
  }
};

// Reads of NCHW planes as they lie where a product can, and writes there; packs what it cannot.
template <typename T>
void convolve_planes(const Convolution& c, const T* x, const Weights<acc_t<T>>& weights, const acc_t<T>* bias,
                     Activation activation, T* y) {
  using A = acc_t<T>;
  const Window window = by_pixels(c.window);
  const int64_t threads = int64_t(torch::stable::get_num_threads()), pixels = c.out_pixels();
  const bool in_place = is_flat(window) && !c.channels_last && std::is_same_v<T, A> && pixels >= kGemmLanes;
  const int64_t groups = c.channels_last ? 1 : c.groups;  // Those that are tasks.
  const int64_t wanted = (4 * threads + c.images * groups - 1) / (c.images * groups);
  const int64_t cuts = bands(window, in_place ? 0 : c.channels_last ? c.groups * c.in : c.in, wanted);
  const int64_t rows = (window.out_height + cuts - 1) / cuts, pitch = packing(window, rows).pitch;
  const bool stores = !c.channels_last && pitch == window.out_width && pixels / cuts >= kGemmLanes;
  // Small maps that need no packing are shared out by channels of the result.
  const int64_t made = c.images * groups * cuts, most_parts = in_place ? std::max<int64_t>(c.out / 16, 1) : 1;
  const int64_t parts = std::clamp<int64_t>(4 * threads / made, 1, most_parts);

  const Packer<T> pack(c, window, rows);
  // Of all groups where the planes lie in the tensor, of any one where they are packed.
  std::vector<int64_t> b_rows = in_place ? c.source : term_offsets(window, c.in, rows);
  for (int64_t i = 0; in_place && i < c.groups * c.in; ++i) b_rows[i] *= pixels;
  const int64_t row = std::max(rows * pitch, kGemmLanes);  // Of what is not stored at once.
  std::vector<int64_t> out_rows(c.groups * c.out);
  for (int64_t o = 0; o < c.groups * c.out; ++o)
    out_rows[o] = stores ? c.target[o] * pixels : c.channels_last ? c.target[o] * row : o % c.out * row;

  const auto gemm_out = FASTCNN_SELECT(gemm<T>);
  const auto gemm_wide = FASTCNN_SELECT(gemm<A>);
  const auto convert_row = FASTCNN_SELECT(convert<A, T>);
  const auto transpose = FASTCNN_SELECT(transpose_into<A, T>);
  const int64_t channels = c.groups * c.out, tasks = made * parts;
  const int64_t flops = 2 * c.images * pixels * channels * c.terms();
  torch::stable::parallel_for(0, tasks, grain(flops, tasks), [&](int64_t begin, int64_t end) {
    const auto packed = std::make_unique_for_overwrite<A[]>(in_place ? 0 : pack.size());
    const auto result = std::make_unique_for_overwrite<A[]>(stores ? 0 : row * (c.channels_last ? channels : c.out));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / (groups * parts * cuts), first_group = task / (parts * cuts) % groups;
      const int64_t part = task / cuts % parts, first = c.out * part / parts;  // The first channel of the result.
      const int64_t cut = task % cuts, top = window.out_height * cut / cuts;
      const int64_t count = window.out_height * (cut + 1) / cuts - top;
      if (!in_place) pack(x, image, first_group, top, packed.get());
      for (int64_t g = first_group; g < (c.channels_last ? c.groups : first_group + 1); ++g) {
        Gemm<A> product{c.out * (part + 1) / parts - first,
                        count * pitch,
                        c.terms(),
                        weights.data + g * weights.group + first * weights.row,
                        weights.row,
                        weights.step,
                        nullptr,
                        b_rows.data() + (in_place ? g * c.in : 0),
                        bias ? bias + g * c.out + first : nullptr,
                        nullptr,
                        activation,
                        out_rows.data() + g * c.out + first};
        if constexpr (std::is_same_v<T, A>) {
          if (in_place) product.b = x + image * c.groups * c.in * pixels + top;
        }
        if (!in_place) product.b = packed.get() + (c.channels_last ? g * c.in * pack.plane : 0);
        if (stores)
          gemm_out(product, y + image * channels * pixels + top * window.out_width, nullptr);
        else
          gemm_wide(product, result.get(), nullptr);
      }
      if (stores) continue;
      const bool whole = pitch == window.out_width;
      const int64_t lines = whole ? 1 : count, width = whole ? count * pitch : window.out_width;
      for (int64_t line = 0; line < lines; ++line) {
        const A* from = result.get() + line * pitch;
        const int64_t at = (top + line) * window.out_width;
        if (c.channels_last) {
          transpose(from, Rows{nullptr, row}, channels, width, y + (image * pixels + at) * channels,
                    Rows{nullptr, channels});
        } else {
          for (int64_t o = 0; o < c.out; ++o) {
            const int64_t plane = image * channels + c.target[first_group * c.out + o];
            convert_row(from + o * row, y + plane * pixels + at, width);
          }
        }
      }
    }
  });
}

// A 1x1 convolution in NHWC: all images are one list of pixels. Channel i of group g is channel g * in_group + i *
// in_step of a pixel. Results are shuffled into `shuffle` groups,
// or a residual is added before the activation.
struct PixelConvolution {
  int64_t pixels, groups, in, out, in_group, in_step, shuffle;
};

// The weights are a matrix `in` x `out` for each group or, if they are to be turned, `out` x `in`.
template <typename T>
void convolve_pixels(const PixelConvolution& c, const T* x, const acc_t<T>* weights, bool turn, const acc_t<T>* bias,
                     Activation activation, const T* residual, T* y) {
  using A = acc_t<T>;
  using U = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  const int64_t in = c.groups * c.in, out = c.groups * c.out;
  // As many tasks for each thread, of whole tiles.
  const int64_t threads = int64_t(torch::stable::get_num_threads());
  const int64_t shares = (c.pixels / (2 * kTilePixels) + threads) / threads * threads;
  const int64_t tile = c.pixels < 16 * shares * 8 ? 1 : 8;  // Of few pixels whole tiles make uneven shares.
  const int64_t band = (c.pixels + tile * shares - 1) / (tile * shares) * tile, tasks = (c.pixels + band - 1) / band;
  const bool shuffles = c.shuffle > 1 && c.shuffle < out;
  const std::vector<int64_t> b_rows = evenly_spaced(c.in, c.out), out_rows = evenly_spaced(band, out);
  const auto kernel = FASTCNN_SELECT(gemm<T>);
  const auto widen = FASTCNN_SELECT(convert<T, A>);
  const auto shuffle = FASTCNN_SELECT(shuffle_pixels<U>);
  const auto transpose = FASTCNN_SELECT(transpose_into<A, A>);
  torch::stable::parallel_for(0, tasks, grain(2 * c.pixels * out * c.in, tasks), [&](int64_t begin, int64_t end) {
    const auto wide = std::make_unique_for_overwrite<A[]>(std::is_same_v<T, A> ? 0 : band * in);
    const auto result = std::make_unique_for_overwrite<T[]>(shuffles ? band * out : 0);
    // Every thread turns the weights for itself: to fetch what another one has just written takes longer.
    const auto turned = std::make_unique_for_overwrite<A[]>(turn ? in * c.out : 0);
    for (int64_t g = 0; turn && g < c.groups; ++g)
      transpose(weights + g * c.in * c.out, Rows{nullptr, c.in}, c.out, c.in, turned.get() + g * c.in * c.out,
                Rows{nullptr, c.out});
    const A* b = turn ? turned.get() : weights;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task * band, count = std::min(band, c.pixels - first);
      const A* from = wide.get();
      if constexpr (std::is_same_v<T, A>)
        from = x + first * in;
      else
        widen(x + first * in, wide.get(), count * in);
      T* to = shuffles ? result.get() : y + first * out;
      for (int64_t g = 0; g < c.groups; ++g) {
        const Gemm<A> product{count,
                              c.out,
                              c.in,
                              from + g * c.in_group,
                              in,
                              c.in_step,
                              b + g * c.in * c.out,
                              b_rows.data(),
                              nullptr,
                              bias ? bias + g * c.out : nullptr,
                              activation,
                              out_rows.data()};
        kernel(product, to + g * c.out, residual ? residual + first * out + g * c.out : nullptr);
      }
      if (shuffles)
        shuffle(reinterpret_cast<const U*>(to), out, reinterpret_cast<U*>(y + first * out), count, c.shuffle,
                out / c.shuffle);
    }
  });
}

}  // namespace
}  // namespace fastcnn
