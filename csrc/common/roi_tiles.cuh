#pragma once

// How kernels over RoIs share out their work: bins of a row in tiles; and for gradients, which are gathered, pixels in
// tiles, each taking the RoIs that reach it in their order. No atomics, so that a gradient is the same in every run.

#include "cuda_device.cuh"

namespace fastcnn {

// Channels of planes that a warp takes at once.
template <typename A>
constexpr int kRoiPlanes = sizeof(A) == 4 ? 32 : 16;

constexpr int kBinTile = 8;

// Of `bins` bins of a row, those that a warp takes: tiles of equal size, the last perhaps smaller.
__host__ __device__ __forceinline__ int bin_tile(int bins) {
  const int tiles = (bins + kBinTile - 1) / kBinTile;
  return (bins + tiles - 1) / tiles;
}

// The pixels and channels of one block.
template <int kRows, int kColumns>
struct PixelTile {
  int64_t image;
  int y, x;
  int64_t channel;

  __host__ __device__ static int64_t count(int64_t images, int64_t channels, int height, int width,
                                           int block_channels) {
    const int64_t tiles_y = (height + kRows - 1) / kRows, tiles_x = (width + kColumns - 1) / kColumns;
    return images * tiles_y * tiles_x * ((channels + block_channels - 1) / block_channels);
  }

  // Blocks run over channels fastest, then tiles of an image.
  __device__ PixelTile(int64_t index, int64_t channels, int height, int width, int block_channels) {
    const int64_t blocks = (channels + block_channels - 1) / block_channels;
    const int tiles_y = (height + kRows - 1) / kRows, tiles_x = (width + kColumns - 1) / kColumns;
    channel = index % blocks * block_channels;
    index /= blocks;
    x = int(index % tiles_x) * kColumns;
    index /= tiles_x;
    y = int(index % tiles_y) * kRows;
    image = index / tiles_y;
  }
};

// Calls visit(rois, count) with those of n_rois RoIs for which reaches(k), in order and kThreads of n_rois at a time; a
// whole block together.
template <int kThreads, typename Reaches, typename Visit>
__device__ __forceinline__ void for_each_reaching(int64_t n_rois, Reaches reaches, Visit visit) {
  __shared__ int64_t reaching[kThreads];
  __shared__ int counts[kThreads / kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for (int64_t base = 0; base < n_rois; base += kThreads) {
    const int64_t k = base + threadIdx.x;
    const bool hit = k < n_rois && reaches(k);
    const unsigned hits = __ballot_sync(kAllLanes, hit);
    if (lane == 0) counts[warp] = __popc(hits);
    __syncthreads();
    int before = 0, total = 0;
    for (int w = 0; w < kThreads / kWarp; ++w) {
      before += w < warp ? counts[w] : 0;
      total += counts[w];
    }
    if (hit) reaching[before + __popc(hits & ((1u << lane) - 1))] = k;
    __syncthreads();
    visit(reaching, total);
  }
}

}  // namespace fastcnn
