#pragma once

// What the host side of every CUDA op needs besides tensor.h.

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "tensor.h"

namespace fastcnn {

// PyTorch's current stream on the device of a tensor. Launches also need that device to be current: DeviceGuard.
inline cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

using torch::stable::accelerator::DeviceGuard;

inline bool aligned_to_16(const Tensor& x) { return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0; }

template <typename T>
constexpr T ceil_div(T n, T by) {
  return (n + by - 1) / by;
}

// A grid's x dimension.
inline unsigned grid_size(int64_t blocks) {
  STD_TORCH_CHECK(blocks <= INT32_MAX, "too large for one launch: ", blocks, " blocks");
  return unsigned(blocks);
}

}  // namespace fastcnn
