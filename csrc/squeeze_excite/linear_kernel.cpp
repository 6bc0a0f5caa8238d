#include "linear_kernel.h"

#include "../common/elementwise.h"
#include "../common/math.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

constexpr int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

// Dot products of R rows of weights with I vectors, of which only those that exist are stored.
template <int R, int I, typename T>
inline void dots(const T* weight, const T* bias, int64_t width, int64_t row, int64_t end, int64_t image, int64_t images,
                 Rows<const acc_t<T>> in, Rows<acc_t<T>> out) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const T* w[R];
  const A* x[I];
  for (int r = 0; r < R; ++r) w[r] = weight + min(row + r, end - 1) * width;
  for (int i = 0; i < I; ++i) x[i] = in.at + min(image + i, images - 1) * in.stride;
  Vec<A, lanes> sums[I * R] = {};
  for (int64_t j = 0; j < width; j += lanes) {
    Vec<A, lanes> v[I];
    for (int i = 0; i < I; ++i) v[i] = load_some<lanes>(x[i] + j, width - j);
    for (int r = 0; r < R; ++r) {
      const Vec<A, lanes> by = load_some<lanes>(w[r] + j, width - j);
      for (int i = 0; i < I; ++i) sums[i * R + r] += by * v[i];
    }
  }
  A totals[I * R];
  for (int at = 0; at < I * R; at += lanes) {
    Vec<A, lanes> group[lanes];
    memcpy(group, sums + at, sizeof group);
    store<lanes>(totals + at, sum_lanes<A, lanes>(group));
  }
  const int count = int(min(R, end - row));
  const Vec<A, R> added = bias ? load_some<R>(bias + row, count) : Vec<A, R>{};
  for (int i = 0; i < I && image + i < images; ++i)
    store_some<R>(out.at + (image + i) * out.stride + row, load<R>(totals + i * R) + added, count);
}

// V vectors of columns for I images, from a whole number of vectors or, with V = 1, fewer columns.
template <int V, int I, typename T>
inline void columns(const T* weight, int64_t rows, int64_t width, int64_t column, int64_t count, int64_t image,
                    int64_t images, Rows<const acc_t<T>> in, acc_t<T> factor, Rows<acc_t<T>> out) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const A* x[I];
  for (int i = 0; i < I; ++i) x[i] = in.at + min(image + i, images - 1) * in.stride;
  Vec<A, lanes> sums[V * I] = {};
  for (int64_t row = 0; row < rows; ++row)
    for (int v = 0; v < V; ++v) {
      const T* at = weight + row * width + column + v * lanes;
      const Vec<A, lanes> w = V == 1 ? load_some<lanes>(at, count) : load<lanes>(at);
      for (int i = 0; i < I; ++i) sums[v * I + i] += w * x[i][row];
    }
  for (int i = 0; i < I && image + i < images; ++i)
    for (int v = 0; v < V; ++v)
      store_some<lanes>(out.at + (image + i) * out.stride + column + v * lanes, factor * sums[v * I + i],
                        V == 1 ? count : lanes);
}

template <int R, typename T>
inline void outer_rows(Rows<const acc_t<T>> a, Rows<const acc_t<T>> b, int64_t images, int64_t row, int64_t width,
                       T* out) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  for (int64_t j = 0; j < width; j += lanes) {
    Vec<A, lanes> sums[R] = {};
    for (int64_t n = 0; n < images; ++n) {
      const Vec<A, lanes> by = load_some<lanes>(b.at + n * b.stride + j, width - j);
      for (int r = 0; r < R; ++r) sums[r] += a.at[n * a.stride + row + r] * by;
    }
    for (int r = 0; r < R; ++r) store_some<lanes>(out + (row + r) * width + j, sums[r], width - j);
  }
}

template <typename A, int N>
inline Vec<A, N> sigmoid(Vec<A, N> x) {
  return 1 / (1 + exp(-x));
}

}  // namespace

template <typename T>
void linear(const T* weight, const T* bias, int64_t width, int64_t begin, int64_t end, int64_t images,
            Rows<const acc_t<T>> in, Rows<acc_t<T>> out) {
  constexpr int lanes = kLanes<acc_t<T>>, few = lanes < 4 ? 1 : lanes / 4;
  if (images == 1)
    for (int64_t row = begin; row < end; row += lanes)
      dots<lanes, 1>(weight, bias, width, row, end, 0, images, in, out);
  else
    for (int64_t row = begin; row < end; row += few)
      for (int64_t image = 0; image < images; image += 4)
        dots<few, 4>(weight, bias, width, row, end, image, images, in, out);
}

template <typename T>
void linear_transposed(const T* weight, int64_t rows, int64_t width, int64_t begin, int64_t end, int64_t images,
                       Rows<const acc_t<T>> in, acc_t<T> factor, Rows<acc_t<T>> out) {
  constexpr int lanes = kLanes<acc_t<T>>;
  for (int64_t column = begin; column < end;) {
    const bool wide = end - column >= 4 * lanes;
    const int64_t count = end - column;
    if (images == 1)
      (wide ? columns<4, 1, T> : columns<1, 1, T>)(weight, rows, width, column, count, 0, 1, in, factor, out);
    else
      for (int64_t image = 0; image < images; image += 4)
        (wide ? columns<4, 4, T> : columns<1, 4, T>)(weight, rows, width, column, count, image, images, in, factor,
                                                     out);
    column += wide ? 4 * lanes : lanes;
  }
}

template <typename T>
void outer_sum(Rows<const acc_t<T>> a, Rows<const acc_t<T>> b, int64_t images, int64_t begin, int64_t end,
               int64_t width, T* out) {
  int64_t row = begin;
  for (; row + 8 <= end; row += 8) outer_rows<8>(a, b, images, row, width, out);
  for (; row < end; ++row) outer_rows<1>(a, b, images, row, width, out);
}

template <typename A>
void activate(Activation f, const A* in, int64_t n, A* out) {
  constexpr int lanes = kLanes<A>;
  using V = Vec<A, lanes>;
  if (f == Activation::relu) map([](V x) { return at_least(0, x); }, out, n, in);
  if (f == Activation::silu) map([](V x) { return x * sigmoid<A, lanes>(x); }, out, n, in);
  if (f == Activation::sigmoid) map([](V x) { return sigmoid<A, lanes>(x); }, out, n, in);
  if (f == Activation::hardsigmoid) {
    const auto clamped = [](V x) { return divide_by<6>(at_most(6, at_least(0, x + 3))); };
    map(clamped, out, n, in);
  }
}

template <typename A>
void activate_backward(Activation f, const A* of, int64_t n, A* grad) {
  constexpr int lanes = kLanes<A>;
  using V = Vec<A, lanes>;
  if (f == Activation::relu) map([](V g, V x) { return x <= 0 ? V{} : g; }, grad, n, grad, of);
  if (f == Activation::silu) {
    const auto slope = [](V g, V x) {
      const V s = sigmoid<A, lanes>(x);
      return g * (s * (1 + x * (1 - s)));
    };
    map(slope, grad, n, grad, of);
  }
  if (f == Activation::sigmoid) map([](V g, V y) { return g * (y * (1 - y)); }, grad, n, grad, of);
  if (f == Activation::hardsigmoid) {
    const auto inside = [](V g, V y) {
      const V above = y > 0 ? g * A(1.0 / 6) : V{};
      return y < 1 ? above : V{};
    };
    map(inside, grad, n, grad, of);
  }
}

#define INSTANTIATE(T)                                                                                            \
  template void linear<T>(const T*, const T*, int64_t, int64_t, int64_t, int64_t, Rows<const acc_t<T>>,           \
                          Rows<acc_t<T>>);                                                                        \
  template void linear_transposed<T>(const T*, int64_t, int64_t, int64_t, int64_t, int64_t, Rows<const acc_t<T>>, \
                                     acc_t<T>, Rows<acc_t<T>>);                                                   \
  template void outer_sum<T>(Rows<const acc_t<T>>, Rows<const acc_t<T>>, int64_t, int64_t, int64_t, int64_t, T*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
template void activate<float>(Activation, const float*, int64_t, float*);
template void activate<double>(Activation, const double*, int64_t, double*);
template void activate_backward<float>(Activation, const float*, int64_t, float*);
template void activate_backward<double>(Activation, const double*, int64_t, double*);

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
