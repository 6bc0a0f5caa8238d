#include "hardswish_kernel.h"

#include "../common/elementwise.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Division, not multiplication by 1/6: the last bit is then the one PyTorch's CPU kernel gives.
struct Value {
  template <typename V>
  V operator()(V x) const {
    return divide_by<6>(x * shifted_relu6(x));
  }
};

struct Gradient {
  template <typename V>
  V operator()(V grad, V x) const {
    const V inner = grad * (divide_by<3>(x) + decltype(x[0] + 0)(0.5));
    const V below = x <= -3 ? V{} : inner;
    return x >= 3 ? grad : below;
  }
};

}  // namespace

FASTCNN_ELEMENTWISE_KERNELS(hardswish, Value, Gradient)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
