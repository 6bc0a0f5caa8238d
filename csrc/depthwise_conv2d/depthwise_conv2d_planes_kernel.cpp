#include "depthwise_conv2d_kernel.h"
#include "plane_memory.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Rows [first, last) of the outputs.
template <int K, int S, typename E, typename O>
__attribute__((noinline)) void convolve_planes(const Planes<E, O>& planes, int64_t top, int64_t left,
                                               Activation activation, int64_t first, int64_t last) {
  using A = acc_t<E>;
  // More rows in registers read less; the maps of most networks are a multiple of 7 high. (Double: for less code.)
  constexpr int kFew = 4, kMany = kMaskedRows && sizeof(A) == 4 ? 7 : kFew;
  for (int64_t r = first, n; (n = last - r) > 0;) {
    const bool many = n % kMany == 0 || n == 5 || n == 6;
    for_columns<A>(0, planes.out_pitch, [&](auto lanes, int64_t begin, int64_t end) {
      const auto rows = many ? &convolve_rows<K, S, lanes, kMany, E, O> : &convolve_rows<K, S, lanes, kFew, E, O>;
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
    const int64_t in_pixels = p.height * p.width, out_pixels = p.out_height * p.out_width;
    const Source<T, K> source(p.height, p.width, p.pad_left, p.copy_pitch, scratch);
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
        const Planes<InElement<T, K>, OutElement<T>> planes{
            source.rows(x + task * in_pixels, y, y + (last - r - 1) * S + K, count),
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
  template <int K>
  static constexpr int64_t kStored = (K * K / lanes + 1) * lanes * lanes;  // Sums of a channel, in vectors.
  const T *grad, *x, *weight;
  T* grad_x;
  A* partial;
  const DepthwisePlan& p;
  int64_t group, begin, end;
  A* scratch;

  // Rows [first, last) of the gradient of the input, of `count` planes; if S = 1, weights are flipped.
  template <int K, int S>
  void input(const Source<T, K>& source, const T* from, int64_t count, const A* w, const Target<T>& target,
             int64_t first, int64_t last) const {
    OutElement<T>* const to = target.begin(first);
    if constexpr (S == 1) {
      const int64_t top = K - 1 - p.pad_top, left = K - 1 - p.pad_left;
      const Planes<InElement<T, K>, OutElement<T>> planes{source.rows(from, first - top, last - top + K - 1, count),
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
      Rows<InElement<T, K>> g = source.rows(from, q - K / 2, q_end, count);
      for (int64_t i = 0; i < count; ++i, g.at += p.out_height * p.out_width) {
        OutElement<T>* const plane = to + i * p.height * p.width;
        for_columns<A>(p.pad_left / 2, (p.width - 1 + p.pad_left) / 2 + 1, [&](auto n, int64_t c, int64_t c_end) {
          const auto spread = [&]<int kRows>(int64_t row) {
            spread_rows<K, n, kRows>(g, row, c, c_end, w + i * K * K, plane, p.pad_top, p.pad_left, first, last,
                                     p.width);
          };
          int64_t row = q;
          for (; row + R <= q_end; row += R) spread.template operator()<R>(row);
          for (; row < q_end; ++row) spread.template operator()<1>(row);
        });
      }
    }
    target.end(first, last);
  }

  // Adds rows [first, last) of the gradients of `count` planes to their sums.
  template <int K, int S>
  void weights(const Source<T, K>& grads, const Source<T, K>& inputs, const T* g_plane, const T* x_plane, int64_t count,
               A* sums, int64_t first, int64_t last) const {
    const int64_t y = first * S - p.pad_top;
    Rows<InElement<T, K>> g = grads.rows(g_plane, first, last, count);
    Rows<InElement<T, K>> in = inputs.rows(x_plane, y, y + (last - first - 1) * S + K, count);
    for (int64_t i = 0; i < count; ++i) {
      plane_weights<K, S>(g, in, sums + i * kStored<K>, first, last);
      g.at += p.out_height * p.out_width, in.at += p.height * p.width;
    }
  }

  template <int K, int S>
  void plane_weights(const Rows<InElement<T, K>>& g, const Rows<InElement<T, K>>& in, A* sums, int64_t first,
                     int64_t last) const {
    // As many sums, beside a block of rows of the gradient, as there are registers for.
    constexpr int kRows = K == 3 ? 3 : K == 5 ? (kMaskedRows ? 5 : 2) : (kMaskedRows ? 3 : 1), kRest = K % kRows;
    constexpr int kMany = !kMaskedRows || sizeof(A) == 8 ? 3 : K == 5 ? 4 : 7;
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
    A* const sums = scratch;
    A* const copies = sums + p.group * kStored<K>;
    const Source<T, K> grads(p.out_height, p.out_width, K, p.grad_pitch, copies);
    const Source<T, K> inputs(p.height, p.width, p.pad_left, p.copy_pitch, grads.end(p.tile + 2 * K));
    A* const results = inputs.end((p.tile - 1) * S + K);
    if (partial != nullptr)
      for (int64_t i = 0; i < n * kStored<K>; i += lanes) store<lanes>(sums + i, Vec<A, lanes>{});
    Filters<K, T> filters;
    for (int64_t image = begin; image < end; ++image) {
      for (int64_t i = 0, count; i < n; i += count) {
        count = Filters<K, T>::count(p, n - i);
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
          if (partial != nullptr) weights<K, S>(grads, inputs, g_plane, x_plane, count, sums + i * kStored<K>, r, last);
        }
      }
    }
    if (partial == nullptr) return;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t t = 0; t <= K * K; t += lanes) {
        Vec<A, lanes> rows[lanes];
        for (int j = 0; j < lanes; ++j) rows[j] = load<lanes>(sums + i * kStored<K> + (t + j) * lanes);
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
