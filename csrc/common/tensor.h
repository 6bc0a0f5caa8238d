#pragma once

// What every CPU op needs of the LibTorch stable ABI, and nothing of the unstable one.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "isa.h"

namespace fastcnn {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Dense in the order N, H, W, C and not also in N, C, H, W, as torch's own suggest_memory_format decides it.
bool is_channels_last(const Tensor& x);

// The tensor in the memory format it already suggests, copied only if it is not dense in it.
Tensor dense(const Tensor& x);

// The same in a memory format of one's own choice.
Tensor dense_as(const Tensor& x, bool channels_last);

// Contiguous and of that dtype, copied only if it is not.
Tensor contiguous_as(const Tensor& x, ScalarType dtype);

// `x` itself where its elements lie in memory as those of `dense_like`, which is dense and of the same shape; else a
// copy of which that is true. Elementwise kernels then run over memory, whatever the layout.
Tensor laid_out_as(const Tensor& x, const Tensor& dense_like);

// Of the sizes, dtype and device of `x`: in its layout as torch.empty_like has it, or contiguous. Large ones lie in
// memory that is kept (memory.h).
Tensor empty_laid_out_as(const Tensor& x);
Tensor empty_contiguous(const Tensor& x);

// `like` gives dtype and device; sizes are those of a 4-d tensor N, C, H, W.
Tensor empty_4d(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last);

}  // namespace fastcnn

// Runs `body` with scalar_t as the storage type of the kernels (csrc/common/simd.h) for a floating-point `dtype`.
#define FASTCNN_DISPATCH_FLOATING(dtype, name, ...)                                    \
  switch (dtype) {                                                                     \
    case ::fastcnn::ScalarType::Float: {                                               \
      using scalar_t = float;                                                          \
      __VA_ARGS__;                                                                     \
      break;                                                                           \
    }                                                                                  \
    case ::fastcnn::ScalarType::Double: {                                              \
      using scalar_t = double;                                                         \
      __VA_ARGS__;                                                                     \
      break;                                                                           \
    }                                                                                  \
    case ::fastcnn::ScalarType::BFloat16: {                                            \
      using scalar_t = ::fastcnn::BFloat16;                                            \
      __VA_ARGS__;                                                                     \
      break;                                                                           \
    }                                                                                  \
    case ::fastcnn::ScalarType::Half: {                                                \
      using scalar_t = ::fastcnn::Half;                                                \
      __VA_ARGS__;                                                                     \
      break;                                                                           \
    }                                                                                  \
    default:                                                                           \
      STD_TORCH_CHECK(false, name, ": expected a floating-point tensor, got ", dtype); \
  }
