#pragma once

// The gradient of RoI pool as a gather: a block owns a tile of pixels of 32 channels and looks through the bins that
// overlap it for those whose largest value lies in the tile. Its warps share the RoIs by turns, each adding what it
// finds in order, and their sums are added up in order. Every pixel is written.

#include "roi_pool_cuda.cuh"

namespace fastcnn {

// As many as there is shared memory for.
template <typename A>
constexpr int kPoolGatherWarps = sizeof(A) == 4 ? 4 : 2;

using PoolTile = PixelTile<kPoolTileRows, kPoolTileColumns>;

// Blocks to launch, of kPoolGatherWarps warps.
inline int64_t roi_pool_gather_blocks(const RoiPoolShape& shape) {
  return PoolTile::count(shape.images, shape.channels, shape.height, shape.width, kWarp);
}

// Which of 32 bins from `first` on overlap pixels [begin, end), a bit each; a warp together.
template <typename A>
__device__ __forceinline__ unsigned overlapping(const PoolAxis<A>& axis, int first, int bins, int begin, int end,
                                                int size) {
  const int bin = first + threadIdx.x % kWarp;
  const PoolBin pixels = bin < bins ? pool_bin(axis, bin, size) : PoolBin{0, 0};
  return __ballot_sync(kAllLanes, pixels.begin < end && begin < pixels.end);
}

// `grad` and `places` are [K, bins, C]; the layout of the result is that of the maps.
template <typename T, bool kChannelsLast>
__global__ void __launch_bounds__(kPoolGatherWarps<acc_t<T>>* kWarp)
    roi_pool_gather(const T* __restrict__ grad, const int* __restrict__ places, const acc_t<T>* __restrict__ rois,
                    int64_t n_rois, acc_t<T> scale, RoiPoolShape shape, T* __restrict__ grad_input) {
  using A = acc_t<T>;
  constexpr int kWarps = kPoolGatherWarps<A>;
  __shared__ A sums[kWarps][kPoolTilePixels][kWarp + 1];
  const PoolTile tile(block_index(), shape.channels, shape.height, shape.width, kWarp);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t channel = tile.channel + lane;
  const int first_place = pool_place(tile.y, tile.x, shape.width);
#pragma unroll 8
  for (int p = 0; p < kPoolTilePixels; ++p) sums[warp][p][lane] = A(0);

  const auto reaches = [&](int64_t k) {
    const PoolRoi<A> roi = load_pool_roi(rois, k, scale, shape);
    return roi.image == tile.image && pool_bin(roi.y, 0, shape.height).begin < tile.y + kPoolTileRows &&
           tile.y < pool_bin(roi.y, shape.pooled_height - 1, shape.height).end &&
           pool_bin(roi.x, 0, shape.width).begin < tile.x + kPoolTileColumns &&
           tile.x < pool_bin(roi.x, shape.pooled_width - 1, shape.width).end;
  };
  for_each_reaching<kWarps * kWarp>(n_rois, reaches, [&](const int64_t* reaching, int count) {
    for (int i = warp; i < count; i += kWarps) {
      const int64_t k = reaching[i];
      const PoolRoi<A> roi = load_pool_roi(rois, k, scale, shape);
      for (int ph0 = 0; ph0 < shape.pooled_height; ph0 += kWarp) {
        const unsigned rows =
            overlapping(roi.y, ph0, shape.pooled_height, tile.y, tile.y + kPoolTileRows, shape.height);
        for (int pw0 = 0; pw0 < shape.pooled_width; pw0 += kWarp) {
          // Neighbours, as bins are in order.
          const unsigned columns =
              overlapping(roi.x, pw0, shape.pooled_width, tile.x, tile.x + kPoolTileColumns, shape.width);
          const int first = pw0 + __ffs(int(columns)) - 1, n_columns = channel < shape.channels ? __popc(columns) : 0;
          for (unsigned left = rows; left;) {
            const int ph = ph0 + take_bit(left);
            int64_t at = ((k * shape.pooled_height + ph) * shape.pooled_width + first) * shape.channels + channel;
#pragma unroll 4
            for (int j = 0; j < n_columns; ++j, at += shape.channels) {
              const unsigned pixel = unsigned(places[at] - first_place);
              const A value = widen(grad[at]);
              if (pixel < unsigned(kPoolTilePixels)) sums[warp][pixel][lane] += value;
            }
          }
        }
      }
    }
  });
  __syncthreads();

  const auto total = [&](int p, int c) {
    A sum = sums[0][p][c];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) sum += sums[w][p][c];
    return sum;
  };
  // Lanes are channels, or pixels of a plane.
  const int n_channels = int(min(int64_t(kWarp), shape.channels - tile.channel));
  for (int turn = warp; turn < (kChannelsLast ? kPoolTilePixels : n_channels); turn += kWarps) {
#pragma unroll
    for (int p0 = 0; p0 < (kChannelsLast ? 1 : kPoolTilePixels); p0 += kWarp) {
      const int p = kChannelsLast ? turn : p0 + lane, c = kChannelsLast ? lane : turn;
      const int y = tile.y + p / kPoolTileColumns, x = tile.x + p % kPoolTileColumns;
      if (y >= shape.height || x >= shape.width || c >= n_channels) continue;
      const int64_t image = tile.image * shape.channels, at = tile.channel + c;
      narrow(total(p, c),
             grad_input[kChannelsLast ? ((tile.image * shape.height + y) * shape.width + x) * shape.channels + at
                                      : ((image + at) * shape.height + y) * shape.width + x]);
    }
  }
}

}  // namespace fastcnn
