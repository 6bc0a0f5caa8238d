#pragma once

#include <cstdint>

// The element types of the kernels. 16-bit types are bits here and computed on as float.

namespace fastcnn {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename T>
struct AccumulateAs {
  using type = float;
};
template <>
struct AccumulateAs<double> {
  using type = double;
};
template <typename T>
using acc_t = typename AccumulateAs<T>::type;

}  // namespace fastcnn
