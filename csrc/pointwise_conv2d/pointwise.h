#pragma once

// 1x1 convolutions of channels_last maps as products of matrices, with packed weights.

#include "../grouped_conv2d_shuffle/convolution.h"

namespace fastcnn {
namespace {

// The distance from pixel to pixel where it is the same everywhere and channels lie together, else 0.
[[maybe_unused]] int64_t pixel_row(const Tensor& x) {
  const int64_t row = x.size(3) > 1 ? x.stride(3) : x.size(2) > 1 ? x.stride(2) : x.size(1);
  const auto is = [&](int64_t d, int64_t stride) { return x.size(d) <= 1 || x.stride(d) == stride; };
  const bool even = is(1, 1) && is(2, x.size(3) * row) && is(0, x.size(2) * x.size(3) * row);
  return even && row >= x.size(1) ? row : 0;
}

[[maybe_unused]] const float* floats(const char* op, const std::optional<Tensor>& x, int64_t size) {
  if (!x) return nullptr;
  STD_TORCH_CHECK(x->scalar_type() == ScalarType::Float && x->is_contiguous() && x->numel() == size, op, ": expected ",
                  size, " contiguous floats");
  return static_cast<const float*>(x->const_data_ptr());
}

// With a slope it is the leaky ReLU.
[[maybe_unused]] Activation checked(const char* op, int64_t activation, double slope = 0) {
  STD_TORCH_CHECK(activation >= 0 && activation <= int64_t(Activation::silu), op, ": no such activation: ", activation);
  STD_TORCH_CHECK(slope == 0 || Activation(activation) == Activation::relu, op, ": only ReLU has a slope");
  return Activation(activation);
}

// In the order N, H, W, C, as kernels read it, what is to be added to a result of this size.
[[maybe_unused]] std::optional<Tensor> checked(const char* op, const std::optional<Tensor>& residual, ScalarType dtype,
                                               int64_t n, int64_t c, int64_t h, int64_t w) {
  if (!residual) return std::nullopt;
  STD_TORCH_CHECK(residual->dim() == 4 && residual->size(0) == n && residual->size(1) == c && residual->size(2) == h &&
                      residual->size(3) == w && residual->scalar_type() == dtype,
                  op, ": residual has not the shape and dtype of the result");
  return dense_as(*residual, true);
}

constexpr int64_t kPanel = 48;                // Columns of packed weights: three vectors of AVX-512.
constexpr int64_t kBlockElements = 48 << 10;  // Of the input; it stays in L2 while the panels pass.

// Weights as panels of columns, each a matrix `in` x `width`: what a tile of the product reads lies in one piece. None
// of several panels has fewer than 17 columns. fastcnn.ops packs them so.
struct Panels {
  int64_t in, out, count;

  Panels(int64_t in, int64_t out) : in(in), out(out), count((out + kPanel - 1) / kPanel) {}
  int64_t begin(int64_t panel) const {
    const int64_t at = panel * kPanel;
    if (at >= out) return out;
    return panel && panel == count - 1 && out - at <= kGemmLanes ? at - kGemmLanes : at;
  }
  int64_t width(int64_t panel) const { return begin(panel + 1) - begin(panel); }
};

// Where the rows of a panel's weights begin, kept for the next panel, which is mostly as wide.
class PanelRows {
 public:
  const int64_t* of(int64_t terms, int64_t width) {
    if (width != width_) rows_ = evenly_spaced(terms, width), width_ = width;
    return rows_.data();
  }

 private:
  int64_t width_ = 0;
  std::vector<int64_t> rows_;
};

template <typename A>
void pack(const Panels& panels, const A* weight, A* to) {
  const auto transpose = FASTCNN_SELECT(transpose_into<A, A>);
  for (int64_t p = 0; p < panels.count; ++p) {
    const int64_t first = panels.begin(p), width = panels.width(p);
    transpose(weight + first * panels.in, Rows{nullptr, panels.in}, width, panels.in, to + first * panels.in,
              Rows{nullptr, width});
  }
}

template <typename T>
struct Pointwise {
  using A = acc_t<T>;
  int64_t pixels;
  Panels panels;
  const T* x;
  int64_t x_row;  // From pixel to pixel: more than its channels where they are some of a wider map's.
  const A* packed;
  const A* bias;
  const T* residual;
  Activation activation;
  T* y;
  A slope = 0;  // Of ReLU, below 0.

  void run() const {
    const int64_t in = panels.in, out = panels.out, threads = int64_t(torch::stable::get_num_threads());
    // What is larger passes once: weights by panels, or pixels by blocks.
    const bool by_panel = out > pixels;
    const int64_t fit = std::max<int64_t>(kBlockElements / in, kTilePixels), most = (pixels + 7) / 8;
    const int64_t blocks =
        std::min(by_panel ? threads : ((pixels + fit - 1) / fit + threads - 1) / threads * threads, most);
    const int64_t tasks = by_panel ? blocks * panels.count : blocks;
    const int64_t band = (pixels + blocks - 1) / blocks;
    const auto widen = FASTCNN_SELECT(convert<T, A>);
    const auto widened = std::make_unique_for_overwrite<A[]>(by_panel ? wide_size(pixels) : 0);
    if (by_panel && !std::is_same_v<T, A>) widen(x, widened.get(), pixels * in);
    const std::vector<int64_t> out_rows = evenly_spaced(band, out);
    torch::stable::parallel_for(0, tasks, grain(2 * pixels * in * out, tasks), [&](int64_t begin, int64_t end) {
      const auto scratch = std::make_unique_for_overwrite<A[]>(by_panel ? 0 : wide_size(band));
      PanelRows b_rows;
      for (int64_t task = begin; task < end; ++task) {
        const int64_t block = by_panel ? task % blocks : task;
        const int64_t first = pixels * block / blocks, count = pixels * (block + 1) / blocks - first;
        const A* from = by_panel ? widened.get() + first * in : scratch.get();
        if constexpr (std::is_same_v<T, A>)
          from = x + first * x_row;
        else if (!by_panel)
          widen(x + first * in, scratch.get(), count * in);
        const int64_t panel = by_panel ? task / blocks : 0, last = by_panel ? panel + 1 : panels.count;
        for (int64_t p = panel; p < last; ++p) multiply(p, first, count, from, out_rows, b_rows);
      }
    });
  }

  // Pixels [first, first + count) on this thread, of a type that is not converted.
  void run_pixels(int64_t first, int64_t count) const {
    const int64_t fit = std::max<int64_t>(kBlockElements / panels.in, kTilePixels), blocks = (count + fit - 1) / fit;
    const std::vector<int64_t> out_rows = evenly_spaced((count + blocks - 1) / blocks, panels.out);
    PanelRows b_rows;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t begin = first + count * block / blocks, end = first + count * (block + 1) / blocks;
      for (int64_t p = 0; p < panels.count; ++p) multiply(p, begin, end - begin, x + begin * x_row, out_rows, b_rows);
    }
  }

 private:
  int64_t wide_size(int64_t rows) const { return std::is_same_v<T, A> ? 0 : rows * panels.in; }

  void multiply(int64_t p, int64_t first, int64_t count, const A* from, const std::vector<int64_t>& out_rows,
                PanelRows& b_rows) const {
    const int64_t column = panels.begin(p), width = panels.width(p), at = first * panels.out + column;
    const auto kernel = FASTCNN_SELECT(gemm<T>);
    const Gemm<A> product{count,
                          width,
                          panels.in,
                          from,
                          std::is_same_v<T, A> ? x_row : panels.in,
                          1,
                          packed + column * panels.in,
                          b_rows.of(panels.in, width),
                          nullptr,
                          bias ? bias + column : nullptr,
                          activation,
                          out_rows.data(),
                          1,
                          0,
                          slope};
    kernel(product, y + at, residual ? residual + at : nullptr);
  }
};

}  // namespace
}  // namespace fastcnn
