#include "roi_pool_kernel.h"

#include <cfloat>

#include "../common/planes.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// What a bin of pixels has if none is larger, as in torchvision, for float64 too; NaN is larger than nothing.
constexpr float kLowest = -FLT_MAX;

// out[0, n) = the largest of rows[i][0, n) over i in [0, count), rows lying `stride` elements apart. n is mostly Block.
template <int Block, typename T>
inline void largest_of_rows(const T* rows, int64_t stride, int32_t count, int64_t n, acc_t<T>* out) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  using V = Vec<A, lanes>;
  if (n == Block) {
    V largest[Block / lanes];
    for (V& m : largest) m = V{} + A(kLowest);
    for (int32_t r = 0; r < count; ++r, rows += stride)
      for (int i = 0; i < Block / lanes; ++i) {
        const V v = load<lanes>(rows + i * lanes);
        largest[i] = v > largest[i] ? v : largest[i];
      }
    for (int i = 0; i < Block / lanes; ++i) store<lanes>(out + i * lanes, largest[i]);
    return;
  }
  for (int64_t at = 0; at < n; at += lanes) {
    V largest = V{} + A(kLowest);
    for (int32_t r = 0; r < count; ++r) {
      const V v = load_some<lanes>(rows + r * stride + at, n - at);
      largest = v > largest ? v : largest;
    }
    store_some<lanes>(out + at, largest, n - at);
  }
}

// Into rows of Block: columns of a row of bins first, since bins share them.
template <int Block, typename T>
inline void pool(const ChannelsOfMap<T>& map, int64_t n_channels, const RoiBins& roi, const RoiShape& shape,
                 acc_t<T>* pooled, acc_t<T>* columns) {
  columns -= int64_t(roi.x_begin) * Block;
  for (int32_t ph = 0; ph < shape.pooled_height; ++ph) {
    const int32_t top = roi.rows[2 * ph], height = roi.rows[2 * ph + 1] - top;
    const T* rows = map.data + top * map.row;
    if (height > 0)
      for (int64_t x = roi.x_begin; x < roi.x_end; ++x)
        largest_of_rows<Block>(rows + x * map.pixel, map.row, height, n_channels, columns + x * Block);
    for (int32_t pw = 0; pw < shape.pooled_width; ++pw, pooled += Block) {
      const int32_t left = roi.cols[2 * pw], width = roi.cols[2 * pw + 1] - left;
      if (height > 0 && width > 0)
        largest_of_rows<Block>(columns + int64_t(left) * Block, Block, width, n_channels, pooled);
      else
        memset(pooled, 0, sizeof(acc_t<T>) * Block);
    }
  }
}

// The largest so far of a vector of channels, and the first pixel it is at, in the order of rows; -1 if at none.
template <typename A>
struct Places {
  using Index = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
  static constexpr int lanes = kLanes<A>;
  Vec<A, lanes> largest = Vec<A, lanes>{} + A(kLowest);
  Vec<Index, lanes> pixel = Vec<Index, lanes>{} - 1;

  static Places read_from(const A* at) {
    Places places;
    places.largest = load<lanes>(at);
    places.pixel = read<Vec<Index, lanes>>(at + lanes);
    return places;
  }
  void write_to(A* at) const {
    store<lanes>(at, largest);
    memcpy(at + lanes, &pixel, sizeof pixel);
  }
};

}  // namespace

template <typename T>
void roi_pool_copy(const T* image, int64_t n_channels, const RoiShape& shape, bool channels_last, int64_t y,
                   int64_t rows, int64_t x, int64_t cols, int stride, T* out) {
  if (!channels_last) {
    const T* first = image + y * shape.width + x;
    return interleave_planes(first, shape.pixels(), shape.width, n_channels, rows, cols, stride, out);
  }
  for (int64_t row = y; row < y + rows; ++row)
    for (int64_t col = x; col < x + cols; ++col, out += stride)
      memcpy(out, image + (row * shape.width + col) * shape.channels, sizeof(T) * n_channels);
}

template <typename T>
void roi_pool(const ChannelsOfMap<T>& map, int64_t n_channels, const RoiBins& roi, const RoiShape& shape,
              bool channels_last, T* out, acc_t<T>* scratch) {
  using A = acc_t<T>;
  const int32_t bins = int32_t(shape.bins());
  const int block = n_channels > kRoiGroup ? kRoiBlock : kRoiGroup;
  A* columns = scratch + int64_t(bins + kRoiBlock) * kRoiBlock;
  if (block == kRoiBlock)
    pool<kRoiBlock>(map, n_channels, roi, shape, scratch, columns);
  else
    pool<kRoiGroup>(map, n_channels, roi, shape, scratch, columns);
  if (!channels_last) return store_bins(scratch, block, int(n_channels), bins, out);
  for (int64_t bin = 0; bin < bins; ++bin)
    convert<kLanes<A>>(scratch + bin * block, out + bin * shape.channels, n_channels);
}

template <typename T>
void roi_pool_backward(const acc_t<T>* grad, const ChannelsOfMap<T>& map, int64_t n_channels, const RoiBins& roi,
                       const RoiShape& shape, bool channels_last, acc_t<T>* sum, acc_t<T>* scratch) {
  using A = acc_t<T>;
  using P = Places<A>;
  constexpr int lanes = kLanes<A>;
  const int64_t bins = shape.bins();
  A* columns = scratch - int64_t(roi.x_begin) * 2 * lanes;
  if (!channels_last) {
    A* side_by_side = scratch + shape.width * 2 * lanes;
    interleave_planes(grad, bins, 0, n_channels, 1, bins, kRoiGroup, side_by_side);
    grad = side_by_side;
  }
  const int64_t grad_stride = channels_last ? shape.channels : kRoiGroup;
  for (int64_t c = 0; c < n_channels; c += lanes) {
    const int group = n_channels - c < lanes ? int(n_channels - c) : lanes;
    for (int32_t ph = 0; ph < shape.pooled_height; ++ph) {
      const int32_t top = roi.rows[2 * ph], bottom = roi.rows[2 * ph + 1];
      if (top >= bottom) continue;
      for (int64_t x = roi.x_begin; x < roi.x_end; ++x) {
        P column;
        for (int64_t y = top; y < bottom; ++y) {
          const auto v = load_some<lanes>(map.data + y * map.row + x * map.pixel + c, group);
          const auto larger = v > column.largest;
          column.largest = larger ? v : column.largest;
          const Vec<typename P::Index, lanes> here = typename P::Index(y * shape.width + x) - decltype(column.pixel){};
          column.pixel = larger ? here : column.pixel;
        }
        column.write_to(columns + x * 2 * lanes);
      }
      for (int32_t pw = 0; pw < shape.pooled_width; ++pw) {
        P bin;
        for (int64_t x = roi.cols[2 * pw]; x < roi.cols[2 * pw + 1]; ++x) {
          const P column = P::read_from(columns + x * 2 * lanes);
          // Of equal ones the first pixel counts.
          const auto better =
              (column.largest > bin.largest) | ((column.largest == bin.largest) & (column.pixel < bin.pixel));
          bin.largest = better ? column.largest : bin.largest;
          bin.pixel = better ? column.pixel : bin.pixel;
        }
        const A* from = grad + (int64_t(ph) * shape.pooled_width + pw) * grad_stride + c;
        const auto at = bin.pixel * kRoiGroup;
        if (group == lanes) {  // Without the count to test, a third faster.
          for (int i = 0; i < lanes; ++i) sum[int64_t(at[i]) + c + i] += from[i];
        } else {
          for (int i = 0; i < group; ++i) sum[int64_t(at[i]) + c + i] += from[i];
        }
      }
    }
  }
}

template <typename T>
void roi_pool_store(const acc_t<T>* sum, int64_t n_channels, const RoiShape& shape, bool channels_last, T* image) {
  const int64_t pixels = shape.pixels();
  if (!channels_last) return store_bins(sum, kRoiGroup, int(n_channels), int32_t(pixels), image);
  for (int64_t pixel = 0; pixel < pixels; ++pixel)
    convert<kLanes<acc_t<T>>>(sum + pixel * kRoiGroup, image + pixel * shape.channels, n_channels);
}

#define INSTANTIATE(T)                                                                                               \
  template void roi_pool_copy<T>(const T*, int64_t, const RoiShape&, bool, int64_t, int64_t, int64_t, int64_t, int,  \
                                 T*);                                                                                \
  template void roi_pool<T>(const ChannelsOfMap<T>&, int64_t, const RoiBins&, const RoiShape&, bool, T*, acc_t<T>*); \
  template void roi_pool_backward<T>(const acc_t<T>*, const ChannelsOfMap<T>&, int64_t, const RoiBins&,              \
                                     const RoiShape&, bool, acc_t<T>*, acc_t<T>*);                                   \
  template void roi_pool_store<T>(const acc_t<T>*, int64_t, const RoiShape&, bool, T*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
