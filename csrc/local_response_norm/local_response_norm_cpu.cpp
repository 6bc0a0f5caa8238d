#include <algorithm>
#include <memory>

#include "../common/tensor.h"
#include "local_response_norm_kernel.h"

namespace fastcnn {
namespace {

constexpr int64_t kLanes = 16;       // A multiple of any vector's.
constexpr int64_t kNumbers = 2048;   // Of a run of channels_last, of which the first-level cache then holds a few.
constexpr int64_t kPixels = 256;     // Of a run of NCHW.
constexpr int64_t kGrain = 1 << 14;  // Elements a thread must have for a second one to pay.

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

LrnPower power_of(double beta, double scale, double k) {
  if (beta == 0.75) return LrnPower::three_quarters;
  if (beta == 0.5) return LrnPower::half;
  if (beta == 1) return LrnPower::one;
  // By vectors the power 0 of infinity would be NaN.
  return scale >= 0 && k >= 0 && beta != 0 ? LrnPower::any : LrnPower::any_sign;
}

// Of x, or of its gradient where there is one of the result.
Tensor run_lrn(const Tensor& input, const Tensor* grad, int64_t size, double alpha, double beta, double k) {
  STD_TORCH_CHECK(input.dim() >= 3 && size >= 1,
                  "local_response_norm: expected input of at least 3 dimensions and a positive size");
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  Tensor out = x.dim() == 4 ? empty_4d(x, x.size(0), x.size(1), x.size(2), x.size(3), channels_last)
                            : torch::stable::empty_like(x);
  if (x.numel() == 0) return out;
  const Tensor g = grad ? laid_out_as(*grad, x) : x;
  STD_TORCH_CHECK(g.scalar_type() == x.scalar_type(),
                  "local_response_norm_backward: expected a gradient of the dtype of the input");
  const int64_t images = x.size(0), channels = x.size(1), pixels = x.numel() / (images * channels);
  const double scale = alpha / double(size);
  const LrnWindow window{std::min(size / 2, channels - 1), std::min((size - 1) / 2, channels - 1), scale, beta, k,
                         power_of(beta, scale, k)};
  const int64_t length = std::min(channels_last ? std::max<int64_t>(1, kNumbers / channels) : kPixels, pixels);
  const int64_t scratch_size =
      channels_last ? 3 * length * (round_up(channels, kLanes) + round_up(window.before + window.after + 1, kLanes))
                    : 2 * lrn_rows(window) * round_up(length, kLanes);
  const int64_t runs = (pixels + length - 1) / length;
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "local_response_norm", {
    using A = acc_t<scalar_t>;
    const auto kernel =
        channels_last ? FASTCNN_SELECT(lrn_channels_last<scalar_t>) : FASTCNN_SELECT(lrn_planes<scalar_t>);
    const auto* from = static_cast<const scalar_t*>(x.const_data_ptr());
    const auto* of = static_cast<const scalar_t*>(g.const_data_ptr());
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    const int64_t grain = std::max<int64_t>(1, kGrain / (length * channels));
    torch::stable::parallel_for(0, images * runs, grain, [&](int64_t begin, int64_t end) {
      const auto scratch = std::make_unique<A[]>(scratch_size);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t p = task % runs * length;
        const int64_t offset = task / runs * channels * pixels + (channels_last ? p * channels : p);
        const LrnRun run{channels, std::min(length, pixels - p), pixels, length};
        kernel(from + offset, grad ? of + offset : nullptr, run, window, scratch.get(), to + offset);
      }
    });
  });
  return out;
}

Tensor local_response_norm_cpu(const Tensor& input, int64_t size, double alpha, double beta, double k) {
  return run_lrn(input, nullptr, size, alpha, beta, k);
}

Tensor local_response_norm_backward_cpu(const Tensor& grad, const Tensor& input, int64_t size, double alpha,
                                        double beta, double k) {
  return run_lrn(input, &grad, size, alpha, beta, k);
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("local_response_norm", TORCH_BOX(&fastcnn::local_response_norm_cpu));
  m.impl("local_response_norm_backward", TORCH_BOX(&fastcnn::local_response_norm_backward_cpu));
}
