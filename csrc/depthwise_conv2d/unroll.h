#pragma once

#include <utility>

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// body(0), ..., body(N - 1), each with its index as a constant: arrays of vectors that are indexed so stay in
// registers.
template <int... I, typename Body>
__attribute__((always_inline)) inline void unroll(std::integer_sequence<int, I...>, const Body& body) {
  (body(std::integral_constant<int, I>{}), ...);
}
template <int N, typename Body>
__attribute__((always_inline)) inline void unroll(const Body& body) {
  unroll(std::make_integer_sequence<int, N>{}, body);
}

}  // namespace
}  // namespace FASTCNN_ISA
}  // namespace fastcnn
