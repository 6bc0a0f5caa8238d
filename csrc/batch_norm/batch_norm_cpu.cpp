#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/tensor.h"
#include "batch_norm_kernel.h"

namespace fastcnn {
namespace {

constexpr int64_t kLanes = 16;          // A multiple of any vector's.
constexpr int64_t kWidth = 128;         // Elements of a row, made of several pixels where channels are few.
constexpr int64_t kMostWidth = 4096;    // And at most, lest sums leave the first-level cache.
constexpr int64_t kRows = 64;           // What rows of a part are a multiple of: the kernels' block.
constexpr int64_t kParts = 32;          // At most, however many threads there are.
constexpr int64_t kGrain = 1 << 14;     // Elements a thread must have for a second one to pay.
constexpr int64_t kStreamed = 8 << 20;  // Bytes of a result that caches do not hold until somebody reads it.

// A tensor in parts, the same whatever the number of threads: runs of rows, each of `repeat` pixels whose channels lie
// together, and at last the pixels left over; or its planes. What is known of a channel comes as vectors over all
// channels, `repeat` of them from each part, or one from the planes of an image.
struct Parts {
  bool planes;
  int64_t channels, repeat = 1, rows, left = 0, length, runs;

  Parts(const Tensor& x, bool channels_last) : channels(x.size(1)) {
    const int64_t pixels = x.numel() / channels, area = pixels / x.size(0);
    planes = !channels_last && area > 1;
    if (planes) {
      rows = length = area, runs = x.size(0) * channels;
      return;
    }
    const int64_t whole = kLanes / std::gcd(channels, kLanes);
    if (whole * channels <= kMostWidth) repeat = whole * std::max<int64_t>(1, kWidth / (whole * channels));
    rows = pixels / repeat, left = pixels % repeat;
    length = std::max<int64_t>(1, (rows + kParts * kRows - 1) / (kParts * kRows)) * kRows;
    runs = (rows + length - 1) / length;
  }

  int64_t width() const { return planes ? 1 : repeat * channels; }
  int64_t count() const { return runs + (left > 0); }
  int64_t vectors() const { return planes ? runs / channels : runs * repeat + (left > 0); }
  BatchNormRows at(int64_t part) const {
    if (planes) return {rows, 1};
    return part == runs ? BatchNormRows{left, channels}
                        : BatchNormRows{std::min(length, rows - part * length), width()};
  }
  int64_t offset(int64_t part) const { return (part == runs ? rows : part * length) * width(); }
  int64_t first_channel(int64_t part) const { return planes ? part % channels : 0; }
  // How many numbers of a channel are in such a vector.
  int64_t numbers(int64_t vector) const {
    return planes ? rows : vector == runs * repeat ? left : at(vector / repeat).rows;
  }

  template <typename F>
  void for_each(const F& f) const {
    torch::stable::parallel_for(0, count(), std::max<int64_t>(1, kGrain / (length * width())), f);
  }
};

template <typename A>
struct Factors {
  int64_t width;
  std::vector<A> numbers;
  bool batch;

  Factors(const Parts& parts, bool batch)
      : width(parts.planes ? parts.channels : parts.width()), numbers((batch ? 5 : 3) * width), batch(batch) {}

  BatchNormFactors<A> from(int64_t channel) const {
    const A* at = numbers.data() + channel;
    return {at, at + width, at + 2 * width, batch ? at + 3 * width : nullptr, batch ? at + 4 * width : nullptr};
  }
  // Of channel c, at every pixel of a row.
  void set(int64_t which, int64_t c, int64_t channels, double value) {
    for (int64_t i = c; i < width; i += channels) numbers[which * width + i] = A(value);
  }
};

// A vector over the channels, of the type computed in; or null.
template <typename A>
struct Vector {
  std::optional<Tensor> tensor;
  const A* at = nullptr;

  Vector(const std::optional<Tensor>& of, ScalarType dtype, int64_t channels, const char* name) {
    if (!of) return;
    STD_TORCH_CHECK(of->dim() == 1 && of->size(0) == channels, "batch_norm: expected ", name, " of ", channels,
                    " numbers");
    tensor = contiguous_as(*of, dtype);
    at = static_cast<const A*>(tensor->const_data_ptr());
  }
};

ScalarType wide(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

Tensor result_like(const Tensor& x, bool channels_last) {
  return x.dim() == 4 ? empty_4d(x, x.size(0), x.size(1), x.size(2), x.size(3), channels_last) : empty_laid_out_as(x);
}

Activation activation_of(int64_t activation) {
  STD_TORCH_CHECK(activation >= 0 && activation <= int64_t(Activation::silu), "batch_norm: no such activation");
  return Activation(activation);
}

template <typename T>
bool streams(const Parts& parts, const T* result, int64_t n) {
  return !parts.planes && parts.width() % kLanes == 0 && n * int64_t(sizeof(T)) >= kStreamed &&
         reinterpret_cast<uintptr_t>(result) % 64 == 0;
}

// What the activation is applied to is scale * x + shift.
template <typename A>
void set_line(Factors<A>& factors, int64_t channels, const A* mean, const A* deviation, const A* weight,
              const A* bias) {
  for (int64_t c = 0; c < channels; ++c) {
    const double scale = double(A(double(deviation[c]) * (weight ? double(weight[c]) : 1.0)));
    factors.set(0, c, channels, scale);
    factors.set(1, c, channels, (bias ? double(bias[c]) : 0.0) - double(mean[c]) * scale);
    factors.set(2, c, channels, double(mean[c]));
  }
}

// Mean, 1 / deviation and unbiased variance, of the batch.
template <typename T>
void batch_statistics(const T* x, const Parts& parts, double eps, acc_t<T>* saved) {
  using A = acc_t<T>;
  const int64_t channels = parts.channels, width = parts.width(), vectors = parts.vectors();
  std::vector<double> mean(vectors * channels), square(vectors * channels);
  const auto kernel = FASTCNN_SELECT(batch_norm_moments<T>);
  parts.for_each([&](int64_t begin, int64_t end) {
    const std::unique_ptr<A[]> scratch(new A[3 * width]);
    for (int64_t i = begin; i < end; ++i)
      kernel(x + parts.offset(i), parts.at(i), scratch.get(), mean.data() + i * width, square.data() + i * width);
  });
  double n = double(parts.numbers(0));
  for (int64_t v = 1; v < vectors; ++v) {
    const double more = double(parts.numbers(v));
    FASTCNN_SELECT(batch_norm_merge)
    (n, mean.data(), square.data(), more, mean.data() + v * channels, square.data() + v * channels, channels);
    n += more;
  }
  for (int64_t c = 0; c < channels; ++c) {
    saved[c] = A(mean[c]);
    saved[channels + c] = A(1 / std::sqrt(square[c] / n + eps));
    saved[2 * channels + c] = A(square[c] / (n - 1));
  }
}

std::tuple<Tensor, Tensor> batch_norm_cpu(const Tensor& input, const std::optional<Tensor>& running_mean,
                                          const std::optional<Tensor>& running_var, const std::optional<Tensor>& weight,
                                          const std::optional<Tensor>& bias, bool training, double eps,
                                          int64_t activation) {
  STD_TORCH_CHECK(input.dim() >= 2, "batch_norm: expected input of at least 2 dimensions");
  STD_TORCH_CHECK(training || (running_mean && running_var), "batch_norm: expected running statistics");
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  const Activation kind = activation_of(activation);
  const int64_t channels = x.size(1);
  Tensor out = result_like(x, channels_last);
  Tensor saved = torch::stable::empty({3, channels}, wide(x), std::nullopt, x.device());
  if (x.numel() == 0) {
    torch::stable::fill_(saved, 0.0);
    return {out, saved};
  }
  const Parts parts(x, channels_last);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "batch_norm", {
    using A = acc_t<scalar_t>;
    const Vector<A> scale(weight, wide(x), channels, "weight"), shift(bias, wide(x), channels, "bias");
    const auto* from = static_cast<const scalar_t*>(x.const_data_ptr());
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    auto* kept = static_cast<A*>(saved.mutable_data_ptr());
    if (training) {
      batch_statistics(from, parts, eps, kept);
    } else {
      const Vector<A> mean(running_mean, wide(x), channels, "running_mean");
      const Vector<A> variance(running_var, wide(x), channels, "running_var");
      for (int64_t c = 0; c < channels; ++c) {
        kept[c] = mean.at[c];
        kept[channels + c] = A(1 / std::sqrt(double(variance.at[c]) + eps));
        kept[2 * channels + c] = variance.at[c];
      }
    }
    Factors<A> factors(parts, false);
    set_line(factors, channels, kept, kept + channels, scale.at, shift.at);
    const auto kernel = FASTCNN_SELECT(batch_norm_forward<scalar_t>);
    const bool past_caches = streams(parts, to, x.numel());
    parts.for_each([&](int64_t begin, int64_t end) {
      for (int64_t i = end; i-- > begin;)  // What was read last is in the caches.
        kernel(from + parts.offset(i), parts.at(i), factors.from(parts.first_channel(i)), kind,
               past_caches && i < parts.runs, to + parts.offset(i));
    });
  });
  return {out, saved};
}

// Sums over the batch of the gradient before the activation, and of its products with x - mean.
template <typename T>
std::vector<double> gradient_sums(const T* grad, const T* x, const Parts& parts, const Factors<acc_t<T>>& factors,
                                  Activation kind) {
  using A = acc_t<T>;
  const int64_t channels = parts.channels, width = parts.width(), size = parts.vectors() * channels;
  std::vector<double> sums(2 * size);
  const auto kernel = FASTCNN_SELECT(batch_norm_sums<T>);
  parts.for_each([&](int64_t begin, int64_t end) {
    const std::unique_ptr<A[]> scratch(new A[2 * width]);
    for (int64_t i = begin; i < end; ++i)
      kernel(grad + parts.offset(i), x + parts.offset(i), parts.at(i), factors.from(parts.first_channel(i)), kind,
             scratch.get(), sums.data() + i * width, sums.data() + size + i * width);
  });
  for (int64_t of = 0; of < 2 * size; of += size)
    for (int64_t i = channels; i < size; ++i) sums[of + i % channels] += sums[of + i];
  std::copy_n(sums.begin() + size, channels, sums.begin() + channels);
  return sums;
}

// Of the input, the weight and the bias, the latter two in the type computed in; empty where not needed.
std::tuple<Tensor, Tensor, Tensor> batch_norm_backward_cpu(const Tensor& grad, const Tensor& input, const Tensor& saved,
                                                           const std::optional<Tensor>& weight,
                                                           const std::optional<Tensor>& bias, bool training,
                                                           int64_t activation, bool needs_input,
                                                           bool needs_parameters) {
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input), g = laid_out_as(grad, x);
  STD_TORCH_CHECK(g.scalar_type() == x.scalar_type(), "batch_norm_backward: expected a gradient of the input's dtype");
  STD_TORCH_CHECK(saved.numel() == 3 * x.size(1) && saved.scalar_type() == wide(x) && saved.is_contiguous(),
                  "batch_norm_backward: expected what batch_norm saved");
  const Activation kind = activation_of(activation);
  const int64_t channels = x.size(1);
  const auto empty = [&](int64_t n) { return torch::stable::empty({n}, wide(x), std::nullopt, x.device()); };
  Tensor of_x = needs_input ? result_like(x, channels_last)
                            : torch::stable::empty({0}, x.scalar_type(), std::nullopt, x.device());
  Tensor of_weight = empty(needs_parameters ? channels : 0), of_bias = empty(needs_parameters ? channels : 0);
  if (x.numel() == 0) {
    torch::stable::fill_(of_weight, 0.0), torch::stable::fill_(of_bias, 0.0);
    return {of_x, of_weight, of_bias};
  }
  const Parts parts(x, channels_last);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "batch_norm_backward", {
    using A = acc_t<scalar_t>;
    const Vector<A> scale(weight, wide(x), channels, "weight"), shift(bias, wide(x), channels, "bias");
    const auto* from = static_cast<const scalar_t*>(x.const_data_ptr());
    const auto* of = static_cast<const scalar_t*>(g.const_data_ptr());
    const auto* mean = static_cast<const A*>(saved.const_data_ptr());
    const A* deviation = mean + channels;
    Factors<A> factors(parts, training);
    set_line(factors, channels, mean, deviation, scale.at, shift.at);
    if (needs_parameters || training) {
      const std::vector<double> sums = gradient_sums(of, from, parts, factors, kind);
      const double n = double(x.numel() / channels);
      for (int64_t c = 0; c < channels; ++c) {
        const double sum = sums[c], product = sums[channels + c] * deviation[c];
        if (needs_parameters) {
          static_cast<A*>(of_weight.mutable_data_ptr())[c] = A(product);
          static_cast<A*>(of_bias.mutable_data_ptr())[c] = A(sum);
        }
        if (!training) continue;
        const double factor = double(deviation[c]) * (scale.at ? double(scale.at[c]) : 1.0) / n;
        factors.set(3, c, channels, factor * product * deviation[c]);
        factors.set(4, c, channels, factor * sum);
      }
    }
    if (needs_input) {
      const auto kernel = FASTCNN_SELECT(batch_norm_backward<scalar_t>);
      auto* to = static_cast<scalar_t*>(of_x.mutable_data_ptr());
      const bool past_caches = streams(parts, to, x.numel());
      parts.for_each([&](int64_t begin, int64_t end) {
        for (int64_t i = end; i-- > begin;)
          kernel(of + parts.offset(i), from + parts.offset(i), parts.at(i), factors.from(parts.first_channel(i)), kind,
                 past_caches && i < parts.runs, to + parts.offset(i));
      });
    }
  });
  return {of_x, of_weight, of_bias};
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("batch_norm", TORCH_BOX(&fastcnn::batch_norm_cpu));
  m.impl("batch_norm_backward", TORCH_BOX(&fastcnn::batch_norm_backward_cpu));
}
