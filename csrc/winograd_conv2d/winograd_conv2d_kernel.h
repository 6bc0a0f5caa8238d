#pragma once

#include "../common/activation.h"
#include "../common/isa.h"

namespace fastcnn {

// Where the 4x4 pixels under a tile lie, row by row, and its 2x2 results; those outside the map are null.
struct WinogradTile {
  const float* in[16];
  float* out[4];
  const float* residual[4];
};

FASTCNN_FOR_EACH_ISA(
    // Of every channel, B' d B: number i goes to to[i * step].
    void winograd_input(const WinogradTile& tile, int64_t channels, float* to, int64_t step);
    // Of every channel, A' m A, of which number i is from[i * step], and what comes after it. Of ReLU there may be a
    // slope.
    void winograd_output(const float* from, int64_t step, int64_t channels, const float* bias, Activation activation,
                         float slope, const WinogradTile& tile);)
}  // namespace fastcnn
