#pragma once

// What the focal losses share (Lin et al. 2017, section 3.2).

#include "math.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// miss^gamma, the factor that turns a cross-entropy into a focal loss.
template <typename V>
inline V modulation(V miss, Lane<V> gamma) {
  if (gamma == 2) return miss * miss;
  if (gamma == 1) return miss;
  if (gamma == 0) return V{} + 1;
  return exp(gamma * log(miss));
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
