#include "hardswish_kernel.h"

#include "../common/activation.h"
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
    return activate_backward<Activation::hardswish, Lane<V>, sizeof(V) / sizeof(Lane<V>)>(grad, x);
  }
};

}  // namespace

FASTCNN_ELEMENTWISE_KERNELS(hardswish, Value, Gradient)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
