#include "winograd_conv2d_kernel.h"

#include "../pointwise_conv2d/pointwise.h"

namespace fastcnn {
namespace {

constexpr int64_t kNumbers = 16;               // Of a tile, and products of matrices.
constexpr int64_t kScratchElements = 1 << 20;  // Of a thread: transformed tiles and their products, in L3.
constexpr int64_t kMostTiles = 128;            // A number's tiles stay in L2 while its panels pass.

// A 3x3 convolution of stride 1 by F(2x2, 3x3): 16 products to four results, not 36.
struct WinogradConvolution {
  int64_t images, in, height, width, out, out_height, out_width, pad_h, pad_w;
  const float* x;
  const float* packed;
  const float* bias;
  Activation activation;
  float slope;
  const float* residual;
  float* y;

  void run() const {
    const int64_t tiles_w = (out_width + 1) / 2, tiles = images * ((out_height + 1) / 2) * tiles_w;
    const int64_t threads = int64_t(torch::stable::get_num_threads());
    const int64_t most = std::clamp<int64_t>(kScratchElements / (kNumbers * (in + out)), 16, kMostTiles);
    const int64_t tasks = std::min(((tiles + most - 1) / most + threads - 1) / threads * threads, tiles);
    const int64_t each = (tiles + tasks - 1) / tasks;
    const Panels panels(in, out);
    const std::vector<int64_t> out_rows = evenly_spaced(each, out);
    const auto forward = FASTCNN_SELECT(winograd_input);
    const auto backward = FASTCNN_SELECT(winograd_output);
    torch::stable::parallel_for(
        0, tasks, grain(2 * kNumbers * tiles * in * out, tasks), [&](int64_t begin, int64_t end) {
          const auto given = std::make_unique_for_overwrite<float[]>(kNumbers * each * in);
          const auto made = std::make_unique_for_overwrite<float[]>(kNumbers * each * out);
          std::vector<WinogradTile> places(each);
          PanelRows b_rows;
          for (int64_t task = begin; task < end; ++task) {
            const int64_t first = tiles * task / tasks, count = tiles * (task + 1) / tasks - first;
            for (int64_t t = 0; t < count; ++t) {
              places[t] = tile((first + t) / tiles_w, (first + t) % tiles_w);
              forward(places[t], in, given.get() + t * in, each * in);
            }
            for (int64_t i = 0; i < kNumbers; ++i)
              multiply(panels, count, given.get() + i * each * in, packed + i * in * out, out_rows, b_rows,
                       made.get() + i * each * out);
            for (int64_t t = 0; t < count; ++t)
              backward(made.get() + t * out, each * out, out, bias, activation, slope, places[t]);
          }
        });
  }

 private:
  WinogradTile tile(int64_t row, int64_t column) const {
    const int64_t rows = (out_height + 1) / 2, image = row / rows, top = row % rows * 2, left = column * 2;
    WinogradTile result;
    for (int64_t i = 0; i < 16; ++i) {
      const int64_t r = top + i / 4 - pad_h, c = left + i % 4 - pad_w;
      const bool inside = r >= 0 && r < height && c >= 0 && c < width;
      result.in[i] = inside ? x + ((image * height + r) * width + c) * in : nullptr;
    }
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t r = top + i / 2, c = left + i % 2, at = ((image * out_height + r) * out_width + c) * out;
      const bool inside = r < out_height && c < out_width;
      result.out[i] = inside ? y + at : nullptr;
      result.residual[i] = inside && residual ? residual + at : nullptr;
    }
    return result;
  }

  void multiply(const Panels& panels, int64_t rows, const float* from, const float* weights,
                const std::vector<int64_t>& out_rows, PanelRows& b_rows, float* to) const {
    const auto kernel = FASTCNN_SELECT(gemm<float>);
    for (int64_t p = 0; p < panels.count; ++p) {
      const int64_t column = panels.begin(p), panel = panels.width(p);
      const Gemm<float> product{rows,
                                panel,
                                in,
                                from,
                                in,
                                1,
                                weights + column * in,
                                b_rows.of(in, panel),
                                nullptr,
                                nullptr,
                                Activation::none,
                                out_rows.data()};
      kernel(product, to + column, nullptr);
    }
  }
};

Tensor winograd_conv2d_cpu(const Tensor& input, const Tensor& weight, const Tensor& packed, std::optional<Tensor> bias,
                           std::vector<int64_t> padding, int64_t activation, std::optional<Tensor> residual,
                           double slope) {
  constexpr const char* op = "winograd_conv2d";
  STD_TORCH_CHECK(input.dim() == 4 && input.scalar_type() == ScalarType::Float && weight.dim() == 4 &&
                      weight.size(1) == input.size(1) && weight.size(2) == 3 && weight.size(3) == 3 &&
                      padding.size() == 2,
                  op, ": expected float input [N, C, H, W] and weight [out, C, 3, 3]");
  const int64_t in = input.size(1), out = weight.size(0);
  const int64_t rows = input.size(2) + 2 * padding[0] - 2, columns = input.size(3) + 2 * padding[1] - 2;
  STD_TORCH_CHECK(in > 0 && out >= kGemmLanes && padding[0] >= 0 && padding[1] >= 0 && rows > 0 && columns > 0, op,
                  ": the kernel is larger than the padded input, or has fewer than ", kGemmLanes, " filters");
  Tensor y = empty_4d(input, input.size(0), out, rows, columns, true);
  if (y.numel() == 0) return y;
  const std::optional<Tensor> added = checked(op, residual, ScalarType::Float, y.size(0), out, rows, columns);
  const Tensor x = dense_as(input, true);
  const WinogradConvolution convolution{x.size(0),
                                        in,
                                        x.size(2),
                                        x.size(3),
                                        out,
                                        rows,
                                        columns,
                                        padding[0],
                                        padding[1],
                                        static_cast<const float*>(x.const_data_ptr()),
                                        floats(op, packed, kNumbers * in * out),
                                        floats(op, bias, out),
                                        checked(op, activation, slope),
                                        float(slope),
                                        added ? static_cast<const float*>(added->const_data_ptr()) : nullptr,
                                        static_cast<float*>(y.mutable_data_ptr())};
  convolution.run();
  return y;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) { m.impl("winograd_conv2d", TORCH_BOX(&fastcnn::winograd_conv2d_cpu)); }
