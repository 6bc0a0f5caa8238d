#pragma once

#include <cstdint>

#include "../common/activation.h"
#include "../common/isa.h"
#include "../common/storage.h"

// What planes.h and direct.h do not cover, of both layouts and all strides, becomes one flat stride-1 problem over
// zero-padded copies of a few rows.
//
// Pixel (y, x) of the padded input lies in phase (y % stride, x % stride) at cell (y / stride, x / stride). Output
// (r, c) then reads, at every tap, the cell (r, c) + shift of the tap's phase, so with rows `pitch` cells apart a tap
// is one offset:   out[j] = sum_t w[t] * in[x_offset[t] + j],   grad_in[phase][j] = sum_{t of phase} w[t] * grad[j -
// shift[t]] and   grad_w[t] = sum_j grad[j] * in[x_offset[t] + j],   where grad is 0 in the gap between the end of a
// row and `pitch`.
//
// A cell is one element of a plane (NCHW), where vectors run along j, or one vector of channels (channels_last).

namespace fastcnn {

constexpr int64_t kDepthwiseGroup = 32;  // Channels that a task takes of packed channels_last: lines of memory, whole.
constexpr int64_t kDirectTaps = 512;     // Most that a direct plan may have.
constexpr int64_t kDepthwisePixels = 2048;  // Small planes are worked on together, up to so many pixels.
constexpr int64_t kDepthwiseSlack = 32;     // Cells that vectors may read and write past the end of a copy.

struct DepthwisePlan {
  bool channels_last;
  bool direct;                           // channels_last, and the tensors are read as they lie: see direct.h.
  bool large;                            // Direct: whether caches are unlikely to keep a result until it is read,
  bool streams;                          // and whether it bypasses them: the output's, or the gradient of the input's.
  bool planes;                           // NCHW, and as planes.h has it.
  bool sums_bias;                        // Whether the gradient of the bias is wanted.
  int64_t images, channels, multiplier;  // Of the input; output channel c * multiplier + m reads input channel c.
  int64_t height, width, out_height, out_width;
  int64_t stride_h, stride_w, pad_top, pad_left;
  int64_t kernel_h, kernel_w, taps, dilation_h;
  int64_t reach_h, reach_w;        // The largest shift.
  int64_t step;                    // Direct: elements from pixel to pixel; more than channels if rows are copied first.
  int64_t group;                   // Planes: channels that a task of the gradients takes.
  int64_t pitch, tile, rows;       // Cells in a row; rows of cells that are computed at once, and in all.
  int64_t phase_cells;             // Of a copy of the input for one tile, in one phase.
  int64_t copy_pitch, grad_pitch;  // Elements from row to row of the copies of planes.
  const int64_t *order, *x_offset, *shift, *phase_first;  // Taps by phase; those of phase p from phase_first[p].
};

static inline int64_t depthwise_groups(const DepthwisePlan& p) {
  if (p.direct) return 1;
  return p.channels_last ? (p.channels + kDepthwiseGroup - 1) / kDepthwiseGroup : p.channels;
}

// Elements of working memory.
// Of packed weights of all channels, and of copies of the rows of pixels that a direct tile reads.
static inline int64_t depthwise_direct_weights(const DepthwisePlan& p) {
  return (p.channels + kDepthwiseGroup - 1) / kDepthwiseGroup * kDepthwiseGroup * p.taps;
}
static inline int64_t depthwise_staged(const DepthwisePlan& p) {
  return p.step == p.channels ? 0 : (p.tile * p.stride_h + (p.kernel_h + 1) * p.dilation_h) * p.width * p.step;
}
static inline int64_t depthwise_staged_grad(const DepthwisePlan& p) {
  return p.step == p.channels ? 0 : (p.tile + p.reach_h + 8) * p.out_width * p.step;
}
static inline int64_t depthwise_forward_scratch(const DepthwisePlan& p, int64_t tasks) {
  if (p.direct) return depthwise_direct_weights(p) + depthwise_staged(p) + kDepthwiseSlack;
  const int64_t width = p.channels_last ? kDepthwiseGroup : 1;
  const int64_t in = p.stride_h * p.stride_w * p.phase_cells, out = p.tile * p.pitch + kDepthwiseSlack;
  const int64_t groups = depthwise_groups(p), slots = p.channels_last ? (groups < tasks ? groups : tasks) : 1;
  return width * (in + out) + kDepthwiseGroup * slots * p.multiplier * p.taps + 2 * kDepthwiseSlack;
}
static inline int64_t depthwise_backward_scratch(const DepthwisePlan& p) {
  if (p.direct)
    return depthwise_direct_weights(p) + depthwise_staged(p) + depthwise_staged_grad(p) + 2 * kDepthwiseSlack;
  const int64_t width = p.channels_last ? kDepthwiseGroup : 1;
  const int64_t in = p.stride_h * p.stride_w * p.phase_cells;
  const int64_t grad = (p.tile + p.reach_h) * p.pitch + p.reach_w + 2 * kDepthwiseSlack;
  return width * (2 * in + grad) + kDepthwiseGroup * p.multiplier * (2 * p.taps + 1) + 2 * kDepthwiseSlack;
}
// Of the copies of planes that are read at once, if `pixels` are of those that are large.
static inline int64_t depthwise_copy(int64_t pixels) {
  return (pixels > kDepthwisePixels ? pixels : kDepthwisePixels) + 2 * kDepthwiseSlack;
}
static inline int64_t depthwise_planes_scratch(const DepthwisePlan& p, bool backward) {
  const int64_t in = depthwise_copy(((p.tile - 1) * p.stride_h + p.kernel_h) * p.copy_pitch) + kDepthwiseSlack;
  if (!backward) return in + p.tile * p.out_width + kDepthwiseSlack;
  const int64_t grad = depthwise_copy((p.tile + 2 * p.kernel_h) * p.grad_pitch);
  const int64_t grad_in = (p.tile * p.stride_h + p.kernel_h) * p.width + kDepthwiseSlack;
  return in + grad + grad_in + p.group * (p.taps + kDepthwiseSlack) * kDepthwiseSlack;
}
// Partial sums of a chunk.
static inline int64_t depthwise_sums(const DepthwisePlan& p) {
  const int64_t channels = p.channels * p.multiplier;
  return (p.direct ? (channels + kDepthwiseGroup - 1) & -kDepthwiseGroup : channels) * (p.taps + 1);
}

FASTCNN_FOR_EACH_ISA(
    // Tasks [begin, end). NCHW: images x channels. channels_last: images x tiles x groups.
    // bias may be null.
    template <typename T>
    void depthwise_forward(const T* x, const T* weight, const T* bias, T* out, const DepthwisePlan& plan,
                           Activation activation, int64_t begin, int64_t end, acc_t<T>* scratch);

    // Images x tiles [begin, end) of one channel (NCHW) or group of channels. grad_x and partial may be null; partial
    // gets, for every output channel, the sum of the gradients of the taps and, after them, of the bias.
    template <typename T>
    void depthwise_backward(const T* grad, const T* x, const T* weight, T* grad_x, acc_t<T>* partial,
                            const DepthwisePlan& plan, int64_t group, int64_t begin, int64_t end, acc_t<T>* scratch);

    // The same for a plan that is of planes; groups are of plan.group channels and units are images.
    template <typename T>
    void depthwise_planes_forward(const T* x, const T* weight, const T* bias, T* out, const DepthwisePlan& plan,
                                  Activation activation, int64_t begin, int64_t end, acc_t<T>* scratch);
    template <typename T> void depthwise_planes_backward(const T* grad, const T* x, const T* weight, T* grad_x,
                                                         acc_t<T>* partial, const DepthwisePlan& plan, int64_t group,
                                                         int64_t begin, int64_t end, acc_t<T>* scratch);

    // The same for a plan that is direct: of all channels, sums lying as vectors of channels. There is one group.
    template <typename T>
    void depthwise_direct_forward(const T* x, const T* weight, const T* bias, T* out, const DepthwisePlan& plan,
                                  Activation activation, int64_t begin, int64_t end, acc_t<T>* scratch);
    template <typename T> void depthwise_direct_backward(const T* grad, const T* x, const T* weight, T* grad_x,
                                                         acc_t<T>* partial, const DepthwisePlan& plan, int64_t group,
                                                         int64_t begin, int64_t end, acc_t<T>* scratch);

    // Adds up the `chunks` partial sums of output channels [begin, end), which begin at whole groups, in their order.
    // grad_weight and grad_bias may be null.
    template <typename T> void depthwise_reduce(const acc_t<T>* partial, int64_t chunks, const DepthwisePlan& plan,
                                                T* grad_weight, T* grad_bias, int64_t begin, int64_t end);
    template <typename T>
    void depthwise_direct_reduce(const acc_t<T>* partial, int64_t chunks, const DepthwisePlan& plan, T* grad_weight,
                                 T* grad_bias, int64_t begin, int64_t end);)

}  // namespace fastcnn
