#include "grouped_conv2d_shuffle_kernel.h"

#include "../common/simd.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// A tile of kTileRows rows by kTileVectors vectors fills the registers: 32 of AVX-512, 16 before.
constexpr int kTileRows = kVectorBytes == 64 ? 8 : 4;
constexpr int kTileVectors = 3;

template <typename A, int N, bool Accumulate, typename T>
inline Vec<A, N> start(const Gemm<A>& g, int64_t row, int64_t column, const T* out) {
  if constexpr (Accumulate) return load<N>(out + g.out_rows[row] + column);
  if (g.column_bias) return load<N>(g.column_bias + column);
  return Vec<A, N>{} + (g.row_bias ? g.row_bias[row] : 0);
}

// ReLU, leaky or not, and ReLU6, which cost next to nothing, are applied to sums in registers, NaN staying NaN.
template <typename A, int N>
inline Vec<A, N> clamped(const Gemm<A>& g, Vec<A, N> sum) {
  if (g.activation == Activation::none) return sum;
  if (g.slope != 0) return sum > 0 ? sum : sum * g.slope;
  const Vec<A, N> positive = at_least(0, sum);
  return g.activation == Activation::relu ? positive : at_most(6, positive);
}

// What else there is to do goes through memory: M rows of F vectors and a last one of N lanes.
template <int N, typename A, typename T>
__attribute__((noinline)) void finish(const Gemm<A>& g, int64_t row, int64_t rows, int64_t column, int64_t full,
                                      int64_t last, const A* sums, T* out, const T* residual) {
  constexpr int L = kLanes<A>;
  const auto one = [&]<int Lanes>(int64_t at) {
    Vec<A, Lanes> x = load<Lanes>(sums);
    if (residual) x += load<Lanes>(residual + at);
    store<Lanes>(out + at, g.slope != 0 ? clamped<A, Lanes>(g, x) : activate<A, Lanes>(g.activation, x));
    sums += Lanes;
  };
  for (int64_t i = row; i < row + rows; ++i) {
    for (int64_t v = 0; v < full; ++v) one.template operator()<L>(g.out_rows[i] + column + v * L);
    one.template operator()<N>(g.out_rows[i] + last);
  }
}

// M rows of V vectors from `column` on, and half a vector if H is 1. The last one ends where the row does: it may
// overlap the one before, and both then get the same values.
template <int M, int V, int H, typename A, typename T, bool Accumulate>
inline void tile(const Gemm<A>& g, int64_t row, int64_t column, T* out, const T* residual) {
  constexpr int L = kLanes<A>, N = H ? L / 2 : L, F = V + H - 1;  // The last vector, and how many there are before it.
  const int64_t after = column + F * L, last = g.columns - N < after && g.columns >= L ? g.columns - N : after;
  Vec<A, L> acc[M][F ? F : 1];
  Vec<A, N> acc_last[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 3
    for (int v = 0; v < F; ++v) acc[m][v] = start<A, L, Accumulate>(g, row + m, column + v * L, out);
    acc_last[m] = start<A, N, Accumulate>(g, row + m, last, out);
  }
  const A* segment = g.a + row * g.a_row;
  const int64_t a_row = g.a_row, a_step = g.a_step, terms = g.terms, shift = last - column;
  const A* b = g.b + column;
  const int64_t* b_rows = g.b_rows;
  for (int64_t s = 0; s < g.segments; ++s, segment += g.a_segment, b_rows += terms) {
    const A* a = segment;
    for (int64_t p = 0; p < terms; ++p, a += a_step) {
      const A* from = b + b_rows[p];
      Vec<A, L> x[F ? F : 1];
#pragma GCC unroll 3
      for (int v = 0; v < F; ++v) x[v] = load<L>(from + v * L);
      const Vec<A, N> x_last = load<N>(from + shift);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const A w = a[m * a_row];
#pragma GCC unroll 3
        for (int v = 0; v < F; ++v) acc[m][v] += w * x[v];
        acc_last[m] += w * x_last;
      }
    }
  }
  if (!Accumulate && (residual || g.activation > Activation::relu6)) {
    alignas(kVectorBytes) A sums[M * (F * L + N)];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 3
      for (int v = 0; v < F; ++v) store<L>(sums + m * (F * L + N) + v * L, acc[m][v]);
      store<N>(sums + m * (F * L + N) + F * L, acc_last[m]);
    }
    return finish<N>(g, row, M, column, F, last, sums, out, residual);
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 3
    for (int v = 0; v < F; ++v) store<L>(out + g.out_rows[row + m] + column + v * L, clamped<A, L>(g, acc[m][v]));
    store<N>(out + g.out_rows[row + m] + last, clamped<A, N>(g, acc_last[m]));
  }
}

template <int M, int V, int H, typename A, typename T, bool Accumulate>
inline void tile_of(int64_t rows, const Gemm<A>& g, int64_t row, int64_t column, T* out, const T* residual) {
  if (rows == M) return tile<M, V, H, A, T, Accumulate>(g, row, column, out, residual);
  if constexpr (M > 1) tile_of<M - 1, V, H, A, T, Accumulate>(rows, g, row, column, out, residual);
}

// Tiles of as many rows, give or take one: the least of them would wait for its own sums.
template <int V, int H, typename A, typename T, bool Accumulate>
inline void tile_columns(const Gemm<A>& g, int64_t column, T* out, const T* residual) {
  const int64_t count = (g.rows + kTileRows - 1) / kTileRows;
  for (int64_t i = 0, row = 0; i < count; ++i) {
    const int64_t end = g.rows * (i + 1) / count;
    tile_of<kTileRows, V, H, A, T, Accumulate>(end - row, g, row, column, out, residual);
    row = end;
  }
}

template <typename A, typename T, bool Accumulate>
inline void tiles(const Gemm<A>& g, T* out, const T* residual) {
  constexpr int L = kLanes<A>;
  // Half a vector costs half where vectors of 64 bytes are executed in two halves, and never more than a whole one.
  const int64_t columns = g.columns < L ? L : g.columns, halves = (columns + L / 2 - 1) / (L / 2), half = halves % 2;
  for (int64_t at = 0, left = halves / 2; left > 0;) {
    // The last tile gets two vectors at least, or one that overlaps would add to what the tile before it has stored.
    const bool all = left + half <= kTileVectors;
    const int64_t take = all ? left : left + half == kTileVectors + 1 ? 2 : kTileVectors;
    if (all && half && take == 2)
      tile_columns<2, 1, A, T, Accumulate>(g, at * L, out, residual);
    else if (all && half)
      tile_columns<1, 1, A, T, Accumulate>(g, at * L, out, residual);
    else if (take == 3)
      tile_columns<3, 0, A, T, Accumulate>(g, at * L, out, residual);
    else if (take == 2)
      tile_columns<2, 0, A, T, Accumulate>(g, at * L, out, residual);
    else
      tile_columns<1, 0, A, T, Accumulate>(g, at * L, out, residual);
    at += take;
    left -= take;
  }
}

template <typename From, typename To>
inline void convert_one(const From* from, To* to) {
  store<1>(to, load<1>(from));
}

// One run of pixels of a row: `count` of them, from pixel `from` every `step`, go to `to` every `spread`.
template <typename Run>
inline void for_each_run(const Window& w, int64_t y, int64_t rows, const Run& run) {
  if (is_flat(w)) return run(0, y * w.width, rows * w.width, 1, 1);
  const Packing p = packing(w, rows);
  const int64_t pitch = p.pitch;
  for (int64_t phase_h = 0; phase_h < p.phases_h; ++phase_h) {
    for (int64_t phase_w = 0; phase_w < p.phases_w; ++phase_w) {
      for (int64_t r = 0; r < p.rows; ++r) {
        const int64_t spread_y = (y + r) * w.stride_h + phase_h - w.pad_h;
        if (spread_y < 0 || spread_y % w.spread_h || spread_y / w.spread_h >= w.height) continue;
        const int64_t to = ((phase_h * p.phases_w + phase_w) * p.rows + r) * pitch;
        const int64_t from = spread_y / w.spread_h * w.width, shift = phase_w - w.pad_w;
        if (w.spread_w == 1) {
          const int64_t first = shift < 0 ? (-shift + w.stride_w - 1) / w.stride_w : 0;
          const int64_t fits = w.width > shift ? (w.width - shift + w.stride_w - 1) / w.stride_w : 0;
          const int64_t end = fits < pitch ? fits : pitch;
          if (first < end) run(to + first, from + first * w.stride_w + shift, end - first, w.stride_w, 1);
        } else {  // With a stride of 1: column c holds pixel (c + shift) / spread.
          const int64_t first = shift > 0 ? (shift + w.spread_w - 1) / w.spread_w : 0;
          const int64_t fits = (pitch - 1 + shift) / w.spread_w + 1;
          const int64_t end = pitch + shift <= 0 ? 0 : fits < w.width ? fits : w.width;
          if (first < end) run(to + first * w.spread_w - shift, from + first, end - first, 1, w.spread_w);
        }
      }
    }
  }
}

}  // namespace

template <typename T>
void gemm(const Gemm<acc_t<T>>& g, T* out, const T* residual) {
  tiles<acc_t<T>, T, false>(g, out, residual);
}

template <typename A>
void gemm_accumulate(const Gemm<A>& g, A* out) {
  tiles<A, A, true>(g, out, nullptr);
}

template <typename From, typename To>
void convert(const From* from, To* to, int64_t n) {
  constexpr int L = kLanes<acc_t<From>>;
  int64_t i = 0;
  for (; i + L <= n; i += L) store<L>(to + i, load<L>(from + i));
  for (; i < n; ++i) convert_one(from + i, to + i);
}

template <typename From, typename To>
void transpose_into(const From* from, Rows from_rows, int64_t rows, int64_t columns, To* to, Rows to_rows) {
  using A = acc_t<From>;
  constexpr int L = kLanes<A>;
  if (rows < L || columns < L) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) convert_one(from + row_at(from_rows, i) + j, to + row_at(to_rows, j) + i);
    return;
  }
  for (int64_t block_i = 0; block_i < rows; block_i += L) {
    const int64_t i = block_i < rows - L ? block_i : rows - L;  // The last block overlaps the one before.
    for (int64_t block_j = 0; block_j < columns; block_j += L) {
      const int64_t j = block_j < columns - L ? block_j : columns - L;
      Vec<A, L> lines[L];
      for (int k = 0; k < L; ++k) lines[k] = load<L>(from + row_at(from_rows, i + k) + j);
      transpose<A, L>(lines);
      for (int k = 0; k < L; ++k) store<L>(to + row_at(to_rows, j + k) + i, lines[k]);
    }
  }
}

template <typename T>
void pack_planes(const Window& window, int64_t y, int64_t rows, const T* image, bool channels_last, int64_t channels,
                 const int64_t* source, acc_t<T>* to) {
  const int64_t plane = packing(window, rows).plane, pixels = window.height * window.width;
  if (!is_flat(window)) memset(to, 0, sizeof(acc_t<T>) * channels * plane);
  for_each_run(window, y, rows, [&](int64_t at, int64_t from, int64_t count, int64_t step, int64_t spread) {
    if (channels_last && spread == 1) {
      transpose_into(image + from * channels, Rows{nullptr, step * channels}, count, channels, to + at,
                     Rows{source, 0});
    } else if (channels_last) {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t c = 0; c < channels; ++c)
          convert_one(image + (from + i) * channels + c, to + source[c] + at + i * spread);
    } else {
      for (int64_t c = 0; c < channels; ++c) {
        const T* pixel = image + source[c] * pixels + from;
        acc_t<T>* packed = to + c * plane + at;
        if (step == 1 && spread == 1) {
          convert(pixel, packed, count);
        } else {
          for (int64_t i = 0; i < count; ++i) convert_one(pixel + i * step, packed + i * spread);
        }
      }
    }
  });
}

#define INSTANTIATE_SCALAR(T)                                                                   \
  template void gemm<T>(const Gemm<acc_t<T>>&, T*, const T*);                                   \
  template void convert<T, acc_t<T>>(const T*, acc_t<T>*, int64_t);                             \
  template void transpose_into<T, acc_t<T>>(const T*, Rows, int64_t, int64_t, acc_t<T>*, Rows); \
  template void pack_planes<T>(const Window&, int64_t, int64_t, const T*, bool, int64_t, const int64_t*, acc_t<T>*);
#define INSTANTIATE_NARROW(T)                                 \
  template void convert<float, T>(const float*, T*, int64_t); \
  template void transpose_into<float, T>(const float*, Rows, int64_t, int64_t, T*, Rows);
INSTANTIATE_SCALAR(float)
INSTANTIATE_SCALAR(double)
INSTANTIATE_SCALAR(Half)
INSTANTIATE_SCALAR(BFloat16)
INSTANTIATE_NARROW(Half)
INSTANTIATE_NARROW(BFloat16)
template void gemm_accumulate<float>(const Gemm<float>&, float*);
template void gemm_accumulate<double>(const Gemm<double>&, double*);

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
