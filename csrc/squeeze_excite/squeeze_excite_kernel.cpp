#include "squeeze_excite_kernel.h"

#include "../common/math.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

template <typename A>
struct IndexOf {
  using type = int32_t;
};
template <>
struct IndexOf<double> {
  using type = int64_t;
};

// v with all lanes but the last `count` cleared.
template <int N, typename A>
inline Vec<A, N> last_lanes(Vec<A, N> v, int64_t count) {
  using I = typename IndexOf<A>::type;
  Vec<I, N> lane;
  for (int i = 0; i < N; ++i) lane[i] = I(i);
  return lane >= I(N - count) ? v : Vec<A, N>{};
}

// Terms of a sum: x, or x * y.
template <typename T>
struct Single {
  const T* x;
  template <int lanes>
  Vec<acc_t<T>, lanes> at(int64_t i) const {
    return load<lanes>(x + i);
  }
  template <int lanes>
  Vec<acc_t<T>, lanes> some(int64_t i, int64_t count) const {
    return load_some<lanes>(x + i, count);
  }
  Single operator+(int64_t n) const { return {x + n}; }
};

template <typename T>
struct Product {
  const T *x, *y;
  template <int lanes>
  Vec<acc_t<T>, lanes> at(int64_t i) const {
    return load<lanes>(x + i) * load<lanes>(y + i);
  }
  template <int lanes>
  Vec<acc_t<T>, lanes> some(int64_t i, int64_t count) const {
    return load_some<lanes>(x + i, count) * load_some<lanes>(y + i, count);
  }
  Product operator+(int64_t n) const { return {x + n, y + n}; }
};

template <int lanes, typename A, typename Terms>
inline Vec<A, lanes> plane_sum(const Terms& terms, int64_t n) {
  Vec<A, lanes> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes)
    for (int k = 0; k < 4; ++k) sums[k] += terms.template at<lanes>(i + k * lanes);
  for (; i + lanes <= n; i += lanes) sums[0] += terms.template at<lanes>(i);
  if (i < n)
    sums[1] +=
        n < lanes ? terms.template some<lanes>(0, n) : last_lanes<lanes, A>(terms.template at<lanes>(n - lanes), n - i);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <typename A, typename Terms>
inline void all_plane_sums(const Terms& terms, int64_t channels, int64_t pixels, A factor, A* sums) {
  constexpr int lanes = kLanes<A>;
  for (int64_t c = 0; c < channels; c += lanes) {
    Vec<A, lanes> planes[lanes];
    for (int i = 0; i < lanes; ++i)
      planes[i] = c + i < channels ? plane_sum<lanes, A>(terms + (c + i) * pixels, pixels) : Vec<A, lanes>{};
    store_some<lanes>(sums + c, factor * sum_lanes<A, lanes>(planes), channels - c);
  }
}

template <int lanes, typename T>
inline bool aligned(const T* at) {
  return reinterpret_cast<uintptr_t>(at) % (lanes * sizeof(T)) == 0;
}

// out = f(x, scale, shift) over planes with as many pixels as a vector has lanes, or more: gone over as they lie, so
// that vectors are aligned where the first one is. A vector may hold the end of one plane and the begin of the next.
template <int lanes, bool Streams, typename T, typename Function>
inline void map_planes(const T* x, int64_t channels, int64_t pixels, const acc_t<T>* scale, const acc_t<T>* shift,
                       const Function& f, T* out) {
  using V = Vec<acc_t<T>, lanes>;
  const auto put = [&](int64_t i, V v) {
    if constexpr (Streams)
      stream<lanes>(out + i, v);
    else
      store<lanes>(out + i, v);
  };
  int64_t i = 0, end = 0;
  for (int64_t c = 0; c < channels; ++c) {
    end += pixels;
    const V by = V{} + scale[c], add = shift ? V{} + shift[c] : V{};
    for (; i + lanes <= end; i += lanes) put(i, f(load<lanes>(x + i), by, add));
    const int64_t next = i + lanes - end;
    if (next == lanes) continue;
    if (c + 1 == channels) {
      store_some<lanes>(out + i, f(load_some<lanes>(x + i, end - i), by, add), end - i);
    } else {
      const V of_next = last_lanes<lanes, acc_t<T>>(V{} + 1, next);
      const V mixed = of_next != 0 ? V{} + scale[c + 1] : by;
      put(i, f(load<lanes>(x + i), mixed, shift ? (of_next != 0 ? V{} + shift[c + 1] : add) : V{}));
      i += lanes;
    }
  }
}

template <int lanes, typename T, typename Function>
inline void map_small_planes(const T* x, int64_t channels, int64_t pixels, const acc_t<T>* scale, const acc_t<T>* shift,
                             const Function& f, T* out) {
  using V = Vec<acc_t<T>, lanes>;
  for (int64_t c = 0; c < channels; ++c, x += pixels, out += pixels)
    store_some<lanes>(out, f(load_some<lanes>(x, pixels), V{} + scale[c], shift ? V{} + shift[c] : V{}), pixels);
}

// Memory is gone over as it lies, `period` elements at a time, whether or not pixels begin where vectors do.
template <typename A, typename Terms>
inline void all_pixel_sums(Terms terms, int64_t channels, int64_t pixels, int64_t period, A* scratch, A* sums) {
  constexpr int lanes = kLanes<A>;
  memset(scratch, 0, sizeof(A) * period);
  int64_t left = pixels * channels;
  for (; left >= 4 * period; left -= 4 * period, terms = terms + 4 * period)
    for (int64_t i = 0; i < period; i += lanes) {
      const Vec<A, lanes> low = terms.template at<lanes>(i) + terms.template at<lanes>(i + period);
      const Vec<A, lanes> high = terms.template at<lanes>(i + 2 * period) + terms.template at<lanes>(i + 3 * period);
      store<lanes>(scratch + i, load<lanes>(scratch + i) + (low + high));
    }
  for (; left > 0; left -= period, terms = terms + period)
    for (int64_t i = 0; i < period && i < left; i += lanes)
      store<lanes>(scratch + i, load<lanes>(scratch + i) + terms.template some<lanes>(i, left - i));
  memcpy(sums, scratch, sizeof(A) * channels);
  for (int64_t at = channels; at < period; at += channels)
    for (int64_t c = 0; c < channels; ++c) sums[c] += scratch[at + c];
}

template <typename T, typename Function>
inline void map_periods(const T* x, int64_t n, int64_t period, bool streams, const Function& f, T* out) {
  constexpr int lanes = kLanes<acc_t<T>>;
  if (streams && aligned<lanes>(out))
    for (; n >= period; n -= period, x += period, out += period)
      for (int64_t i = 0; i < period; i += lanes) stream<lanes>(out + i, f(load<lanes>(x + i), i));
  for (; n >= period; n -= period, x += period, out += period)
    for (int64_t i = 0; i < period; i += lanes) store<lanes>(out + i, f(load<lanes>(x + i), i));
  for (int64_t i = 0; i < n; i += lanes) store_some<lanes>(out + i, f(load_some<lanes>(x + i, n - i), i), n - i);
}

}  // namespace

template <typename T>
void plane_sums(const T* x, const T* y, int64_t channels, int64_t pixels, acc_t<T> factor, acc_t<T>* sums) {
  if (y)
    all_plane_sums(Product<T>{x, y}, channels, pixels, factor, sums);
  else
    all_plane_sums(Single<T>{x}, channels, pixels, factor, sums);
}

template <typename T>
void scale_planes(const T* x, int64_t channels, int64_t pixels, const acc_t<T>* scale, const acc_t<T>* shift,
                  bool streams, T* out) {
  constexpr int lanes = kLanes<acc_t<T>>;
  using V = Vec<acc_t<T>, lanes>;
  // A product alone keeps the sign of a zero.
  const auto run = [&](const auto& f) {
    if (pixels < lanes)
      map_small_planes<lanes>(x, channels, pixels, scale, shift, f, out);
    else if (streams && aligned<lanes>(out))
      map_planes<lanes, true>(x, channels, pixels, scale, shift, f, out), end_stream();
    else
      map_planes<lanes, false>(x, channels, pixels, scale, shift, f, out);
  };
  if (shift)
    run([](V v, V by, V add) { return v * by + add; });
  else
    run([](V v, V by, V) { return v * by; });
}

template <typename T>
void pixel_sums(const T* x, const T* y, int64_t channels, int64_t pixels, int64_t period, acc_t<T>* scratch,
                acc_t<T>* sums) {
  if (y)
    all_pixel_sums(Product<T>{x, y}, channels, pixels, period, scratch, sums);
  else
    all_pixel_sums(Single<T>{x}, channels, pixels, period, scratch, sums);
}

template <typename T>
void scale_pixels(const T* x, int64_t n, int64_t period, const acc_t<T>* scale, const acc_t<T>* shift, bool streams,
                  T* out) {
  constexpr int lanes = kLanes<acc_t<T>>;
  if (shift)
    map_periods(
        x, n, period, streams, [=](auto v, int64_t i) { return v * load<lanes>(scale + i) + load<lanes>(shift + i); },
        out);
  else
    map_periods(x, n, period, streams, [=](auto v, int64_t i) { return v * load<lanes>(scale + i); }, out);
  if (streams) end_stream();
}

#define INSTANTIATE(T)                                                                                   \
  template void plane_sums<T>(const T*, const T*, int64_t, int64_t, acc_t<T>, acc_t<T>*);                \
  template void scale_planes<T>(const T*, int64_t, int64_t, const acc_t<T>*, const acc_t<T>*, bool, T*); \
  template void pixel_sums<T>(const T*, const T*, int64_t, int64_t, int64_t, acc_t<T>*, acc_t<T>*);      \
  template void scale_pixels<T>(const T*, int64_t, int64_t, const acc_t<T>*, const acc_t<T>*, bool, T*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
