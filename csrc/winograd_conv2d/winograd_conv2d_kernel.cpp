#include "winograd_conv2d_kernel.h"

#include "../common/simd.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

constexpr int kCount = kLanes<float>;
using V = Vec<float, kCount>;

inline V read_some(const float* at, int64_t count) { return at ? load_some<kCount>(at, count) : V{}; }

}  // namespace

void winograd_input(const WinogradTile& tile, int64_t channels, float* to, int64_t step) {
  for (int64_t c = 0; c < channels; c += kCount) {
    const int64_t count = channels - c;
    V half[4][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      V d[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) d[i] = read_some(tile.in[4 * i + j] ? tile.in[4 * i + j] + c : nullptr, count);
      half[0][j] = d[0] - d[2];
      half[1][j] = d[1] + d[2];
      half[2][j] = d[2] - d[1];
      half[3][j] = d[1] - d[3];
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const V* h = half[i];
      float* at = to + 4 * i * step + c;
      store_some<kCount>(at, h[0] - h[2], count);
      store_some<kCount>(at + step, h[1] + h[2], count);
      store_some<kCount>(at + 2 * step, h[2] - h[1], count);
      store_some<kCount>(at + 3 * step, h[1] - h[3], count);
    }
  }
}

void winograd_output(const float* from, int64_t step, int64_t channels, const float* bias, Activation activation,
                     float slope, const WinogradTile& tile) {
  const auto finish = [&](V sum, int i, int64_t c, int64_t count) {
    if (!tile.out[i]) return;
    if (tile.residual[i]) sum += load_some<kCount>(tile.residual[i] + c, count);
    const V leaky = sum > 0 ? sum : sum * slope;
    store_some<kCount>(tile.out[i] + c, slope != 0 ? leaky : activate<float, kCount>(activation, sum), count);
  };
  for (int64_t c = 0; c < channels; c += kCount) {
    const int64_t count = channels - c;
    V half[2][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      V m[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) m[i] = load_some<kCount>(from + (4 * i + j) * step + c, count);
      half[0][j] = m[0] + m[1] + m[2];
      half[1][j] = m[1] - m[2] - m[3];
    }
    const V added = read_some(bias ? bias + c : nullptr, count);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const V* h = half[i];
      finish(h[0] + h[1] + h[2] + added, 2 * i, c, count);
      finish(h[1] - h[2] - h[3] + added, 2 * i + 1, c, count);
    }
  }
}

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
