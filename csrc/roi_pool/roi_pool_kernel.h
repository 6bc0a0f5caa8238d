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

// Elements of working memory: for a block of channels the bins, and a row of maxima.
static inline int64_t roi_pool_scratch(const RoiShape& shape) {
  return kRoiBlock * (shape.bins() + kRoiBlock + shape.width);
}

FASTCNN_FOR_EACH_ISA(
    // Copies rows [y, y + rows) and columns [x, x + cols) of n_channels channels of an image side by side, pixels
    // `stride` elements apart. The first of the channels is at image[0].
    template <typename T>
    void roi_pool_copy(const T* image, int64_t n_channels, const RoiShape& shape, bool channels_last, int64_t y,
                       int64_t rows, int64_t x, int64_t cols, int stride, T* out);
    // The maxima of n_channels channels over the bins. out[0] is that of the first channel and bin.
    template <typename T> void roi_pool(const ChannelsOfMap<T>& map, int64_t n_channels, const RoiBins& roi,
                                        const RoiShape& shape, bool channels_last, T* out, acc_t<T>* scratch);
    // The first pixel of the maximum of every bin, in the order of rows, or -1 if it has none: places[bin * kRoiGroup +
    // channel], of at most kRoiGroup channels.
    template <typename T> void roi_pool_search(const ChannelsOfMap<T>& map, int64_t n_channels, const RoiBins& roi,
                                               const RoiShape& shape, int32_t* places);
    // The same as planes[channel * bins + bin].
    void roi_pool_planes_of_places(const int32_t* places, int64_t n_channels, int64_t bins, int32_t* planes);
    // plane[places[bin]] += grad[bin] where there is a place.
    template <typename A> void roi_pool_add_to_plane(const A* grad, const int32_t* places, int64_t bins, A* plane);
    // The same of n_channels channels of channels_last bins, with sums and places of kRoiGroup channels of a pixel;
    // before the first pixel there must be room for one more.
    template <typename A> void roi_pool_add_to_pixels(const A* grad, const int32_t* places, int64_t n_channels,
                                                      const RoiShape& shape, A* sum);
    // Writes such sums, planes or pixels, to n_channels channels of an image, the first of which is at image[0].
    template <typename T>
    void roi_pool_store(const acc_t<T>* sum, int64_t n_channels, const RoiShape& shape, bool channels_last, T* image);)

}  // namespace fastcnn
