#pragma once

// What CUDA kernels share: element conversions, 16-byte loads and stores, and the flags blocks wait on. Nothing of
// PyTorch, so that the kernels also compile for the host under tests/gpu/cuda_emulator.h.

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include <type_traits>

#include "storage.h"

namespace fastcnn {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// 64-bit products of grid indices: an output may hold more than 2^31 elements.
__device__ __forceinline__ int64_t block_index() { return blockIdx.x; }

#ifdef __CUDACC__
// A release makes every write of the block before its last barrier visible to whoever acquires the value.
__device__ __forceinline__ void store_release(unsigned long long* at, unsigned long long value) {
  asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}
__device__ __forceinline__ unsigned long long load_acquire(const unsigned long long* at) {
  unsigned long long value;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
  return value;
}

__device__ __forceinline__ float widen(Half x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ float widen(BFloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
__device__ __forceinline__ void narrow(float x, Half& to) { to.bits = __half_as_ushort(__float2half_rn(x)); }
__device__ __forceinline__ void narrow(float x, BFloat16& to) {
  to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
#endif
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ void narrow(float x, float& to) { to = x; }
__device__ __forceinline__ void narrow(double x, double& to) { to = x; }
__device__ __forceinline__ void narrow(int x, int& to) { to = x; }

// The index of the lowest bit set, which is cleared.
__device__ __forceinline__ int take_bit(unsigned& bits) {
  const int bit = __ffs(int(bits)) - 1;
  bits &= bits - 1;
  return bit;
}

// Past L1, which is not coherent: for what another block wrote while this one ran.
template <typename T>
__device__ __forceinline__ T load_from_l2(const T* from) {
  using Word = std::conditional_t<sizeof(T) % 16 == 0, uint4, unsigned>;
  constexpr int kWords = sizeof(T) / sizeof(Word);
  union {
    Word words[kWords];
    T value;
  } loaded;
#pragma unroll
  for (int i = 0; i < kWords; ++i) loaded.words[i] = __ldcg(reinterpret_cast<const Word*>(from) + i);
  return loaded.value;
}

// N neighbouring elements: one 16-byte access where they fill it, which the caller must then have aligned.
template <typename T, int N>
struct alignas(N * sizeof(T) == 16 ? 16 : sizeof(T)) Elements {
  T at[N];
};

template <int N, typename T>
__device__ __forceinline__ Elements<T, N> load(const T* from) {
  if constexpr (N * sizeof(T) == 16) {
    union {
      uint4 bits;
      Elements<T, N> elements;
    } loaded = {*reinterpret_cast<const uint4*>(from)};
    return loaded.elements;
  } else {
    return *reinterpret_cast<const Elements<T, N>*>(from);
  }
}

template <int N, typename T, typename A>
__device__ __forceinline__ void store(T* to, const A (&values)[N]) {
  union {
    Elements<T, N> elements;
    uint4 bits;
  } stored;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(values[i], stored.elements.at[i]);
  if constexpr (N * sizeof(T) == 16) {
    __stwb(reinterpret_cast<uint4*>(to), stored.bits);  // An assignment may be split into its words again.
  } else {
    *reinterpret_cast<Elements<T, N>*>(to) = stored.elements;
  }
}

}  // namespace fastcnn
