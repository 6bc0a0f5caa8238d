#include "roi_align_kernel.h"

#include "../common/planes.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

constexpr int kBlock = kRoiBlock;

// The sum over the taps of a bin of weight * rows[index][0, count), rows being `stride` elements apart.
template <int lanes, typename T>
inline Vec<acc_t<T>, lanes> weighted_row(const T* rows, int64_t stride, const AxisTaps<acc_t<T>>& taps, int bin,
                                         int count) {
  Vec<acc_t<T>, lanes> sum{};
  for (int32_t t = taps.first[bin]; t < taps.first[bin + 1]; ++t) {
    const T* row = rows + taps.index[t] * stride;
    sum += taps.weight[t] * load_some<lanes>(row, count);
  }
  return sum;
}

// The same for n elements, of which there are mostly `Block`.
template <int Block, typename T>
inline void weighted_rows(const T* rows, int64_t stride, const AxisTaps<acc_t<T>>& taps, int bin, int64_t n,
                          acc_t<T>* out) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int32_t begin = taps.first[bin], end = taps.first[bin + 1];
  if (n == Block) {
    Vec<A, lanes> sums[Block / lanes] = {};
    for (int32_t t = begin; t < end; ++t)
      for (int i = 0; i < Block / lanes; ++i)
        sums[i] += taps.weight[t] * load<lanes>(rows + taps.index[t] * stride + i * lanes);
    for (int i = 0; i < Block / lanes; ++i) store<lanes>(out + i * lanes, sums[i]);
    return;
  }
  for (int64_t at = 0; at < n; at += lanes) {
    const int count = n - at < lanes ? int(n - at) : lanes;
    store_some<lanes>(out + at, weighted_row<lanes>(rows + at, stride, taps, bin, count), count);
  }
}

// rows[index][0, n) += weight * in over the taps of a bin; n is mostly `Block`.
template <int Block, typename A>
inline void scatter_rows(const A* in, int64_t n, const AxisTaps<A>& taps, int bin, int64_t stride, A* rows) {
  constexpr int lanes = kLanes<A>;
  if (n == Block) {
    Vec<A, lanes> values[Block / lanes];
    for (int i = 0; i < Block / lanes; ++i) values[i] = load<lanes>(in + i * lanes);
    for (int32_t t = taps.first[bin]; t < taps.first[bin + 1]; ++t) {
      A* row = rows + taps.index[t] * stride;
      for (int i = 0; i < Block / lanes; ++i)
        store<lanes>(row + i * lanes, load<lanes>(row + i * lanes) + taps.weight[t] * values[i]);
    }
    return;
  }
  for (int32_t t = taps.first[bin]; t < taps.first[bin + 1]; ++t)
    for (int64_t at = 0; at < n; ++at) rows[taps.index[t] * stride + at] += taps.weight[t] * in[at];
}

// Columns [begin, end) of the map, at most a vector of them, which hold the next columns to be read from columns[i] on.
// A full vector is moved left where it would run past the end of a row.
struct ColumnRun {
  int64_t begin, end;

  template <typename A>
  static ColumnRun at(const RoiPlan<A>& roi, int32_t i, int64_t width, int lanes) {
    const int64_t begin = roi.columns[i];
    if (width < lanes) return {0, width};
    return begin + lanes <= width ? ColumnRun{begin, begin + lanes} : ColumnRun{width - lanes, width};
  }
};

}  // namespace

template <typename A>
inline int32_t next_run(const RoiPlan<A>& roi, int32_t i, int64_t width, int lanes) {
  const int64_t end = ColumnRun::at(roi, i, width, lanes).end;
  while (i < roi.n_columns && roi.columns[i] < end) ++i;
  return i;
}

// Pools up to Block channels of an image whose pixels lie `stride` elements apart, into rows of Block.
template <int Block, typename T>
inline void pool_pixels(const T* image, int64_t stride, int64_t n_channels, const RoiPlan<acc_t<T>>& roi,
                        const RoiShape& shape, acc_t<T>* pooled, acc_t<T>* columns) {
  columns -= int64_t(roi.x_begin) * Block;
  for (int32_t ph = 0; ph < shape.pooled_height; ++ph) {
    for (int32_t i = 0; i < roi.n_columns; ++i) {
      const int64_t x = roi.columns[i];
      weighted_rows<Block>(image + x * stride, shape.width * stride, roi.rows, ph, n_channels, columns + x * Block);
    }
    for (int32_t pw = 0; pw < shape.pooled_width; ++pw, pooled += Block)
      weighted_rows<Block>(columns, Block, roi.cols, pw, n_channels, pooled);
  }
}

// The adjoint of pool_pixels: adds to an image whose pixels lie `stride` elements apart.
template <int Block, typename A>
inline void spread_pixels(const A* pooled, int64_t stride, int64_t n_channels, const RoiPlan<A>& roi,
                          const RoiShape& shape, A* image, A* columns) {
  A* column0 = columns - int64_t(roi.x_begin) * Block;
  for (int32_t ph = 0; ph < shape.pooled_height; ++ph) {
    memset(columns, 0, sizeof(A) * (roi.x_end - roi.x_begin) * Block);
    for (int32_t pw = 0; pw < shape.pooled_width; ++pw, pooled += Block)
      scatter_rows<Block>(pooled, n_channels, roi.cols, pw, Block, column0);
    for (int32_t i = 0; i < roi.n_columns; ++i) {
      const int64_t x = roi.columns[i];
      scatter_rows<Block>(column0 + x * Block, n_channels, roi.rows, ph, shape.width * stride, image + x * stride);
    }
  }
}

// A vector of planes at a time: rows are contracted along x, where memory is contiguous, and transposed, so that
// columns are contracted with one plane per lane; the bins are transposed back.
template <typename T>
void roi_align_planes(const T* planes, int64_t n_planes, const RoiPlan<acc_t<T>>& roi, const RoiShape& shape, T* out,
                      acc_t<T>* scratch) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t plane = shape.height * shape.width;
  const int32_t bins = shape.pooled_height * shape.pooled_width;
  A* pooled = scratch;                            // [bins][lanes]
  A* columns = scratch + (bins + lanes) * lanes;  // [width][lanes]
  A* rows = columns + shape.width * lanes;        // [run][ph][plane][lanes]
  for (int64_t c = 0; c < n_planes; c += lanes, planes += lanes * plane, out += int64_t(lanes) * bins) {
    const int group = n_planes - c < lanes ? int(n_planes - c) : lanes;
    // One plane after the other, not one row of bins: its rows lie close together and are shared by neighbouring bins.
    for (int p = 0; p < group; ++p) {
      A* to = rows + p * lanes;
      for (int32_t i = 0; i < roi.n_columns; i = next_run(roi, i, shape.width, lanes)) {
        const ColumnRun run = ColumnRun::at(roi, i, shape.width, lanes);
        const T* from = planes + p * plane + run.begin;
        for (int32_t ph = 0; ph < shape.pooled_height; ++ph, to += lanes * lanes)
          store<lanes>(to, weighted_row<lanes>(from, shape.width, roi.rows, ph, int(run.end - run.begin)));
      }
    }
    for (int32_t ph = 0; ph < shape.pooled_height; ++ph) {
      const A* from = rows + ph * lanes * lanes;
      for (int32_t i = 0; i < roi.n_columns; i = next_run(roi, i, shape.width, lanes)) {
        const ColumnRun run = ColumnRun::at(roi, i, shape.width, lanes);
        Vec<A, lanes> tile[lanes];
        for (int p = 0; p < lanes; ++p) tile[p] = load<lanes>(from + p * lanes);
        from += shape.pooled_height * lanes * lanes;
        transpose<A, lanes>(tile);
        for (int x = 0; x < int(run.end - run.begin); ++x) store<lanes>(columns + (run.begin + x) * lanes, tile[x]);
      }
      for (int32_t pw = 0; pw < shape.pooled_width; ++pw) {
        Vec<A, lanes> sum{};
        for (int32_t t = roi.cols.first[pw]; t < roi.cols.first[pw + 1]; ++t)
          sum += roi.cols.weight[t] * load<lanes>(columns + int64_t(roi.cols.index[t]) * lanes);
        store<lanes>(pooled + (ph * shape.pooled_width + pw) * lanes, sum);
      }
    }
    store_bins(pooled, lanes, group, bins, out);
  }
}

template <typename T>
void roi_align_channels_last(const T* image, int64_t n_channels, const RoiPlan<acc_t<T>>& roi, const RoiShape& shape,
                             T* out, acc_t<T>* scratch) {
  using A = acc_t<T>;
  const int32_t bins = shape.pooled_height * shape.pooled_width;
  for (int64_t c = 0; c < n_channels; c += kBlock) {
    const int64_t block = n_channels - c < kBlock ? n_channels - c : kBlock;
    pool_pixels<kBlock>(image + c, shape.channels, block, roi, shape, scratch, scratch + bins * kBlock);
    for (int32_t bin = 0; bin < bins; ++bin)
      convert<kLanes<A>>(scratch + bin * kBlock, out + bin * shape.channels + c, block);
  }
}

template <typename T>
void roi_align_interleave(const T* planes, int64_t n_planes, int64_t pixels, int stride, T* out) {
  interleave_planes(planes, pixels, 0, n_planes, 1, pixels, stride, out);
}

template <typename T>
void roi_align_interleaved(const T* image, int64_t n_planes, int stride, const RoiPlan<acc_t<T>>& roi,
                           const RoiShape& shape, T* out, acc_t<T>* scratch) {
  const int32_t bins = shape.pooled_height * shape.pooled_width;
  acc_t<T>* columns = scratch + (bins + kBlock) * kBlock;
  if (stride == kBlock)
    pool_pixels<kBlock>(image, stride, n_planes, roi, shape, scratch, columns);
  else
    pool_pixels<kRoiGroup>(image, stride, n_planes, roi, shape, scratch, columns);
  store_bins(scratch, stride, int(n_planes), bins, out);
}

template <typename T>
void roi_align_interleaved_backward(const T* grad, int64_t n_planes, int stride, const RoiPlan<acc_t<T>>& roi,
                                    const RoiShape& shape, acc_t<T>* grad_image, acc_t<T>* scratch) {
  const int64_t bins = shape.bins();
  acc_t<T>* columns = scratch + (bins + kBlock) * kBlock;
  interleave_planes(grad, bins, 0, n_planes, 1, bins, stride, scratch);
  if (stride == kBlock)
    spread_pixels<kBlock>(scratch, stride, n_planes, roi, shape, grad_image, columns);
  else
    spread_pixels<kRoiGroup>(scratch, stride, n_planes, roi, shape, grad_image, columns);
}

template <typename T>
void roi_align_separate(const acc_t<T>* image, int64_t n_planes, int64_t pixels, int stride, T* out) {
  store_bins(image, stride, int(n_planes), int32_t(pixels), out);
}

template <int Block, typename T>
inline void spread_channels(const T* grad, int64_t n_channels, const RoiPlan<acc_t<T>>& roi, const RoiShape& shape,
                            acc_t<T>* grad_image, int64_t stride, acc_t<T>* scratch) {
  const int64_t bins = shape.bins();
  for (int64_t c = 0; c < n_channels; c += Block) {
    const int64_t block = n_channels - c < Block ? n_channels - c : Block;
    for (int64_t bin = 0; bin < bins; ++bin)
      convert<kLanes<acc_t<T>>>(grad + bin * shape.channels + c, scratch + bin * Block, block);
    spread_pixels<Block>(scratch, stride, block, roi, shape, grad_image + c, scratch + bins * Block);
  }
}

template <typename T>
void roi_align_channels_last_backward(const T* grad, int64_t n_channels, const RoiPlan<acc_t<T>>& roi,
                                      const RoiShape& shape, acc_t<T>* grad_image, int64_t stride, acc_t<T>* scratch) {
  if (stride == kRoiGroup)
    spread_channels<kRoiGroup>(grad, n_channels, roi, shape, grad_image, stride, scratch);
  else
    spread_channels<kBlock>(grad, n_channels, roi, shape, grad_image, stride, scratch);
}

template <typename T>
void roi_align_round(const acc_t<T>* image, int64_t n_channels, int64_t pixels, int64_t stride, int64_t channels,
                     T* out) {
  for (int64_t i = 0; i < pixels; ++i) convert<kLanes<acc_t<T>>>(image + i * stride, out + i * channels, n_channels);
}

#define INSTANTIATE(T)                                                                                               \
  template void roi_align_planes<T>(const T*, int64_t, const RoiPlan<acc_t<T>>&, const RoiShape&, T*, acc_t<T>*);    \
  template void roi_align_channels_last<T>(const T*, int64_t, const RoiPlan<acc_t<T>>&, const RoiShape&, T*,         \
                                           acc_t<T>*);                                                               \
  template void roi_align_interleave<T>(const T*, int64_t, int64_t, int, T*);                                        \
  template void roi_align_interleaved<T>(const T*, int64_t, int, const RoiPlan<acc_t<T>>&, const RoiShape&, T*,      \
                                         acc_t<T>*);                                                                 \
  template void roi_align_interleaved_backward<T>(const T*, int64_t, int, const RoiPlan<acc_t<T>>&, const RoiShape&, \
                                                  acc_t<T>*, acc_t<T>*);                                             \
  template void roi_align_separate<T>(const acc_t<T>*, int64_t, int64_t, int, T*);                                   \
  template void roi_align_channels_last_backward<T>(const T*, int64_t, const RoiPlan<acc_t<T>>&, const RoiShape&,    \
                                                    acc_t<T>*, int64_t, acc_t<T>*);                                  \
  template void roi_align_round<T>(const acc_t<T>*, int64_t, int64_t, int64_t, int64_t, T*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
