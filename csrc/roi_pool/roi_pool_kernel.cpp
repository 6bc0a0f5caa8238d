#include "roi_pool_kernel.h"

#include "../common/planes.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// out[0, n) = the largest of rows[i][0, n) over i in [0, count), rows lying `stride` elements apart. n is mostly Block.
template <int Block, typename T>
inline void largest_of_rows(const T* rows, int64_t stride, int32_t count, int64_t n, acc_t<T>* out) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  using V = Vec<A, lanes>;
  if (n == Block) {
    V largest[Block / lanes];
    for (V& m : largest) m = V{} + A(kLowestPooled);
    for (int32_t r = 0; r < count; ++r, rows += stride)
      for (int i = 0; i < Block / lanes; ++i) {
        const V v = load<lanes>(rows + i * lanes);
        largest[i] = v > largest[i] ? v : largest[i];
      }
    for (int i = 0; i < Block / lanes; ++i) store<lanes>(out + i * lanes, largest[i]);
    return;
  }
  for (int64_t at = 0; at < n; at += lanes) {
    V largest = V{} + A(kLowestPooled);
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

// The largest so far of V vectors of channels, and the first pixel each is at, in the order of rows; -1 if at none.
template <int V, typename A>
struct Largest {
  using Index = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
  using Pixels = Vec<Index, kLanes<A>>;
  Vec<A, kLanes<A>> value[V];
  Pixels pixel[V];

  Largest() {
    for (int i = 0; i < V; ++i) {
      value[i] = Vec<A, kLanes<A>>{} + A(kLowestPooled);
      pixel[i] = Pixels{} - 1;
    }
  }
  template <typename T>
  void look_at(const T* from, Pixels here, int64_t n) {
    for (int i = 0; i < V; ++i) {
      const auto v = V > 1 ? load<kLanes<A>>(from + i * kLanes<A>) : load_some<kLanes<A>>(from, n);
      const auto larger = v > value[i];
      value[i] = larger ? v : value[i];
      pixel[i] = larger ? here : pixel[i];
    }
  }
  // Of equal ones the first pixel counts.
  void merge(const Largest& other) {
    for (int i = 0; i < V; ++i) {
      const auto better = (other.value[i] > value[i]) |
                          ((other.value[i] == value[i]) & (other.pixel[i] >= 0) & (other.pixel[i] < pixel[i]));
      pixel[i] = better ? other.pixel[i] : pixel[i];
    }
  }
};

// The places of V vectors of channels in a bin. Two rows at a time, since a comparison waits for the one before.
template <int V, typename T>
inline void search_bin(const ChannelsOfMap<T>& map, int64_t c, int64_t n, int32_t top, int32_t bottom, int32_t left,
                       int32_t right, int64_t map_width, int32_t* places) {
  using A = acc_t<T>;
  using L = Largest<V, A>;
  L even, odd;
  for (int32_t y = top; y < bottom; y += 2) {
    const T* row = map.data + y * map.row + c;
    typename L::Pixels here = typename L::Pixels{} + typename L::Index(y * map_width + left);
    if (y + 1 < bottom)
      for (int64_t x = left; x < right; ++x, here += 1) {
        even.look_at(row + x * map.pixel, here, n);
        odd.look_at(row + map.row + x * map.pixel, here + typename L::Index(map_width), n);
      }
    else
      for (int64_t x = left; x < right; ++x, here += 1) even.look_at(row + x * map.pixel, here, n);
  }
  even.merge(odd);
  for (int i = 0; i < V; ++i) {
    const auto narrow = __builtin_convertvector(even.pixel[i], Vec<int32_t, kLanes<A>>);
    memcpy(places + i * kLanes<A>, &narrow, sizeof narrow);
  }
}

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
void roi_pool_search(const ChannelsOfMap<T>& map, int64_t n_channels, const RoiBins& roi, const RoiShape& shape,
                     int32_t* places) {
  constexpr int lanes = kLanes<acc_t<T>>;
  for (int32_t ph = 0; ph < shape.pooled_height; ++ph) {
    const int32_t top = roi.rows[2 * ph], bottom = roi.rows[2 * ph + 1];
    for (int32_t pw = 0; pw < shape.pooled_width; ++pw, places += kRoiGroup) {
      const int32_t left = roi.cols[2 * pw], right = roi.cols[2 * pw + 1];
      if (n_channels == kRoiGroup)
        search_bin<kRoiGroup / lanes>(map, 0, lanes, top, bottom, left, right, shape.width, places);
      else
        for (int64_t c = 0; c < n_channels; c += lanes)
          search_bin<1>(map, c, n_channels - c, top, bottom, left, right, shape.width, places + c);
    }
  }
}

void roi_pool_planes_of_places(const int32_t* places, int64_t n_channels, int64_t bins, int32_t* planes) {
  // Their bits moved as those of floats.
  store_bins(reinterpret_cast<const float*>(places), kRoiGroup, int(n_channels), int32_t(bins),
             reinterpret_cast<float*>(planes));
}

template <typename A>
void roi_pool_add_to_plane(const A* grad, const int32_t* places, int64_t bins, A* plane) {
  for (int64_t bin = 0; bin < bins; ++bin)
    if (places[bin] >= 0) plane[places[bin]] += grad[bin];
}

// What belongs to no pixel goes before the first.
template <typename A>
void roi_pool_add_to_pixels(const A* grad, const int32_t* places, int64_t n_channels, const RoiShape& shape, A* sum) {
  for (int64_t bin = 0; bin < shape.bins(); ++bin, grad += shape.channels, places += kRoiGroup) {
    if (n_channels == kRoiGroup)  // Without the count to test, a third faster.
      for (int i = 0; i < kRoiGroup; ++i) sum[int64_t(places[i]) * kRoiGroup + i] += grad[i];
    else
      for (int i = 0; i < n_channels; ++i) sum[int64_t(places[i]) * kRoiGroup + i] += grad[i];
  }
}

template <typename T>
void roi_pool_store(const acc_t<T>* sum, int64_t n_channels, const RoiShape& shape, bool channels_last, T* image) {
  constexpr int lanes = kLanes<acc_t<T>>;
  const int64_t pixels = shape.pixels();
  if (!channels_last) return convert<lanes>(sum, image, n_channels * pixels);
  for (int64_t pixel = 0; pixel < pixels; ++pixel)
    convert<lanes>(sum + pixel * kRoiGroup, image + pixel * shape.channels, n_channels);
}

#define INSTANTIATE(T)                                                                                               \
  template void roi_pool_copy<T>(const T*, int64_t, const RoiShape&, bool, int64_t, int64_t, int64_t, int64_t, int,  \
                                 T*);                                                                                \
  template void roi_pool<T>(const ChannelsOfMap<T>&, int64_t, const RoiBins&, const RoiShape&, bool, T*, acc_t<T>*); \
  template void roi_pool_search<T>(const ChannelsOfMap<T>&, int64_t, const RoiBins&, const RoiShape&, int32_t*);     \
  template void roi_pool_store<T>(const acc_t<T>*, int64_t, const RoiShape&, bool, T*);
#define INSTANTIATE_SUMS(A)                                                      \
  template void roi_pool_add_to_plane<A>(const A*, const int32_t*, int64_t, A*); \
  template void roi_pool_add_to_pixels<A>(const A*, const int32_t*, int64_t, const RoiShape&, A*);
INSTANTIATE_SUMS(float)
INSTANTIATE_SUMS(double)
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
