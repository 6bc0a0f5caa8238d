#include <cstring>

#include "../pointwise_conv2d/pointwise.h"

namespace fastcnn {
namespace {

constexpr int64_t kInputElements = 48 << 10;    // Of a band of rows; it stays in L2 while the panels pass.
constexpr int64_t kWeightElements = 192 << 10;  // From which on threads share out panels, not each reading them all.

// A convolution of any kernel and stride as products: for each row of the kernel, what lies under it is one piece of
// NHWC memory. Rows are copied where there is padding.
struct DenseConvolution {
  int64_t images, in, height, width, out, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
  const float* x;
  const float* packed;
  const float* bias;
  Activation activation;
  const float* residual;
  float* y;
  float slope;    // Of ReLU, below 0.
  int64_t y_row;  // From pixel to pixel: more than `out` where these are some of a wider map's channels.

  void run() const {
    const int64_t threads = int64_t(torch::stable::get_num_threads()), terms = kernel_h * kernel_w * in;
    const Panels panels(terms, out);
    const bool copies = pad_h > 0 || pad_w > 0;
    const int64_t wide = copies ? std::max(width + 2 * pad_w, (out_width - 1) * stride_w + kernel_w) : width;
    const int64_t fits = std::max<int64_t>((kInputElements / (wide * in) - kernel_h) / stride_h + 1, 1);
    const int64_t parts = terms * out >= kWeightElements ? std::min(threads, panels.count) : 1;
    const int64_t wanted = (2 * threads + images * parts - 1) / (images * parts);
    const int64_t bands = std::min(std::max((out_height + fits - 1) / fits, wanted), out_height);
    const int64_t rows = (out_height + bands - 1) / bands, tasks = parts * images * bands;
    const int64_t copied = ((rows - 1) * stride_h + kernel_h) * wide * in;
    const std::vector<int64_t> out_rows = evenly_spaced(out_width, y_row);
    const auto kernel = FASTCNN_SELECT(gemm<float>);
    torch::stable::parallel_for(
        0, tasks, grain(2 * images * out_height * out_width * terms * out, tasks), [&](int64_t begin, int64_t end) {
          const auto copy = std::make_unique_for_overwrite<float[]>(copies ? copied : 0);
          PanelRows b_rows;
          for (int64_t task = begin; task < end; ++task) {
            const int64_t part = task / (images * bands), image = task / bands % images, band = task % bands;
            const int64_t top = out_height * band / bands, bottom = out_height * (band + 1) / bands;
            const int64_t above = top * stride_h - pad_h;
            const float* from = x + (image * height + above) * width * in;
            if (copies) {
              copy_rows(image, above, (bottom - top - 1) * stride_h + kernel_h, wide, copy.get());
              from = copy.get();
            }
            for (int64_t p = panels.count * part / parts; p < panels.count * (part + 1) / parts; ++p) {
              const int64_t column = panels.begin(p), panel = panels.width(p);
              const int64_t* weight_rows = b_rows.of(terms, panel);
              for (int64_t row = top; row < bottom; ++row) {
                const Gemm<float> product{out_width,
                                          panel,
                                          kernel_w * in,
                                          from + (row - top) * stride_h * wide * in,
                                          stride_w * in,
                                          1,
                                          packed + column * terms,
                                          weight_rows,
                                          nullptr,
                                          bias ? bias + column : nullptr,
                                          activation,
                                          out_rows.data(),
                                          kernel_h,
                                          wide * in,
                                          slope};
                const int64_t at = (image * out_height + row) * out_width * y_row + column;
                kernel(product, y + at, residual ? residual + at : nullptr);
              }
            }
          }
        });
  }

 private:
  void copy_rows(int64_t image, int64_t above, int64_t rows, int64_t wide, float* to) const {
    const int64_t line = width * in, right = (wide - width - pad_w) * in;
    for (int64_t r = 0; r < rows; ++r, to += wide * in) {
      if (above + r < 0 || above + r >= height) {
        std::fill_n(to, wide * in, 0.f);
        continue;
      }
      std::fill_n(to, pad_w * in, 0.f);
      memcpy(to + pad_w * in, x + (image * height + above + r) * line, line * sizeof(float));
      std::fill_n(to + pad_w * in + line, right, 0.f);
    }
  }
};

// `y` is channels_last; the result are its channels from `first` on. A residual is of the shape and layout of `y`.
void convolve(const Tensor& input, const Tensor& weight, const Tensor& packed, const std::optional<Tensor>& bias,
              const std::vector<int64_t>& stride, const std::vector<int64_t>& padding, int64_t activation,
              const std::optional<Tensor>& residual, double slope, int64_t first, Tensor& y) {
  constexpr const char* op = "dense_conv2d";
  if (y.numel() == 0) return;
  const Tensor x = dense_as(input, true);
  const int64_t out = weight.size(0);
  const DenseConvolution convolution{x.size(0),
                                     x.size(1),
                                     x.size(2),
                                     x.size(3),
                                     out,
                                     y.size(2),
                                     y.size(3),
                                     weight.size(2),
                                     weight.size(3),
                                     stride[0],
                                     stride[1],
                                     padding[0],
                                     padding[1],
                                     static_cast<const float*>(x.const_data_ptr()),
                                     floats(op, packed, weight.numel()),
                                     floats(op, bias, out),
                                     checked(op, activation, slope),
                                     residual ? static_cast<const float*>(residual->const_data_ptr()) : nullptr,
                                     static_cast<float*>(y.mutable_data_ptr()) + first,
                                     float(slope),
                                     y.size(1)};
  convolution.run();
}

// Height and width of the result.
std::pair<int64_t, int64_t> checked_size(const Tensor& input, const Tensor& weight, const std::vector<int64_t>& stride,
                                         const std::vector<int64_t>& padding) {
  constexpr const char* op = "dense_conv2d";
  STD_TORCH_CHECK(input.dim() == 4 && input.scalar_type() == ScalarType::Float && weight.dim() == 4 &&
                      weight.size(1) == input.size(1) && stride.size() == 2 && padding.size() == 2,
                  op, ": expected float input [N, C, H, W] and weight [out, C, h, w]");
  const int64_t height = input.size(2) + 2 * padding[0] - weight.size(2);
  const int64_t width = input.size(3) + 2 * padding[1] - weight.size(3);
  STD_TORCH_CHECK(input.size(1) > 0 && weight.size(0) >= kGemmLanes && weight.size(2) > 0 && weight.size(3) > 0 &&
                      stride[0] > 0 && stride[1] > 0 && padding[0] >= 0 && padding[1] >= 0 && height >= 0 && width >= 0,
                  op, ": the kernel is larger than the padded input, or has fewer than ", kGemmLanes, " filters");
  return {height / stride[0] + 1, width / stride[1] + 1};
}

Tensor dense_conv2d_cpu(const Tensor& input, const Tensor& weight, const Tensor& packed, std::optional<Tensor> bias,
                        std::vector<int64_t> stride, std::vector<int64_t> padding, int64_t activation,
                        std::optional<Tensor> residual, double slope) {
  const auto [rows, columns] = checked_size(input, weight, stride, padding);
  Tensor y = empty_4d(input, input.size(0), weight.size(0), rows, columns, true);
  const std::optional<Tensor> added =
      checked("dense_conv2d", residual, ScalarType::Float, y.size(0), y.size(1), rows, columns);
  convolve(input, weight, packed, bias, stride, padding, activation, added, slope, 0, y);
  return y;
}

void dense_conv2d_into_cpu(Tensor out, int64_t first, const Tensor& input, const Tensor& weight, const Tensor& packed,
                           std::optional<Tensor> bias, std::vector<int64_t> stride, std::vector<int64_t> padding,
                           int64_t activation, double slope) {
  const auto [rows, columns] = checked_size(input, weight, stride, padding);
  STD_TORCH_CHECK(out.dim() == 4 && out.scalar_type() == ScalarType::Float &&
                      dense_as(out, true).data_ptr() == out.data_ptr() && out.size(0) == input.size(0) &&
                      out.size(2) == rows && out.size(3) == columns && first >= 0 &&
                      first + weight.size(0) <= out.size(1),
                  "dense_conv2d_into: expected a channels_last result with room for ", weight.size(0),
                  " channels from channel ", first, " on");
  convolve(input, weight, packed, bias, stride, padding, activation, std::nullopt, slope, first, out);
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("dense_conv2d", TORCH_BOX(&fastcnn::dense_conv2d_cpu));
  m.impl("dense_conv2d_into", TORCH_BOX(&fastcnn::dense_conv2d_into_cpu));
}
