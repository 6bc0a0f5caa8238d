#pragma once

// What the losses' glue shares.

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <atomic>
#include <sstream>
#include <stdexcept>

#include "tensor.h"

namespace fastcnn {

// at::Reduction.
enum Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

// How many of the indices (int64, contiguous) differ from ignore_index, after a look at all of them: kernels index
// memory by them. `lowest` is 0, or less where a negative index means that there is no class.
inline int64_t count_class_indices(const char* op, const Tensor& indices, int64_t lowest, int64_t classes,
                                   int64_t ignore_index) {
  const auto* index = static_cast<const int64_t*>(indices.const_data_ptr());
  const int64_t n = indices.numel();
  std::atomic<int64_t> counted = 0, wrong = n;
  torch::stable::parallel_for(0, n, 1 << 16, [&](int64_t begin, int64_t end) {
    int64_t mine = 0, first = n;
    for (int64_t i = end; i-- > begin;) {
      const bool counts = index[i] != ignore_index;
      mine += counts;
      if (counts && (index[i] < lowest || index[i] >= classes)) first = i;
    }
    counted += mine;
    for (int64_t before = wrong; first < before && !wrong.compare_exchange_weak(before, first);) {
    }
  });
  if (wrong < n) {
    std::ostringstream message;
    message << op << ": target " << index[wrong] << " at position " << wrong << " is none of the " << classes
            << " classes";
    throw std::out_of_range(message.str());  // An IndexError in Python.
  }
  return counted;
}

// The one value of a gradient that is a number, or that sum() expanded from one.
inline std::optional<double> uniform_value(const Tensor& grad) {
  if (grad.numel() == 0) return 0.0;
  for (int64_t d = 0; d < grad.dim(); ++d)
    if (grad.size(d) > 1 && grad.stride(d) != 0) return std::nullopt;
  const void* at = grad.const_data_ptr();
  switch (grad.scalar_type()) {
    case ScalarType::Double:
      return *static_cast<const double*>(at);
    case ScalarType::Float:
      return *static_cast<const float*>(at);
    case ScalarType::Half:
      return float(*static_cast<const torch::headeronly::Half*>(at));
    case ScalarType::BFloat16:
      return float(*static_cast<const torch::headeronly::BFloat16*>(at));
    default:
      return std::nullopt;
  }
}

inline Tensor scalar_like(const Tensor& like, double value) {
  Tensor out = torch::stable::empty({}, like.scalar_type());
  torch::stable::fill_(out, value);
  return out;
}

}  // namespace fastcnn
