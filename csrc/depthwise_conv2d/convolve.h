#pragma once

// The flat convolution and correlation that depthwise_conv2d_kernel.h describes, on scratch.

#include "../common/simd.h"
#include "unroll.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Outputs in registers at once: the maps of most networks are a multiple of 7 wide.
constexpr int kConvolveBlock = 14;
constexpr int kCorrelateBlock = 9;

// out[j] (+)= sum_t weight[t] * in[offset[t] + j] for B vectors j. kLast: cells and weights are vectors.
template <bool kLast, bool kAdd, int B, typename A>
void convolve_block(const A* in, const int64_t* offset, const A* weight, int64_t taps, A* out) {
  constexpr int lanes = kLanes<A>, cell = kLast ? lanes : 1;
  Vec<A, lanes> sum[B];
  unroll<B>([&](auto b) { sum[b] = kAdd ? load<lanes>(out + b * lanes) : Vec<A, lanes>{}; });
  for (int64_t t = 0; t < taps; ++t) {
    const Vec<A, lanes> w = kLast ? load<lanes>(weight + t * cell) : weight[t] - Vec<A, lanes>{};
    const A* at = in + offset[t] * cell;
    unroll<B>([&](auto b) { sum[b] += w * load<lanes>(at + b * lanes); });
  }
  unroll<B>([&](auto b) { store<lanes>(out + b * lanes, sum[b]); });
}

template <bool kLast, bool kAdd, typename A, int... B>
void convolve_run(const A* in, const int64_t* offset, const A* weight, int64_t taps, A* out, int64_t vectors,
                  std::integer_sequence<int, B...>) {
  constexpr int lanes = kLanes<A>;
  using Block = void (*)(const A*, const int64_t*, const A*, int64_t, A*);
  constexpr Block blocks[] = {&convolve_block<kLast, kAdd, B + 1, A>...};
  while (vectors > 0) {
    // The last two of about equal size, since short ones wait for their sums.
    const int64_t part = vectors <= kConvolveBlock       ? vectors
                         : vectors >= 2 * kConvolveBlock ? kConvolveBlock
                                                         : (vectors + 1) / 2;
    blocks[part - 1](in, offset, weight, taps, out);
    in += part * lanes;
    out += part * lanes;
    vectors -= part;
  }
}

template <bool kLast, typename A>
void convolve(const A* in, const int64_t* offset, const A* weight, int64_t taps, A* out, int64_t vectors, bool add) {
  using Blocks = std::make_integer_sequence<int, kConvolveBlock>;
  if (add)
    convolve_run<kLast, true>(in, offset, weight, taps, out, vectors, Blocks{});
  else
    convolve_run<kLast, false>(in, offset, weight, taps, out, vectors, Blocks{});
}

// sum[t] += sum_j grad[j] * in[offset[t] + j], lane by lane, for B taps and rows of `vectors` vectors j.
template <bool kLast, int B, typename A>
void correlate_block(const A* in, const A* grad, const int64_t* offset, int64_t rows, int64_t vectors, int64_t pitch,
                     A* sums) {
  constexpr int lanes = kLanes<A>, cell = kLast ? lanes : 1;
  Vec<A, lanes> sum[B];
  const A* at[B];
  unroll<B>([&](auto b) {
    sum[b] = Vec<A, lanes>{};
    at[b] = in + offset[b] * cell;
  });
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = r * pitch, end = i + vectors * lanes; i < end; i += lanes) {
      const Vec<A, lanes> g = load<lanes>(grad + i);
      unroll<B>([&](auto b) { sum[b] += g * load<lanes>(at[b] + i); });
    }
  }
  unroll<B>([&](auto b) { store<lanes>(sums + b * lanes, load<lanes>(sums + b * lanes) + sum[b]); });
}

template <bool kLast, typename A, int... B>
void correlate_run(const A* in, const A* grad, const int64_t* offset, int64_t taps, int64_t rows, int64_t vectors,
                   int64_t pitch, A* sums, std::integer_sequence<int, B...>) {
  using Block = void (*)(const A*, const A*, const int64_t*, int64_t, int64_t, int64_t, A*);
  constexpr Block blocks[] = {&correlate_block<kLast, B + 1, A>...};
  for (int64_t parts = (taps + kCorrelateBlock - 1) / kCorrelateBlock; parts > 0; --parts) {
    const int64_t part = (taps + parts - 1) / parts;
    blocks[part - 1](in, grad, offset, rows, vectors, pitch, sums);
    offset += part;
    sums += part * kLanes<A>;
    taps -= part;
  }
}

template <bool kLast, typename A>
void correlate(const A* in, const A* grad, const int64_t* offset, int64_t taps, int64_t rows, int64_t vectors,
               int64_t pitch, A* sums) {
  using Blocks = std::make_integer_sequence<int, kCorrelateBlock>;
  correlate_run<kLast>(in, grad, offset, taps, rows, vectors, pitch, sums, Blocks{});
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
