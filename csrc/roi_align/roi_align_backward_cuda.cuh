#pragma once

// The adjoint of RoI align as a gather: a block owns a tile of pixels of a block of channels and adds up what every RoI
// gives them, in the order of the RoIs. No atomics, so that a gradient is the same in every run; every pixel is
// written.

#include "roi_align_cuda.cuh"

namespace fastcnn {

// What a tile needs to know of a RoI to pass over it.
template <typename A>
struct RoiPlan {
  Roi<A> roi;
  RoiRange y, x;
};

template <typename A>
__global__ void plan_rois(const A* __restrict__ rois, int64_t n_rois, RoiAlignShape shape, RoiAlignOptions<A> options,
                          RoiPlan<A>* __restrict__ plans) {
  const int64_t k = block_index() * blockDim.x + threadIdx.x;
  if (k >= n_rois) return;
  const Roi<A> roi = load_roi(rois, k, shape, options);
  plans[k] = {roi, roi_range(roi.y, shape.pooled_height, shape.height),
              roi_range(roi.x, shape.pooled_width, shape.width)};
}

constexpr int kTileRows = 8;  // A warp each.
constexpr int kTileThreads = kTileRows * kWarp;
constexpr int kTileRois = 4;   // Tabulated together.
constexpr int kTileBins = 16;  // Of an axis, tabulated together.

// A[row][bin] and A[column][bin] of some RoIs, and the bins that touch each as a mask.
template <typename A, int kColumns>
struct TileTable {
  A weight[kTileRois][kTileRows + kColumns][kTileBins];
  unsigned bins[kTileRois][kTileRows + kColumns];
};

template <int kColumns>
struct Tile {
  int64_t image;
  int y, x;
  int64_t channel;

  // Blocks run over channels fastest, then tiles of an image.
  __device__ Tile(const RoiAlignShape& shape, int block_channels) {
    const int64_t blocks = (shape.channels + block_channels - 1) / block_channels;
    const int tiles_y = (shape.height + kTileRows - 1) / kTileRows, tiles_x = (shape.width + kColumns - 1) / kColumns;
    int64_t index = block_index();
    channel = index % blocks * block_channels;
    index /= blocks;
    x = int(index % tiles_x) * kColumns;
    index /= tiles_x;
    y = int(index % tiles_y) * kTileRows;
    image = index / tiles_y;
  }
};

// Blocks to launch, of kTileThreads threads.
inline int64_t roi_align_backward_blocks(const RoiAlignShape& shape, int columns, int block_channels) {
  const int64_t tiles_y = (shape.height + kTileRows - 1) / kTileRows, tiles_x = (shape.width + columns - 1) / columns;
  return shape.images * tiles_y * tiles_x * ((shape.channels + block_channels - 1) / block_channels);
}

// Calls add(k, r, ph0, pw0) for every RoI k that may reach the tile and every kTileBins x kTileBins of its bins, from
// (ph0, pw0) on, tabulated in entry r; all threads of the block together.
template <int kColumns, typename A, typename Add>
__device__ __forceinline__ void for_each_roi(const Tile<kColumns>& tile, const RoiPlan<A>* __restrict__ plans,
                                             int64_t n_rois, const RoiAlignShape& shape, TileTable<A, kColumns>& table,
                                             Add add) {
  constexpr int kLines = kTileRows + kColumns;
  __shared__ int64_t reaching[kTileThreads];
  __shared__ int counts[kTileRows];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for (int64_t base = 0; base < n_rois; base += kTileThreads) {
    const int64_t k = base + threadIdx.x;
    bool hit = false;
    if (k < n_rois) {
      const RoiPlan<A>& plan = plans[k];
      hit = plan.roi.image == tile.image && plan.y.begin < tile.y + kTileRows && tile.y < plan.y.end &&
            plan.x.begin < tile.x + kColumns && tile.x < plan.x.end;
    }
    const unsigned hits = __ballot_sync(kAllLanes, hit);
    if (lane == 0) counts[warp] = __popc(hits);
    __syncthreads();
    int before = 0, total = 0;
    for (int w = 0; w < kTileRows; ++w) {
      before += w < warp ? counts[w] : 0;
      total += counts[w];
    }
    if (hit) reaching[before + __popc(hits & ((1u << lane) - 1))] = k;
    __syncthreads();
    for (int first = 0; first < total; first += kTileRois) {
      const int n = min(kTileRois, total - first);
      for (int ph0 = 0; ph0 < shape.pooled_height; ph0 += kTileBins) {
        for (int pw0 = 0; pw0 < shape.pooled_width; pw0 += kTileBins) {
          // Half a warp is one row or column of the tile, a lane one bin.
          static_assert(kTileRois * kLines % (kTileThreads / kTileBins) == 0, "all lanes must reach the ballot");
          const int bin = threadIdx.x % kTileBins;
          for (int at = threadIdx.x / kTileBins; at < kTileRois * kLines; at += kTileThreads / kTileBins) {
            const int r = at / kLines, line = at % kLines;
            A weight = A(-1);
            if (r < n) {
              const Roi<A>& roi = plans[reaching[first + r]].roi;
              const bool row = line < kTileRows;
              const int pixel = row ? tile.y + line : tile.x + line - kTileRows;
              const int size = row ? shape.height : shape.width;
              const int at_bin = bin + (row ? ph0 : pw0), bins = row ? shape.pooled_height : shape.pooled_width;
              if (pixel < size && at_bin < bins)
                weight = roi_pixel_weight(row ? roi.y : roi.x, at_bin, pixel, size) * (row ? roi.scale : A(1));
            }
            const unsigned touched = __ballot_sync(kAllLanes, weight >= A(0)) >> (lane & kTileBins);
            table.weight[r][line][bin] = weight;
            if (bin == 0) table.bins[r][line] = touched & ((1u << kTileBins) - 1);
          }
          __syncthreads();
          for (int r = 0; r < n; ++r) add(reaching[first + r], r, ph0, pw0);
          __syncthreads();
        }
      }
    }
  }
}

constexpr int kTileColumnsLast = 8;

// Channels last: a warp is a row of the tile, lanes are channels.
template <typename T, int kVector>
__global__ void __launch_bounds__(kTileThreads, 2)
    roi_align_backward_channels_last(const T* __restrict__ grad, const RoiPlan<acc_t<T>>* __restrict__ plans,
                                     int64_t n_rois, RoiAlignShape shape, T* __restrict__ grad_input) {
  using A = acc_t<T>;
  constexpr int kColumns = kTileColumnsLast;
  __shared__ TileTable<A, kColumns> table;
  const Tile<kColumns> tile(shape, kWarp * kVector);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t c = tile.channel + lane * kVector;
  A sums[kColumns][kVector] = {};
  for_each_roi(tile, plans, n_rois, shape, table, [&](int64_t k, int r, int ph0, int pw0) {
    if (c >= shape.channels) return;
    unsigned columns = 0;
    for (int x = 0; x < kColumns; ++x) columns |= table.bins[r][kTileRows + x];
    for (unsigned rows = table.bins[r][warp]; rows;) {
      const int ph = take_bit(rows);
      const A wy = table.weight[r][warp][ph];
      const T* from = grad + ((k * shape.pooled_height + ph0 + ph) * shape.pooled_width + pw0) * shape.channels + c;
      for (unsigned left = columns; left;) {
        const int pw = take_bit(left);
        const auto values = load<kVector>(from + pw * shape.channels);
#pragma unroll
        for (int x = 0; x < kColumns; ++x) {
          const A wx = table.weight[r][kTileRows + x][pw];
          if (wx < A(0)) continue;
#pragma unroll
          for (int v = 0; v < kVector; ++v) sums[x][v] += wy * wx * widen(values.at[v]);
        }
      }
    }
  });
  const int y = tile.y + warp;
  if (c >= shape.channels || y >= shape.height) return;
  T* to = grad_input + ((tile.image * shape.height + y) * shape.width + tile.x) * shape.channels + c;
#pragma unroll
  for (int x = 0; x < kColumns; ++x)
    if (tile.x + x < shape.width) store<kVector>(to + x * shape.channels, sums[x]);
}

// Contiguous planes: a thread is a pixel of the tile, for a block of channels.
template <typename T>
__global__ void __launch_bounds__(kTileThreads, 2)
    roi_align_backward_planes(const T* __restrict__ grad, const RoiPlan<acc_t<T>>* __restrict__ plans, int64_t n_rois,
                              RoiAlignShape shape, T* __restrict__ grad_input) {
  using A = acc_t<T>;
  constexpr int kPlanes = kRoiAlignPlanes<A>;
  __shared__ TileTable<A, kWarp> table;
  const Tile<kWarp> tile(shape, kPlanes);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int n_planes = int(min(int64_t(kPlanes), shape.channels - tile.channel));
  const int bins = shape.pooled_height * shape.pooled_width;
  A sums[kPlanes] = {};
  for_each_roi(tile, plans, n_rois, shape, table, [&](int64_t k, int r, int ph0, int pw0) {
    const T* pooled = grad + (k * shape.channels + tile.channel) * bins;
    for (unsigned rows = table.bins[r][warp]; rows;) {
      const int ph = take_bit(rows);
      const A wy = table.weight[r][warp][ph];
      for (unsigned columns = table.bins[r][kTileRows + lane]; columns;) {
        const int pw = take_bit(columns);
        const A weight = wy * table.weight[r][kTileRows + lane][pw];
        const T* from = pooled + (ph0 + ph) * shape.pooled_width + pw0 + pw;
#pragma unroll
        for (int p = 0; p < kPlanes; ++p, from += bins)
          if (p < n_planes) sums[p] += weight * widen(*from);
      }
    }
  });
  const int y = tile.y + warp, x = tile.x + lane;
  if (y >= shape.height || x >= shape.width) return;
  const int64_t pixels = int64_t(shape.height) * shape.width;
  T* to = grad_input + (tile.image * shape.channels + tile.channel) * pixels + int64_t(y) * shape.width + x;
#pragma unroll
  for (int p = 0; p < kPlanes; ++p, to += pixels)
    if (p < n_planes) narrow(sums[p], *to);
}

}  // namespace fastcnn
