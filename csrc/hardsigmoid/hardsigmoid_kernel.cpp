#include "hardsigmoid_kernel.h"

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
    return gate / 6;
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

template <typename T>
void hardsigmoid(const T* in, T* out, int64_t n) {
  map(Value{}, out, n, in);
}

template <typename T>
void hardsigmoid_backward(const T* grad, const T* in, T* grad_in, int64_t n) {
  map(Gradient{}, grad_in, n, grad, in);
}

#define INSTANTIATE(T)                                 \
  template void hardsigmoid<T>(const T*, T*, int64_t); \
  template void hardsigmoid_backward<T>(const T*, const T*, T*, int64_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
