#include "hardswish_kernel.h"

#include "../common/elementwise.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Division, not multiplication by 1/6: the last bit is then the one PyTorch's CPU kernel gives.
struct Value {
  template <typename V>
  V operator()(V x) const {
    V gate = x + 3;
    gate = gate < 0 ? V{} : gate;
    gate = gate > 6 ? V{} + 6 : gate;
    return x * gate / 6;
  }
};

struct Gradient {
  template <typename V>
  V operator()(V grad, V x) const {
    const V inner = grad * (x / 3 + decltype(x[0] + 0)(0.5));
    const V below = x <= -3 ? V{} : inner;
    return x >= 3 ? grad : below;
  }
};

}  // namespace

template <typename T>
void hardswish(const T* in, T* out, int64_t n) {
  map(Value{}, out, n, in);
}

template <typename T>
void hardswish_backward(const T* grad, const T* in, T* grad_in, int64_t n) {
  map(Gradient{}, grad_in, n, grad, in);
}

#define INSTANTIATE(T)                               \
  template void hardswish<T>(const T*, T*, int64_t); \
  template void hardswish_backward<T>(const T*, const T*, T*, int64_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
