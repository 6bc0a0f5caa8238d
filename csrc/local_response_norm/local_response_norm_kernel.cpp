#include "local_response_norm_kernel.h"

#include "../common/math.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// d^-beta, and for the gradient d^-(beta + 1).
template <typename V>
struct Factors {
  V value, slope;
};

template <LrnPower power, typename A, int N>
inline Factors<Vec<A, N>> factors(Vec<A, N> d, double beta) {
  using V = Vec<A, N>;
  if constexpr (power == LrnPower::one) {
    const V y = 1 / d;
    return {y, y * y};
  } else if constexpr (power == LrnPower::half) {
    const V y = 1 / sqrt<A, N>(d);
    return {y, y * y * y};
  } else if constexpr (power == LrnPower::three_quarters) {
    const V y = inverse_fourth_root<A, N>(d), y3 = y * y * y;
    return {y3, y3 * (y3 * y)};
  } else {
    V y;
    if constexpr (power == LrnPower::any && sizeof(A) == 4)
      y = pow_positive<N>(d, -beta);
    else
      for (int i = 0; i < N; ++i) y[i] = A(__builtin_pow(double(d[i]), -beta));
    return {y, y / d};
  }
}

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// The sum of `count` rows, `stride` apart, in their order.
template <int lanes, typename A>
inline Vec<A, lanes> row_sum(const A* rows, int64_t stride, int64_t count) {
  Vec<A, lanes> sum = load<lanes>(rows);
  if (count == 5) {  // What networks have: without a loop.
    for (int i = 1; i < 5; ++i) sum += load<lanes>(rows + i * stride);
    return sum;
  }
  for (int64_t i = 1; i < count; ++i) sum += load<lanes>(rows + i * stride);
  return sum;
}

constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Row by row. The terms of the gradient go round in as many rows of scratch as the longest window has channels, or a
// few more, which stay in the first-level cache.
template <LrnPower power, typename T>
void planes(const T* x, const T* grad, const LrnRun& run, const LrnWindow& window, acc_t<T>* terms, T* out) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t width = round_up(run.room, lanes), channels = run.channels, last = channels - 1;
  const int64_t turn = lrn_rows(window) - 1, lag = grad ? window.before : 0;
  A* const direct = terms + (turn + 1) * width;
  const A scale = A(window.scale), k = A(window.k), back = A(2 * window.scale * window.beta);
  for (int64_t c = 0; c < channels + lag; ++c) {
    const int64_t from = larger(c - window.before, 0), to = smaller(c + window.after, last);
    for (int64_t i = 0; c <= last && i < run.pixels; i += lanes) {
      const int64_t left = run.pixels - i, at = c * run.stride + i;
      Vec<A, lanes> sum{};
      for (int64_t j = from; j <= to; ++j) {
        const auto v = load_some<lanes>(x + j * run.stride + i, left);
        sum += v * v;
      }
      const auto f = factors<power, A, lanes>(k + scale * sum, window.beta);
      const auto v = load_some<lanes>(x + at, left);
      if (!grad) {
        store_some<lanes>(out + at, v * f.value, left);
      } else {
        const auto g = load_some<lanes>(grad + at, left);
        store<lanes>(terms + (c & turn) * width + i, g * v * f.slope);
        store<lanes>(direct + (c & turn) * width + i, g * f.value);
      }
    }
    // A channel is in the windows of those from `after` before it to `before` after it, which are now all known.
    const int64_t done = c - lag, first = larger(done - window.after, 0), end = smaller(c, last);
    for (int64_t i = 0; grad && done >= 0 && i < run.pixels; i += lanes) {
      const int64_t left = run.pixels - i, at = done * run.stride + i;
      Vec<A, lanes> sum{};
      for (int64_t j = first; j <= end; ++j) sum += load<lanes>(terms + (j & turn) * width + i);
      const auto v = load_some<lanes>(x + at, left);
      store_some<lanes>(out + at, load<lanes>(direct + (done & turn) * width + i) - back * v * sum, left);
    }
  }
}

// Rows of scratch have zeros before and after the channels, so that every window is whole.
template <LrnPower power, typename T>
void pixels(const T* x, const T* grad, const LrnRun& run, const LrnWindow& window, acc_t<T>* squares, T* out) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t channels = run.channels, size = window.before + window.after + 1;
  const int64_t width = round_up(channels, lanes) + round_up(size, lanes);
  A* const terms = squares + run.room * width;
  A* const direct = terms + run.room * width;
  const A scale = A(window.scale), k = A(window.k);
  for (int64_t p = 0; p < run.pixels; ++p)
    for (int64_t c = 0; c < channels; c += lanes) {
      const auto v = load_some<lanes>(x + p * channels + c, channels - c);
      store<lanes>(squares + p * width + window.before + c, v * v);
    }
  for (int64_t p = 0; p < run.pixels; ++p)
    for (int64_t c = 0; c < channels; c += lanes) {
      const int64_t at = p * channels + c, left = channels - c;
      const auto d = k + scale * row_sum<lanes>(squares + p * width + c, 1, size);
      const auto f = factors<power, A, lanes>(d, window.beta);
      const auto v = load_some<lanes>(x + at, left);
      if (!grad) {
        store_some<lanes>(out + at, v * f.value, left);
      } else {
        const auto g = load_some<lanes>(grad + at, left);
        // Past the last channel d may be 0, and the term no number.
        store_some<lanes>(terms + p * width + window.after + c, g * v * f.slope, left);
        store<lanes>(direct + p * width + c, g * f.value);
      }
    }
  if (!grad) return;
  const A back = A(2 * window.scale * window.beta);
  for (int64_t p = 0; p < run.pixels; ++p)
    for (int64_t c = 0; c < channels; c += lanes) {
      const int64_t at = p * channels + c, left = channels - c;
      const auto sum = row_sum<lanes>(terms + p * width + c, 1, size);
      const auto v = load_some<lanes>(x + at, left);
      store_some<lanes>(out + at, load<lanes>(direct + p * width + c) - back * v * sum, left);
    }
}

}  // namespace

#define FOR_EACH_POWER(function)                                                     \
  switch (window.power) {                                                            \
    case LrnPower::one:                                                              \
      return function<LrnPower::one>(x, grad, run, window, scratch, out);            \
    case LrnPower::half:                                                             \
      return function<LrnPower::half>(x, grad, run, window, scratch, out);           \
    case LrnPower::three_quarters:                                                   \
      return function<LrnPower::three_quarters>(x, grad, run, window, scratch, out); \
    case LrnPower::any:                                                              \
      return function<LrnPower::any>(x, grad, run, window, scratch, out);            \
    case LrnPower::any_sign:                                                         \
      return function<LrnPower::any_sign>(x, grad, run, window, scratch, out);       \
  }

template <typename T>
void lrn_planes(const T* x, const T* grad, const LrnRun& run, const LrnWindow& window, acc_t<T>* scratch, T* out) {
  FOR_EACH_POWER(planes)
}

template <typename T>
void lrn_channels_last(const T* x, const T* grad, const LrnRun& run, const LrnWindow& window, acc_t<T>* scratch,
                       T* out){FOR_EACH_POWER(pixels)}

#define INSTANTIATE(T)                                                                             \
  template void lrn_planes<T>(const T*, const T*, const LrnRun&, const LrnWindow&, acc_t<T>*, T*); \
  template void lrn_channels_last<T>(const T*, const T*, const LrnRun&, const LrnWindow&, acc_t<T>*, T*);
INSTANTIATE(float) INSTANTIATE(double) INSTANTIATE(Half) INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
