#include "depthwise_conv2d_kernel.h"
#include "planes.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Where the rows of a plane that are worked on lie: in the tensor, or in a copy of them.
template <typename T>
struct Source {
  using A = acc_t<T>;
  static constexpr int lanes = kLanes<A>;
  int64_t height, width, left, pitch;  // left: zeros before a row of the copy.
  A* copy;

  Source(int64_t height, int64_t width, int64_t left, int64_t pitch, A* copy)
      : height(height), width(width), left(left), pitch(pitch), copy(copy) {}

  // Past the copies of n rows.
  A* end(int64_t n) const { return copy + (kInPlace<T> ? 0 : n * pitch + 2 * kDepthwiseSlack); }

  // `plane` with rows [begin, end), as far as they are on it, ready to be read.
  Rows<A> rows(const T* plane, int64_t begin, int64_t end) const {
    if constexpr (kInPlace<T>) {
      return {plane, height, width, width};
    } else {
      begin = begin < 0 ? 0 : begin;
      end = end < 0 ? 0 : end > height ? height : end;
      A* to = copy;
      for (int64_t y = begin; y < end; ++y, to += pitch) {
        for (int64_t i = 0; i < left; i += lanes) store<lanes>(to + i, Vec<A, lanes>{});
        const T* from = plane + y * width;
        int64_t x = 0;
        for (; x + lanes <= width; x += lanes) store<lanes>(to + left + x, load<lanes>(from + x));
        for (; left + x < pitch; x += lanes)
          store<lanes>(to + left + x, x < width ? load_some<lanes>(from + x, width - x) : Vec<A, lanes>{});
      }
      return {copy + left - begin * pitch, end, width, pitch};
    }
  }
};

// Where rows [first, last) of a plane are computed: in the tensor, or for 16-bit types in scratch.
template <typename T>
struct Target {
  using A = acc_t<T>;
  T* plane;
  A* scratch;
  int64_t width;

  // Row 0 of the plane.
  A* begin(int64_t first) const {
    if constexpr (sizeof(T) >= 4)
      return plane;
    else
      return scratch - first * width;
  }
  void end(int64_t first, int64_t last) const {
    constexpr int lanes = kLanes<A>;
    if constexpr (sizeof(T) < 4)
      for (int64_t i = 0, n = (last - first) * width; i < n; i += lanes)
        store_some<lanes>(plane + first * width + i, load<lanes>(scratch + i), n - i);
  }
};

// The columns that are left go into half a vector where they fit: body(vector's lanes, begin, end).
template <typename A, typename Body>
inline void for_columns(int64_t begin, int64_t end, const Body& body) {
  constexpr int lanes = kLanes<A>;
  if constexpr (kMaskedRows) {
    const int64_t rest = (end - begin) % lanes;
    const int64_t whole = rest > lanes / 2 ? end : end - rest;
    if (begin < whole) body(std::integral_constant<int, lanes>{}, begin, whole);
    if (whole < end) body(std::integral_constant<int, lanes / 2>{}, whole, end);
  } else {
    body(std::integral_constant<int, lanes>{}, begin, end);
  }
}

// Small planes are convolved several at once; their weights and biases:
constexpr int64_t kManyPlanes = 16, kManyPixels = 2048;

template <int K, typename T>
struct Filters {
  acc_t<T> weight[kManyPlanes * K * K], bias[kManyPlanes];

  static int64_t count(const DepthwisePlan& p, int64_t left) {
    const int64_t fitting = kInPlace<T> ? kManyPixels / (p.height * p.width) : 1;
    const int64_t most = fitting < 1 ? 1 : fitting < kManyPlanes ? fitting : kManyPlanes;
    return left < most ? left : most;
  }
  void load_one(int64_t i, const T* weights, bool flipped) {
    for (int t = 0; t < K * K; ++t) weight[i * K * K + t] = load<1>(weights + (flipped ? K * K - 1 - t : t))[0];
  }
};

// Rows [first, last) of the outputs.
template <int K, int S, typename A>
__attribute__((noinline)) void convolve_planes(const Planes<A>& planes, int64_t top, int64_t left,
                                               Activation activation, int64_t first, int64_t last) {
  // More rows in registers read less; the maps of most networks are a multiple of 7 high. (Double: for less code.)
  constexpr int kFew = 4, kMany = kMaskedRows && sizeof(A) == 4 ? 7 : kFew;
  for (int64_t r = first, n; (n = last - r) > 0;) {
    const bool many = n % kMany == 0 || n == 5 || n == 6;
    for_columns<A>(0, planes.out_pitch, [&](auto lanes, int64_t begin, int64_t end) {
      const auto rows = many ? &convolve_rows<K, S, lanes, kMany, A> : &convolve_rows<K, S, lanes, kFew, A>;
      rows(planes, r * S - top, -left, r, n, begin, end, activation);
    });
    r += many ? kMany : kFew;
  }
}

template <typename T>
struct Forward {
  const T *x, *weight, *bias;
  T* out;
  const DepthwisePlan& p;
  Activation activation;
  int64_t begin, end;
  acc_t<T>* scratch;

  template <int K, int S>
  void run() const {
    using A = acc_t<T>;
    const int64_t in_pixels = p.height * p.width, out_pixels = p.out_height * p.out_width;
    const Source<T> source(p.height, p.width, p.pad_left, p.copy_pitch, scratch);
    Filters<K, T> filters;
    for (int64_t task = begin, count; task < end; task += count) {
      count = Filters<K, T>::count(p, end - task);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t channel = (task + i) % p.channels;
        filters.load_one(i, weight + channel * K * K, false);
        if (bias != nullptr) filters.bias[i] = load<1>(bias + channel)[0];
      }
      for (int64_t r = 0; r < p.out_height; r += p.tile) {
        const int64_t last = p.out_height - r < p.tile ? p.out_height : r + p.tile, y = r * S - p.pad_top;
        const Target<T> to{out + task * out_pixels, source.end((p.tile - 1) * S + K), p.out_width};
        const Planes<A> planes{source.rows(x + task * in_pixels, y, y + (last - r - 1) * S + K),
                               to.begin(r),
                               count,
                               in_pixels,
                               out_pixels,
                               p.out_width,
                               filters.weight,
                               bias == nullptr ? nullptr : filters.bias};
        convolve_planes<K, S>(planes, p.pad_top, p.pad_left, activation, r, last);
        to.end(r, last);
      }
    }
  }
};

template <typename T>
struct Backward {
  using A = acc_t<T>;
  static constexpr int lanes = kLanes<A>;
  const T *grad, *x, *weight;
  T* grad_x;
  A* partial;
  const DepthwisePlan& p;
  int64_t group, begin, end;
  A* scratch;

  // Rows [first, last) of the gradient of the input, of `count` planes if S = 1, where weights are flipped.
  template <int K, int S>
  void input(const Source<T>& source, const T* from, int64_t count, const A* w, const Target<T>& target, int64_t first,
             int64_t last) const {
    A* const to = target.begin(first);
    if constexpr (S == 1) {
      const int64_t top = K - 1 - p.pad_top, left = K - 1 - p.pad_left;
      const Planes<A> planes{source.rows(from, first - top, last - top + K - 1),
                             to,
                             count,
                             p.out_height * p.out_width,
                             p.height * p.width,
                             p.width,
                             w,
                             nullptr};
      convolve_planes<K, 1>(planes, top, left, Activation::none, first, last);
    } else {
      constexpr int R = kMaskedRows && K == 3 ? 4 : kMaskedRows ? 2 : 1;
      const int64_t q = (first + p.pad_top) / 2, q_end = (last - 1 + p.pad_top) / 2 + 1;
      const Rows<A> g = source.rows(from, q - K / 2, q_end);
      for_columns<A>(p.pad_left / 2, (p.width - 1 + p.pad_left) / 2 + 1, [&](auto n, int64_t c, int64_t c_end) {
        int64_t row = q;
        for (; row + R <= q_end; row += R)
          spread_rows<K, n, R>(g, row, c, c_end, w, to, p.pad_top, p.pad_left, first, last, p.width);
        for (; row < q_end; ++row)
          spread_rows<K, n, 1>(g, row, c, c_end, w, to, p.pad_top, p.pad_left, first, last, p.width);
      });
    }
    target.end(first, last);
  }

  // Adds rows [first, last) of the gradient to the sums of one channel.
  template <int K, int S>
  void weights(const Source<T>& grads, const Source<T>& inputs, const T* g_plane, const T* x_plane, A* sums,
               int64_t first, int64_t last) const {
    // As many sums, beside a block of rows of the gradient, as there are registers for.
    constexpr int kRows = K == 3 ? 3 : K == 5 ? (kMaskedRows ? 5 : 2) : (kMaskedRows ? 3 : 1), kRest = K % kRows;
    constexpr int kMany = !kMaskedRows || sizeof(A) == 8 ? 3 : K == 5 ? 4 : 7;
    const int64_t y = first * S - p.pad_top;
    const Rows<A> g = grads.rows(g_plane, first, last);
    const Rows<A> in = inputs.rows(x_plane, y, y + (last - first - 1) * S + K);
    for_columns<A>(0, p.out_width, [&](auto n, int64_t c, int64_t c_end) {
      const auto add = [&]<int kCount>(int64_t ky) {
        int64_t r = first;
        const auto rows = [&]<int R>() {
          const int64_t end = r + (last - r) / R * R;
          if (r < end) correlate_rows<K, S, n, R, kCount>(g, in, p.pad_top, p.pad_left, ky, r, end, c, c_end, sums);
          r = end;
        };
        rows.template operator()<kMany>();
        if constexpr (kMany > 3) rows.template operator()<3>();
        rows.template operator()<1>();
      };
      int64_t ky = 0;
      for (; ky + kRows <= K; ky += kRows) add.template operator()<kRows>(ky);
      if constexpr (kRest > 0) add.template operator()<kRest>(ky);
      if (!p.sums_bias) return;
      Vec<A, n> sum = {};
      for (int64_t r = first; r < last; ++r)
        for (int64_t i = c; i < c_end; i += n) sum += load_lanes<n>(g.at + r * g.pitch + i, lanes_inside<n>(i, c_end));
      A* at = sums + K * K * lanes;
      store<n>(at, load<n>(at) + sum);
    });
  }

  template <int K, int S>
  void run() const {
    const int64_t in_pixels = p.height * p.width, out_pixels = p.out_height * p.out_width;
    const int64_t c = group * p.group, n = p.channels - c < p.group ? p.channels - c : p.group;
    constexpr int64_t stored = (K * K / lanes + 1) * lanes * lanes;
    A* const sums = scratch;
    A* const copies = sums + p.group * stored;
    const Source<T> grads(p.out_height, p.out_width, K, p.grad_pitch, copies);
    const Source<T> inputs(p.height, p.width, p.pad_left, p.copy_pitch, grads.end(p.tile + 2 * K));
    A* const results = inputs.end((p.tile - 1) * S + K);
    if (partial != nullptr)
      for (int64_t i = 0; i < n * stored; i += lanes) store<lanes>(sums + i, Vec<A, lanes>{});
    Filters<K, T> filters;
    for (int64_t image = begin; image < end; ++image) {
      for (int64_t i = 0, count; i < n; i += count) {
        count = S == 1 ? Filters<K, T>::count(p, n - i) : 1;
        if (grad_x != nullptr)
          for (int64_t j = 0; j < count; ++j) filters.load_one(j, weight + (c + i + j) * K * K, S == 1);
        const int64_t plane = image * p.channels + c + i;
        const T *g_plane = grad + plane * out_pixels, *x_plane = x + plane * in_pixels;
        for (int64_t r = 0; r < p.out_height; r += p.tile) {
          const int64_t last = p.out_height - r <= p.tile ? p.out_height : r + p.tile;
          const int64_t y_end = last == p.out_height || last * S > p.height ? p.height : last * S;
          if (grad_x != nullptr && r * S < y_end)
            input<K, S>(grads, g_plane, count, filters.weight, {grad_x + plane * in_pixels, results, p.width}, r * S,
                        y_end);
          for (int64_t j = 0; partial != nullptr && j < count; ++j)
            weights<K, S>(grads, inputs, g_plane + j * out_pixels, x_plane + j * in_pixels, sums + (i + j) * stored, r,
                          last);
        }
      }
    }
    if (partial == nullptr) return;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t t = 0; t <= K * K; t += lanes) {
        Vec<A, lanes> rows[lanes];
        for (int j = 0; j < lanes; ++j) rows[j] = load<lanes>(sums + i * stored + (t + j) * lanes);
        store_some<lanes>(partial + (c + i) * (K * K + 1) + t, sum_lanes<A, lanes>(rows), K * K + 1 - t);
      }
    }
  }
};

template <typename Run>
void run_for(const DepthwisePlan& p, const Run& run) {
  switch (10 * p.kernel_h + p.stride_h) {
    case 31:
      return run.template run<3, 1>();
    case 32:
      return run.template run<3, 2>();
    case 51:
      return run.template run<5, 1>();
    case 52:
      return run.template run<5, 2>();
    case 71:
      return run.template run<7, 1>();
  }
}

}  // namespace

template <typename T>
void depthwise_planes_forward(const T* x, const T* weight, const T* bias, T* out, const DepthwisePlan& plan,
                              Activation activation, int64_t begin, int64_t end, acc_t<T>* scratch) {
  run_for(plan, Forward<T>{x, weight, bias, out, plan, activation, begin, end, scratch});
}

template <typename T>
void depthwise_planes_backward(const T* grad, const T* x, const T* weight, T* grad_x, acc_t<T>* partial,
                               const DepthwisePlan& plan, int64_t group, int64_t begin, int64_t end,
                               acc_t<T>* scratch) {
  run_for(plan, Backward<T>{grad, x, weight, grad_x, partial, plan, group, begin, end, scratch});
}

#define INSTANTIATE(T)                                                                                          \
  template void depthwise_planes_forward<T>(const T*, const T*, const T*, T*, const DepthwisePlan&, Activation, \
                                            int64_t, int64_t, acc_t<T>*);                                       \
  template void depthwise_planes_backward<T>(const T*, const T*, const T*, T*, acc_t<T>*, const DepthwisePlan&, \
                                             int64_t, int64_t, int64_t, acc_t<T>*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
