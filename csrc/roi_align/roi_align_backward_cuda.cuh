#pragma once

// The adjoint of RoI align as a gather: a block owns a tile of pixels of a block of channels and adds up what every RoI
// gives them, in the order of the RoIs. Every pixel is written. One launch serves all maps of a pyramid.

#include "roi_align_cuda.cuh"

namespace fastcnn {

// What a tile needs to know of a RoI to pass over it.
template <typename A>
struct RoiPlan {
  Roi<A> roi;
  RoiRange y, x;
};

template <typename A, int kLevels>
__global__ void plan_rois(const A* __restrict__ rois, int64_t n_rois, RoiLevels<A, kLevels> levels, RoiAlignShape shape,
                          RoiAlignOptions options, RoiPlan<A>* __restrict__ plans) {
  const int64_t k = block_index() * blockDim.x + threadIdx.x;
  if (k >= n_rois) return;
  const Roi<A> roi = load_roi(rois, k, levels, shape, options);
  plans[k] = {roi, roi_range(roi.y, shape.pooled_height, levels.at[roi.level].height),
              roi_range(roi.x, shape.pooled_width, levels.at[roi.level].width)};
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

// A tile of one of the maps.
template <typename A, int kColumns>
struct Tile : PixelTile<kTileRows, kColumns> {
  int level;
  RoiLevel<A> map;
};

template <int kColumns, typename A, int kLevels>
__host__ __device__ __forceinline__ int64_t tiles_of(const RoiLevels<A, kLevels>& levels, int level,
                                                     const RoiAlignShape& shape, int block_channels) {
  return PixelTile<kTileRows, kColumns>::count(shape.images, shape.channels, levels.at[level].height,
                                               levels.at[level].width, block_channels);
}

// Blocks to launch, of kTileThreads threads.
template <int kColumns, typename A, int kLevels>
int64_t roi_align_backward_blocks(const RoiLevels<A, kLevels>& levels, const RoiAlignShape& shape, int block_channels) {
  int64_t blocks = 0;
  for (int level = 0; level < levels.count; ++level) blocks += tiles_of<kColumns>(levels, level, shape, block_channels);
  return blocks;
}

// That of this block: blocks run over the maps one by one.
template <int kColumns, typename A, int kLevels>
__device__ __forceinline__ Tile<A, kColumns> tile_of_block(const RoiLevels<A, kLevels>& levels,
                                                           const RoiAlignShape& shape, int block_channels) {
  int64_t index = block_index();
  int level = 0;
  if constexpr (kLevels > 1)
    for (int64_t tiles; index >= (tiles = tiles_of<kColumns>(levels, level, shape, block_channels)); ++level)
      index -= tiles;
  const RoiLevel<A> map = levels.at[level];
  return {{index, shape.channels, map.height, map.width, block_channels}, level, map};
}

// Calls add(k, r, ph0, pw0) for every RoI k that may reach the tile and every kTileBins x kTileBins of its bins, from
// (ph0, pw0) on, tabulated in entry r; all threads of the block together.
template <int kColumns, typename A, typename Add>
__device__ __forceinline__ void for_each_roi(const Tile<A, kColumns>& tile, const RoiPlan<A>* __restrict__ plans,
                                             int64_t n_rois, const RoiAlignShape& shape, TileTable<A, kColumns>& table,
                                             Add add) {
  constexpr int kLines = kTileRows + kColumns;
  const auto reaches = [&](int64_t k) {
    const RoiPlan<A>& plan = plans[k];
    return plan.roi.image == tile.image && plan.roi.level == tile.level && plan.y.begin < tile.y + kTileRows &&
           tile.y < plan.y.end && plan.x.begin < tile.x + kColumns && tile.x < plan.x.end;
  };
  for_each_reaching<kTileThreads>(n_rois, reaches, [&](const int64_t* reaching, int total) {
    const int lane = threadIdx.x % kWarp;
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
              const int size = row ? tile.map.height : tile.map.width;
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
  });
}

constexpr int kTileColumnsLast = 8;

// Channels last: a warp is a row of the tile, lanes are channels.
template <typename T, int kVector, int kLevels>
__global__ void __launch_bounds__(kTileThreads, 2)
    roi_align_backward_channels_last(const T* __restrict__ grad, const RoiPlan<acc_t<T>>* __restrict__ plans,
                                     int64_t n_rois, RoiLevels<acc_t<T>, kLevels> levels, RoiAlignShape shape,
                                     const __grid_constant__ RoiMaps<T, kLevels> grad_maps) {
  using A = acc_t<T>;
  constexpr int kColumns = kTileColumnsLast;
  __shared__ TileTable<A, kColumns> table;
  const Tile<A, kColumns> tile = tile_of_block<kColumns>(levels, shape, kWarp * kVector);
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
  if (c >= shape.channels || y >= tile.map.height) return;
  T* to =
      grad_maps.at[tile.level] + ((tile.image * tile.map.height + y) * tile.map.width + tile.x) * shape.channels + c;
#pragma unroll
  for (int x = 0; x < kColumns; ++x)
    if (tile.x + x < tile.map.width) store<kVector>(to + x * shape.channels, sums[x]);
}

// Contiguous planes: a thread is a pixel of the tile, for a block of channels.
template <typename T, int kLevels>
__global__ void __launch_bounds__(kTileThreads, 2)
    roi_align_backward_planes(const T* __restrict__ grad, const RoiPlan<acc_t<T>>* __restrict__ plans, int64_t n_rois,
                              RoiLevels<acc_t<T>, kLevels> levels, RoiAlignShape shape,
                              const __grid_constant__ RoiMaps<T, kLevels> grad_maps) {
  using A = acc_t<T>;
  constexpr int kPlanes = kRoiPlanes<A>;
  __shared__ TileTable<A, kWarp> table;
  const Tile<A, kWarp> tile = tile_of_block<kWarp>(levels, shape, kPlanes);
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
  if (y >= tile.map.height || x >= tile.map.width) return;
  const int64_t pixels = int64_t(tile.map.height) * tile.map.width;
  T* to = grad_maps.at[tile.level] + (tile.image * shape.channels + tile.channel) * pixels +
          int64_t(y) * tile.map.width + x;
#pragma unroll
  for (int p = 0; p < kPlanes; ++p, to += pixels)
    if (p < n_planes) narrow(sums[p], *to);
}

}  // namespace fastcnn
