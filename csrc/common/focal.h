#pragma once

// What the focal losses share (Lin et al. 2017, section 3.2).

#include "elementwise.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// miss^gamma, the factor that turns a cross-entropy into a focal loss. Everybody's gamma is 2, which kernels know at
// compile time.
template <typename A>
struct Square {
  static constexpr bool kIsSquare = true;
  static constexpr A gamma = 2;

  template <typename V>
  V operator()(V miss) const {
    return miss * miss;
  }
};

template <typename A>
struct Power {
  static constexpr bool kIsSquare = false;
  A gamma;

  template <typename V>
  V operator()(V miss) const {
    if (gamma == 1) return miss;
    if (gamma == 0) return V{} + 1;
    return exp(gamma * log(miss));
  }
};

template <typename A, typename Body>
inline auto with_modulation(A gamma, const Body& body) {
  return gamma == 2 ? body(Square<A>{}) : body(Power<A>{gamma});
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
