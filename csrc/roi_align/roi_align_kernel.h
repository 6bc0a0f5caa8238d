#pragma once

#include <cstdint>

#include "../common/isa.h"
#include "../common/roi_shape.h"
#include "../common/storage.h"

namespace fastcnn {

// One axis of one RoI after merging: bin b reads pixel index[t] with weight[t] for t in [first[b], first[b + 1]), every
// pixel once. Pixels no sample touches are absent rather than weighted 0, so their NaN or infinity goes nowhere.
template <typename A>
struct AxisTaps {
  const int32_t* first;
  const int32_t* index;
  const A* weight;
};

// One RoI. Its average over the samples of a bin is folded into the weights of the rows.
template <typename A>
struct RoiPlan {
  AxisTaps<A> rows, cols;
  const int32_t* columns;  // Those cols reads, once each, ascending: all within [x_begin, x_end).
  int32_t n_columns, x_begin, x_end;
};

// Elements of working memory: for the widest block of channels of any level, a row of pixels, the bins, and a row of
// pixels for every row of bins.
static inline int64_t roi_align_scratch(const RoiShape& shape) {
  const int64_t block = kRoiBlock, rows = shape.pooled_height, bins = rows * shape.pooled_width;
  return block * (shape.width + bins + block) + block * rows * (shape.width + block);
}

FASTCNN_FOR_EACH_ISA(
    // planes: n_planes maps of height x width; out: their pooled_height x pooled_width bins, for one RoI.
    // scratch: roi_align_scratch(shape) elements, as for all kernels here.
    template <typename T> void roi_align_planes(const T* planes, int64_t n_planes, const RoiPlan<acc_t<T>>& roi,
                                                const RoiShape& shape, T* out, acc_t<T>* scratch);
    // The same for n_channels of the channels of one channels_last image.
    template <typename T> void roi_align_channels_last(const T* image, int64_t n_channels, const RoiPlan<acc_t<T>>& roi,
                                                       const RoiShape& shape, T* out, acc_t<T>* scratch);
    // For many RoIs: up to `stride` planes copied side by side, pixels `stride` elements apart, which is kRoiBlock
    // or kRoiGroup; and the pooling of such an image into planes of bins.
    template <typename T>
    void roi_align_interleave(const T* planes, int64_t n_planes, int64_t pixels, int stride, T* out);
    template <typename T>
    void roi_align_interleaved(const T* image, int64_t n_planes, int stride, const RoiPlan<acc_t<T>>& roi,
                               const RoiShape& shape, T* out, acc_t<T>* scratch);
    // Adjoints: add one RoI's gradient to that of the maps, and planes summed side by side back as planes; these have
    // room for a vector of pixels more.
    template <typename T>
    void roi_align_interleaved_backward(const T* grad, int64_t n_planes, int stride, const RoiPlan<acc_t<T>>& roi,
                                        const RoiShape& shape, acc_t<T>* grad_image, acc_t<T>* scratch);
    template <typename T>
    void roi_align_separate(const acc_t<T>* image, int64_t n_planes, int64_t pixels, int stride, T* out);
    template <typename T>
    void roi_align_channels_last_backward(const T* grad, int64_t n_channels, const RoiPlan<acc_t<T>>& roi,
                                          const RoiShape& shape, acc_t<T>* grad_image, int64_t stride,
                                          acc_t<T>* scratch);
    // Rounds n_channels of pixels `stride` elements apart into pixels of `channels` channels.
    template <typename T> void roi_align_round(const acc_t<T>* image, int64_t n_channels, int64_t pixels,
                                               int64_t stride, int64_t channels, T* out);)

}  // namespace fastcnn
