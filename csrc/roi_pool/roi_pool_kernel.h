#pragma once

#include "../common/isa.h"
#include "../common/roi_shape.h"
#include "../common/storage.h"

namespace fastcnn {

// One RoI: bin b of an axis holds pixels [bounds[2 b], bounds[2 b + 1]) of the map. Bins follow each other without
// gaps, [begin, end) being all of them.
struct RoiBins {
  const int32_t *rows, *cols;
  int32_t y_begin, y_end, x_begin, x_end;
};

// Channels of a map that lie side by side: channel c of pixel (y, x) at data[y * row + x * pixel + c].
template <typename T>
struct ChannelsOfMap {
  const T* data;
  int64_t row, pixel;
};

// Elements of working memory: for a block of channels the bins, a row of maxima and, for the gradient, of their places.
static inline int64_t roi_pool_scratch(const RoiShape& shape) {
  return kRoiBlock * (shape.bins() + kRoiBlock + 2 * shape.width);
}

FASTCNN_FOR_EACH_ISA(
    // planes: n_planes maps of shape.height x shape.width. Copies rows [y, y + rows) and columns [x, x + cols) of them
    // side by side, pixels `stride` elements apart.
    template <typename T> void roi_pool_interleave(const T* planes, int64_t n_planes, const RoiShape& shape, int64_t y,
                                                   int64_t rows, int64_t x, int64_t cols, int stride, T* out);
    // The maxima of n_channels channels over the bins, out of which channel c of bin b goes to out[b * channels + c],
    // or in planes to out[c * bins + b].
    template <typename T> void roi_pool(const ChannelsOfMap<T>& map, int64_t n_channels, const RoiBins& roi,
                                        const RoiShape& shape, bool channels_last, T* out, acc_t<T>* scratch);
    // Adds the gradient of every bin to that of its first maximum. `grad` and `grad_map` lie in memory as above.
    template <typename T>
    void roi_pool_backward(const acc_t<T>* grad, const ChannelsOfMap<T>& map, int64_t n_channels, const RoiBins& roi,
                           const RoiShape& shape, bool channels_last, acc_t<T>* grad_map, acc_t<T>* scratch);)

}  // namespace fastcnn
