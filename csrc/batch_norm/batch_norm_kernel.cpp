#include "batch_norm_kernel.h"

#include "../common/elementwise.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Of the bodies of loops: as calls they take several times as long.
#define INLINE __attribute__((always_inline))

// Rows, or vectors of one channel, whose sums are in the type of the elements; those of many are in double.
constexpr int64_t kBlock = 64;
constexpr int kSums = 4;  // Of one channel at a time, so that none waits for the one before.

// A factor of each channel of a row, or that of the only one.
template <int lanes, bool one, typename A>
[[gnu::always_inline]] inline Vec<A, lanes> factor(const A* of, int64_t i, int64_t count) {
  if constexpr (one) return Vec<A, lanes>{} + *of;
  return load_some<lanes>(of + i, count);
}

// The gradient before the activation.
template <Activation kind, int lanes, bool one, typename A>
[[gnu::always_inline]] inline Vec<A, lanes> before(Vec<A, lanes> grad, Vec<A, lanes> x,
                                                   const BatchNormFactors<A>& factors, int64_t i, int64_t count) {
  if constexpr (kind == Activation::none) return grad;
  const auto scale = factor<lanes, one>(factors.scale, i, count), shift = factor<lanes, one>(factors.shift, i, count);
  return activate_backward<kind, A, lanes>(grad, x * scale + shift);
}

// From sums over `n` rows of distances from a number near the mean, so that little cancels.
inline void moments_of(double n, double near, double sum, double squares, double& mean, double& square) {
  const double distance = sum / n, rest = squares - sum * distance;
  mean = near + distance;
  square = rest < 0 ? 0 : rest;
}

inline void merge(double n, double& mean, double& square, double count, double more_mean, double more_square) {
  const double distance = more_mean - mean, share = count / (n + count);
  mean += distance * share;
  square += more_square + distance * distance * (n * share);
}

// A number near the mean of all, whichever of the three is far away; 0 where it is not finite.
template <typename V>
inline V near_of(V a, V b, V c) {
  const V low = a < b ? a : b, high = a < b ? b : a, upper = high < c ? high : c, x = low > upper ? low : upper;
  return x - x == 0 ? x : V{};
}

template <typename T>
void row_moments(const T* x, const BatchNormRows& part, acc_t<T>* scratch, double* __restrict mean,
                 double* __restrict square) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t width = part.width;
  A *const near = scratch, *const sum = near + width, *const squares = sum + width;
  for (int64_t done = 0; done < part.rows; done += kBlock) {
    const int64_t n = part.rows - done < kBlock ? part.rows - done : kBlock;
    const T* block = x + done * width;
    for (int64_t i = 0; i < width; ++i) {
      if (done > 0) near[i] = near_of<A>(mean[i], mean[i], mean[i]);
      sum[i] = squares[i] = 0;
    }
    for_each_vector<lanes>(done > 0 ? 0 : width, [&](int64_t i, int64_t count) INLINE {
      const auto row = [&](int64_t r) { return load_some<lanes>(block + r * width + i, count); };
      store_some<lanes>(near + i, near_of(row(0), row(n / 2), row(n - 1)), count);
    });
    for (int64_t r = 0; r < n; ++r)
      for_each_vector<lanes>(width, [&](int64_t i, int64_t count) INLINE {
        const auto d = load_some<lanes>(block + r * width + i, count) - load_some<lanes>(near + i, count);
        store_some<lanes>(sum + i, load_some<lanes>(sum + i, count) + d, count);
        store_some<lanes>(squares + i, load_some<lanes>(squares + i, count) + d * d, count);
      });
    const double rows = double(n), before = double(done);
    for (int64_t i = 0; i < width; ++i) {
      double m, q;
      moments_of(rows, near[i], sum[i], squares[i], m, q);
      if (done == 0)
        mean[i] = m, square[i] = q;
      else
        merge(before, mean[i], square[i], rows, m, q);
    }
  }
}

// The sum of all lanes, those of one vector in double.
template <typename V>
inline double total(const V (&sums)[kSums]) {
  constexpr int lanes = sizeof(V) / sizeof(Lane<V>);
  const V sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double wide[lanes];
  for (int i = 0; i < lanes; ++i) wide[i] = sum[i];
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) wide[i] += wide[i + half];
  return wide[0];
}

template <typename A>
constexpr A kOnes[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

template <typename T>
void run_moments(const T* x, int64_t n, double& mean, double& square) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  for (int64_t done = 0; done < n; done += kBlock * lanes) {
    const int64_t size = n - done < kBlock * lanes ? n - done : kBlock * lanes;
    const auto some = [&](int64_t i) { return done > 0 ? A(mean) : load_some<lanes>(x + i, 1)[0]; };
    const A near = near_of(some(0), some(size / 2), some(size - 1));
    Vec<A, lanes> sum[kSums] = {}, squares[kSums] = {};
    for_each_vector<lanes>(size, [&](int64_t i, int64_t count) INLINE {
      auto d = load_some<lanes>(x + done + i, count) - near;
      if (count < lanes) d *= load_some<lanes>(kOnes<A>, count);
      const int64_t k = i / lanes % kSums;
      sum[k] += d;
      squares[k] += d * d;
    });
    double m, r;
    moments_of(double(size), near, total(sum), total(squares), m, r);
    if (done == 0)
      mean = m, square = r;
    else
      merge(double(done), mean, square, double(size), m, r);
  }
}

// `streams` only where all vectors are whole.
template <typename T, typename V>
[[gnu::always_inline]] inline void put(T* at, V v, int64_t count, bool streams) {
  constexpr int lanes = kLanes<acc_t<T>>;
  if (streams)
    stream<lanes>(at, v);
  else
    store_some<lanes>(at, v, count);
}

template <Activation kind, bool one, typename T>
void forward(const T* x, const BatchNormRows& part, const BatchNormFactors<acc_t<T>>& factors, bool streams, T* y) {
  constexpr int lanes = kLanes<acc_t<T>>;
  const int64_t rows = one ? 1 : part.rows, width = one ? part.rows : part.width;
  for (int64_t r = 0; r < rows; ++r)
    for_each_vector<lanes>(width, [&](int64_t i, int64_t count) INLINE {
      const auto scale = factor<lanes, one>(factors.scale, i, count);
      const auto shift = factor<lanes, one>(factors.shift, i, count);
      const auto v = load_some<lanes>(x + r * width + i, count);
      put(y + r * width + i, activate<kind, acc_t<T>, lanes>(v * scale + shift), count, streams);
    });
  if (streams) end_stream();
}

template <Activation kind, typename T>
void row_sums(const T* grad, const T* x, const BatchNormRows& part, const BatchNormFactors<acc_t<T>>& factors,
              acc_t<T>* scratch, double* __restrict sum, double* __restrict product) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t width = part.width;
  A *const s = scratch, *const p = s + width;
  for (int64_t i = 0; i < width; ++i) sum[i] = product[i] = 0;
  for (int64_t done = 0; done < part.rows; done += kBlock) {
    const int64_t n = part.rows - done < kBlock ? part.rows - done : kBlock;
    for (int64_t i = 0; i < width; ++i) s[i] = p[i] = 0;
    for (int64_t r = done; r < done + n; ++r)
      for_each_vector<lanes>(width, [&](int64_t i, int64_t count) INLINE {
        const auto v = load_some<lanes>(x + r * width + i, count);
        const auto after = load_some<lanes>(grad + r * width + i, count);
        const auto g = before<kind, lanes, false>(after, v, factors, i, count);
        const auto product = g * (v - load_some<lanes>(factors.mean + i, count));
        store_some<lanes>(s + i, load_some<lanes>(s + i, count) + g, count);
        store_some<lanes>(p + i, load_some<lanes>(p + i, count) + product, count);
      });
    for (int64_t i = 0; i < width; ++i) sum[i] += s[i], product[i] += p[i];
  }
}

template <Activation kind, typename T>
void run_sums(const T* grad, const T* x, int64_t n, const BatchNormFactors<acc_t<T>>& factors, double& sum,
              double& product) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  sum = product = 0;
  for (int64_t done = 0; done < n; done += kBlock * lanes) {
    const int64_t size = n - done < kBlock * lanes ? n - done : kBlock * lanes;
    Vec<A, lanes> s[kSums] = {}, p[kSums] = {};
    for_each_vector<lanes>(size, [&](int64_t i, int64_t count) INLINE {
      const auto v = load_some<lanes>(x + done + i, count);
      // Past the end the gradient is 0.
      const auto g = before<kind, lanes, true>(load_some<lanes>(grad + done + i, count), v, factors, 0, count);
      const int64_t k = i / lanes % kSums;
      s[k] += g;
      p[k] += g * (v - *factors.mean);
    });
    sum += total(s);
    product += total(p);
  }
}

template <Activation kind, bool one, bool batch, typename T>
void backward(const T* grad, const T* x, const BatchNormRows& part, const BatchNormFactors<acc_t<T>>& factors,
              bool streams, T* grad_x) {
  constexpr int lanes = kLanes<acc_t<T>>;
  const int64_t rows = one ? 1 : part.rows, width = one ? part.rows : part.width;
  for (int64_t r = 0; r < rows; ++r)
    for_each_vector<lanes>(width, [&](int64_t i, int64_t count) INLINE {
      const auto v = load_some<lanes>(x + r * width + i, count);
      const auto after = load_some<lanes>(grad + r * width + i, count);
      const auto g = before<kind, lanes, one>(after, v, factors, i, count);
      auto result = factor<lanes, one>(factors.scale, i, count) * g;
      if constexpr (batch) {
        const auto distance = v - factor<lanes, one>(factors.mean, i, count);
        result -= factor<lanes, one>(factors.slope, i, count) * distance + factor<lanes, one>(factors.offset, i, count);
      }
      put(grad_x + r * width + i, result, count, streams);
    });
  if (streams) end_stream();
}

template <Activation kind, bool batch, typename T>
void backward_of(const T* grad, const T* x, const BatchNormRows& part, const BatchNormFactors<acc_t<T>>& factors,
                 bool streams, T* grad_x) {
  if (part.width == 1) return backward<kind, true, batch>(grad, x, part, factors, streams, grad_x);
  return backward<kind, false, batch>(grad, x, part, factors, streams, grad_x);
}

}  // namespace

#define FOR_EACH_ACTIVATION(CALL) \
  switch (kind) {                 \
    case Activation::none:        \
      return CALL(none);          \
    case Activation::relu:        \
      return CALL(relu);          \
    case Activation::relu6:       \
      return CALL(relu6);         \
    case Activation::hardswish:   \
      return CALL(hardswish);     \
    case Activation::silu:        \
      return CALL(silu);          \
  }

template <typename T>
void batch_norm_moments(const T* x, const BatchNormRows& part, acc_t<T>* scratch, double* mean, double* square) {
  if (part.width == 1) return run_moments(x, part.rows, *mean, *square);
  return row_moments(x, part, scratch, mean, square);
}

void batch_norm_merge(double n, double* __restrict mean, double* __restrict square, double count,
                      const double* __restrict more_mean, const double* __restrict more_square, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) merge(n, mean[c], square[c], count, more_mean[c], more_square[c]);
}

template <typename T>
void batch_norm_forward(const T* x, const BatchNormRows& part, const BatchNormFactors<acc_t<T>>& factors,
                        Activation kind, bool streams, T* y) {
#define CALL(a)                                                                \
  part.width == 1 ? forward<Activation::a, true>(x, part, factors, streams, y) \
                  : forward<Activation::a, false>(x, part, factors, streams, y)
  FOR_EACH_ACTIVATION(CALL)
#undef CALL
}

template <typename T>
void batch_norm_sums(const T* grad, const T* x, const BatchNormRows& part, const BatchNormFactors<acc_t<T>>& factors,
                     Activation kind, acc_t<T>* scratch, double* sum, double* product) {
#define CALL(a)                                                                          \
  part.width == 1 ? run_sums<Activation::a>(grad, x, part.rows, factors, *sum, *product) \
                  : row_sums<Activation::a>(grad, x, part, factors, scratch, sum, product)
  FOR_EACH_ACTIVATION(CALL)
#undef CALL
}

template <typename T>
void batch_norm_backward(const T* grad, const T* x, const BatchNormRows& part,
                         const BatchNormFactors<acc_t<T>>& factors, Activation kind, bool streams, T* grad_x){
#define CALL(a)                                                                                         \
  factors.slope == nullptr ? backward_of<Activation::a, false>(grad, x, part, factors, streams, grad_x) \
                           : backward_of<Activation::a, true>(grad, x, part, factors, streams, grad_x)
    FOR_EACH_ACTIVATION(CALL)
#undef CALL
}

#define INSTANTIATE(T)                                                                                               \
  template void batch_norm_moments<T>(const T*, const BatchNormRows&, acc_t<T>*, double*, double*);                  \
  template void batch_norm_forward<T>(const T*, const BatchNormRows&, const BatchNormFactors<acc_t<T>>&, Activation, \
                                      bool, T*);                                                                     \
  template void batch_norm_sums<T>(const T*, const T*, const BatchNormRows&, const BatchNormFactors<acc_t<T>>&,      \
                                   Activation, acc_t<T>*, double*, double*);                                         \
  template void batch_norm_backward<T>(const T*, const T*, const BatchNormRows&, const BatchNormFactors<acc_t<T>>&,  \
                                       Activation, bool, T*);
INSTANTIATE(float) INSTANTIATE(double) INSTANTIATE(Half) INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
