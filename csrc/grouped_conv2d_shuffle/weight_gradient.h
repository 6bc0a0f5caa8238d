#pragma once

// The gradient of the weights of a grouped convolution: products that sum over pixels, of which a fixed number of parts
// is summed apart and then added in order, whatever the number of threads.

#include "convolution.h"

namespace fastcnn {
namespace {

constexpr int64_t kParts = 16;

// Adds up `parts` matrices of `rows` rows, `row` apart, into dense rows of `columns`.
template <typename T>
void add_parts(const acc_t<T>* sums, int64_t parts, int64_t rows, int64_t row, int64_t columns, T* to) {
  using A = acc_t<T>;
  const auto narrow = FASTCNN_SELECT(convert<A, T>);
  torch::stable::parallel_for(0, rows, 1 + (1 << 15) / (columns * parts), [&](int64_t begin, int64_t end) {
    std::vector<A> total(columns);
    for (int64_t i = begin; i < end; ++i) {
      std::copy_n(sums + i * row, columns, total.begin());
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t j = 0; j < columns; ++j) total[j] += sums[(part * rows + i) * row + j];
      narrow(total.data(), to + i * columns, columns);
    }
  });
}

// `c` is the convolution forwards, `grad` in the order of its shuffled result.
template <typename T>
void weight_gradient_planes(const Convolution& c, const T* x, const T* grad, T* to) {
  using A = acc_t<T>;
  const Window window = by_pixels(c.window);
  const int64_t pixels = c.out_pixels(), terms = c.terms(), channels = c.groups * c.out;
  const int64_t row = std::max(terms, kGemmLanes);
  const int64_t cuts = bands(window, std::max(c.channels_last ? c.groups * c.in : c.in, terms), 1);
  const int64_t rows = (window.out_height + cuts - 1) / cuts, pitch = packing(window, rows).pitch;
  const bool in_place = is_flat(window) && !c.channels_last && std::is_same_v<T, A>;
  const int64_t groups = c.channels_last ? 1 : c.groups, tiles = c.images * cuts;
  const int64_t parts = std::min(tiles, (kParts + groups - 1) / groups);

  const Packer<T> pack(c, window, rows);
  const std::vector<int64_t> b_rows = in_place ? evenly_spaced(c.in, pixels) : term_offsets(window, c.in, rows);
  const std::vector<int64_t> out_rows = evenly_spaced(c.out, row);
  // Columns beyond the width are left out: what they hold is of other rows.
  const int64_t grad_row = rows * window.out_width;
  std::vector<int64_t> line_rows(grad_row);
  for (int64_t p = 0; p < grad_row; ++p) line_rows[p] = (p / window.out_width * pitch + p % window.out_width) * row;
  std::vector<int64_t> grad_rows(channels);  // In NHWC, where the plane of each channel of the tensor goes.
  for (int64_t o = 0; o < channels; ++o) grad_rows[c.target[o]] = o * grad_row;

  const auto accumulate = FASTCNN_SELECT(gemm_accumulate<A>);
  const auto widen = FASTCNN_SELECT(convert<T, A>);
  const auto transpose = FASTCNN_SELECT(transpose_into<A, A>);
  const auto transpose_grad = FASTCNN_SELECT(transpose_into<T, A>);
  std::vector<A> sums(parts * channels * row);
  torch::stable::parallel_for(0, groups * parts, 1, [&](int64_t begin, int64_t end) {
    const auto packed = std::make_unique_for_overwrite<A[]>(in_place ? 0 : pack.size());
    const auto lines = std::make_unique<A[]>(rows * pitch * row);
    const auto grads = std::make_unique_for_overwrite<A[]>((c.channels_last ? channels : c.out) * grad_row);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first_group = task / parts, part = task % parts;
      for (int64_t tile = tiles * part / parts; tile < tiles * (part + 1) / parts; ++tile) {
        const int64_t image = tile / cuts, cut = tile % cuts;
        const int64_t top = window.out_height * cut / cuts, count = window.out_height * (cut + 1) / cuts - top;
        if (!in_place) pack(x, image, first_group, top, packed.get());
        const int64_t at = top * window.out_width, width = count * window.out_width;
        if (c.channels_last) {
          transpose_grad(grad + (image * pixels + at) * channels, Rows{nullptr, channels}, width, channels, grads.get(),
                         Rows{grad_rows.data(), 0});
        } else {
          for (int64_t o = 0; o < c.out; ++o)
            widen(grad + (image * channels + c.target[first_group * c.out + o]) * pixels + at,
                  grads.get() + o * grad_row, width);
        }
        for (int64_t g = first_group; g < (c.channels_last ? c.groups : first_group + 1); ++g) {
          const A* planes = packed.get() + (c.channels_last ? g * c.in * pack.plane : 0);
          if constexpr (std::is_same_v<T, A>) {
            if (in_place) planes = x + (image * c.groups + g) * c.in * pixels + top;
          }
          transpose(planes, Rows{b_rows.data(), 0}, terms, count * pitch, lines.get(), Rows{nullptr, row});
          const Gemm<A> product{c.out,
                                row,
                                width,
                                grads.get() + (c.channels_last ? g * c.out * grad_row : 0),
                                grad_row,
                                1,
                                lines.get(),
                                line_rows.data(),
                                nullptr,
                                nullptr,
                                Activation::none,
                                out_rows.data()};
          accumulate(product, sums.data() + (part * c.groups + g) * c.out * row);
        }
      }
    }
  });
  add_parts<T>(sums.data(), parts, channels, row, terms, to);
}

// Of a 1x1 convolution in NHWC of one group with many weights, which are summed block by block over all pixels: blocks
// are tasks, and no sums are added up in the end.
template <typename T>
void weight_gradient_blocks(int64_t pixels, int64_t in, int64_t out, const T* x, const T* grad, T* to) {
  using A = acc_t<T>;
  constexpr int64_t kTile = 128, kRows = 256, kColumns = 192, kLeastTasks = 4;
  // Rows a power of 2 apart would share few sets of the caches.
  constexpr int64_t kGradRow = kRows + 16, kInputRow = kColumns + 16;
  const int64_t across = (in + kColumns - 1) / kColumns;
  const int64_t most_down = std::max<int64_t>(out / kGemmLanes, 1);
  const int64_t down = std::max((out + kRows - 1) / kRows, std::min((kLeastTasks + across - 1) / across, most_down));
  const std::vector<int64_t> b_rows = evenly_spaced(kTile, kInputRow), out_rows = evenly_spaced(kRows, kColumns);
  const auto accumulate = FASTCNN_SELECT(gemm_accumulate<A>);
  const auto widen = FASTCNN_SELECT(convert<T, A>);
  const auto narrow = FASTCNN_SELECT(convert<A, T>);
  torch::stable::parallel_for(0, down * across, 1, [&](int64_t begin, int64_t end) {
    const auto grads = std::make_unique_for_overwrite<A[]>(kTile * kGradRow);
    const auto from = std::make_unique<A[]>(kTile * kInputRow);  // Narrow blocks read past their columns.
    const auto sums = std::make_unique_for_overwrite<A[]>(kRows * kColumns);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = out * (task / across) / down, rows = out * (task / across + 1) / down - row;
      const int64_t column = task % across * kColumns, columns = std::min(kColumns, in - column);
      std::fill_n(sums.get(), rows * kColumns, A(0));
      for (int64_t first = 0; first < pixels; first += kTile) {
        const int64_t count = std::min(kTile, pixels - first);
        for (int64_t p = 0; p < count; ++p) {
          widen(grad + (first + p) * out + row, grads.get() + p * kGradRow, rows);
          widen(x + (first + p) * in + column, from.get() + p * kInputRow, columns);
        }
        const Gemm<A> product{
            rows,    columns,          count,          grads.get(), 1, kGradRow, from.get(), b_rows.data(), nullptr,
            nullptr, Activation::none, out_rows.data()};
        accumulate(product, sums.get());
      }
      for (int64_t r = 0; r < rows; ++r) narrow(sums.get() + r * kColumns, to + (row + r) * in + column, columns);
    }
  });
}

// Of a 1x1 convolution in NHWC. Channel i of group g of the gradient is its channel g * grad_group + i * grad_step.
template <typename T>
void weight_gradient_pixels(const PixelConvolution& c, const T* x, const T* grad, int64_t grad_group, int64_t grad_step,
                            T* to) {
  using A = acc_t<T>;
  constexpr int64_t kTile = 128, kManyWeights = 100000;
  if (c.groups == 1 && grad_step == 1 && c.in * c.out >= kManyWeights)
    return weight_gradient_blocks(c.pixels, c.in, c.out, x, grad, to);
  const int64_t in = c.groups * c.in, out = c.groups * c.out;
  const int64_t tiles = (c.pixels + kTile - 1) / kTile, parts = std::min(tiles, kParts);
  const std::vector<int64_t> b_rows = evenly_spaced(kTile, in), out_rows = evenly_spaced(c.out, c.in);
  const auto accumulate = FASTCNN_SELECT(gemm_accumulate<A>);
  const auto widen = FASTCNN_SELECT(convert<T, A>);
  std::vector<A> sums(parts * out * c.in);
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    const auto wide = std::make_unique_for_overwrite<A[]>(std::is_same_v<T, A> ? 0 : kTile * (in + out));
    for (int64_t part = begin; part < end; ++part) {
      for (int64_t tile = tiles * part / parts; tile < tiles * (part + 1) / parts; ++tile) {
        const int64_t first = tile * kTile, count = std::min(kTile, c.pixels - first);
        const A *from = wide.get(), *grads = wide.get() + kTile * in;
        if constexpr (std::is_same_v<T, A>) {
          from = x + first * in;
          grads = grad + first * out;
        } else {
          widen(x + first * in, wide.get(), count * in);
          widen(grad + first * out, wide.get() + kTile * in, count * out);
        }
        for (int64_t g = 0; g < c.groups; ++g) {
          const Gemm<A> product{
              c.out,         c.in,    count,   grads + g * grad_group, grad_step,      out, from + g * c.in,
              b_rows.data(), nullptr, nullptr, Activation::none,       out_rows.data()};
          accumulate(product, sums.data() + (part * c.groups + g) * c.out * c.in);
        }
      }
    }
  });
  add_parts<T>(sums.data(), parts, out, c.in, c.in, to);
}

}  // namespace
}  // namespace fastcnn
