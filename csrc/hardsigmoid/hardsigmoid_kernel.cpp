#include "hardsigmoid_kernel.h"

#include "../common/elementwise.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Division, not multiplication by 1/6: the last bit is then the one PyTorch's CPU kernel gives.
struct Value {
  template <typename V>
  V operator()(V x) const {
    return divide_by<6>(shifted_relu6(x));
  }
};

// The product, not grad / 6: the last bit is then PyTorch's, but in double, where its sixth is one of float.
struct Gradient {
  template <typename V>
  V operator()(V grad, V x) const {
    using A = decltype(x[0] + 0);
    const V above = x > -3 ? grad * A(1.0 / 6) : V{};
    return x < 3 ? above : V{};
  }
};

}  // namespace

FASTCNN_ELEMENTWISE_KERNELS(hardsigmoid, Value, Gradient)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
