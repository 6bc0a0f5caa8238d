#pragma once

#include <cfloat>
#include <cstdint>

namespace fastcnn {

// Of a map, and of what a RoI becomes.
struct RoiShape {
  int64_t channels, height, width;
  int32_t pooled_height, pooled_width;

  int64_t pixels() const { return height * width; }
  int64_t bins() const { return int64_t(pooled_height) * pooled_width; }
};

// Channels handled at once: the more of them lie side by side the better, as long as their rows of a RoI stay in L1
// and, where planes are copied side by side, the copies in L2. kRoiGroup is at least a vector of any level.
constexpr int kRoiBlock = 64, kRoiGroup = 16;

// What a bin of RoI pool with pixels has if none is larger, as in torchvision, for float64 too; NaN is larger than
// nothing.
constexpr float kLowestPooled = -FLT_MAX;

}  // namespace fastcnn
