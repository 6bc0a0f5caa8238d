#pragma once

// Runs CUDA kernels on the CPU, a block at a time, so that their logic is tested where there is no GPU. The threads of
// a block are fibers that take turns at barriers, shuffles and votes. Blocks run in order, and what threads do between
// two barriers is not interleaved: this shows wrong results, out-of-bounds accesses (under a sanitizer) and barriers
// that not all threads reach, but neither races nor wrong memory orders.

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "../../csrc/common/storage.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static

struct Dim {
  unsigned x = 1;
};
inline Dim threadIdx, blockIdx, blockDim, gridDim;

struct uint4 {
  unsigned x, y, z, w;
};

namespace emulator {

// Threads that meet: a block, or a warp. `values` of two meetings are kept, as some threads may already be at the next
// while others read those of the last.
struct Group {
  int live = 0, arrived = 0;
  long meetings = 0;
  uint64_t values[2][1024] = {};

  void complete() {
    arrived = 0;
    ++meetings;
  }
};

// Contexts only start fibers; jumps, which make no system calls, switch between them.
struct Fiber {
  ucontext_t start;
  jmp_buf at;
  std::unique_ptr<char[]> stack;
  bool started = false, done = false;
};

inline ucontext_t scheduler_context;
inline jmp_buf scheduler;
inline std::vector<Fiber> fibers;
inline Group block;
inline std::vector<Group> warps;
inline std::function<void()> body;

inline void yield(Fiber& fiber) {
  if (_setjmp(fiber.at) == 0) _longjmp(scheduler, 1);
}

inline void resume(Fiber& fiber) {
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  swapcontext(&scheduler_context, &fiber.start);
}

// Leaves a value for the others, waits for all of the group, and returns which meeting this was.
inline long meet(Group& group, int rank, uint64_t value) {
  const long meeting = group.meetings;
  group.values[meeting % 2][rank] = value;
  if (++group.arrived == group.live) {
    group.complete();
  } else {
    const unsigned thread = threadIdx.x;
    while (group.meetings == meeting) yield(fibers[thread]);
  }
  return meeting % 2;
}

inline void leave(Group& group) {
  if (--group.live > 0 && group.arrived == group.live) group.complete();
}

inline void run_fiber() {
  body();
  const unsigned thread = threadIdx.x;
  fibers[thread].done = true;
  leave(warps[thread / 32]);
  leave(block);
  yield(fibers[thread]);
}

inline void run_block(unsigned threads) {
  constexpr size_t kStack = 1 << 16;
  fibers.resize(threads);
  block = Group{int(threads)};
  warps.assign((threads + 31) / 32, Group{});
  for (unsigned t = 0; t < threads; ++t) {
    ++warps[t / 32].live;
    Fiber& fiber = fibers[t];
    fiber.started = fiber.done = false;
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(kStack);
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = kStack;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_fiber, 0);
  }
  for (unsigned left = threads; left > 0;) {
    const long before = block.meetings;
    long warps_before = 0, warps_after = 0;
    for (const Group& warp : warps) warps_before += warp.meetings;
    const unsigned left_before = left;
    for (unsigned t = 0; t < threads; ++t) {
      if (fibers[t].done) continue;
      threadIdx.x = t;
      resume(fibers[t]);
      left -= fibers[t].done;
    }
    for (const Group& warp : warps) warps_after += warp.meetings;
    if (left == left_before && before == block.meetings && warps_before == warps_after) {
      fprintf(stderr, "cuda_emulator: deadlock, not all threads reach a barrier\n");
      abort();
    }
  }
}

// kernel<<<blocks, threads>>>(args...)
template <typename Kernel, typename... Args>
void launch(int64_t blocks, unsigned threads, Kernel kernel, Args... args) {
  body = [=] { kernel(args...); };
  gridDim.x = unsigned(blocks);
  blockDim.x = threads;
  for (int64_t b = 0; b < blocks; ++b) {
    blockIdx.x = unsigned(b);
    run_block(threads);
  }
}

inline Group& warp() { return warps[threadIdx.x / 32]; }

}  // namespace emulator

inline void __syncthreads() { emulator::meet(emulator::block, int(threadIdx.x), 0); }
inline void __syncwarp() { emulator::meet(emulator::warp(), int(threadIdx.x % 32), 0); }
inline int __syncthreads_or(int predicate) {
  emulator::Group& group = emulator::block;
  const long meeting = emulator::meet(group, int(threadIdx.x), predicate != 0);
  for (unsigned t = 0; t < blockDim.x; ++t)
    if (group.values[meeting][t]) return 1;
  return 0;
}
inline int __syncthreads_count(bool predicate) {
  emulator::Group& group = emulator::block;
  const long meeting = emulator::meet(group, int(threadIdx.x), predicate);
  int count = 0;
  for (unsigned t = 0; t < blockDim.x; ++t) count += int(group.values[meeting][t]);
  return count;
}
inline unsigned __ballot_sync(unsigned, bool predicate) {
  emulator::Group& group = emulator::warp();
  const long meeting = emulator::meet(group, int(threadIdx.x % 32), predicate);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= unsigned(group.values[meeting][lane]) << lane;
  return bits;
}
template <typename T>
T __shfl_sync(unsigned, T value, int from) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  emulator::Group& group = emulator::warp();
  const long meeting = emulator::meet(group, int(threadIdx.x % 32), bits);
  memcpy(&value, &group.values[meeting][from], sizeof(T));
  return value;
}

inline int __reduce_add_sync(unsigned, int value) {
  emulator::Group& group = emulator::warp();
  const long meeting = emulator::meet(group, int(threadIdx.x % 32), uint64_t(uint32_t(value)));
  int sum = 0;
  for (int lane = 0; lane < 32; ++lane) sum += int(uint32_t(group.values[meeting][lane]));
  return sum;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(unsigned(bits)); }
inline void __threadfence() {}
inline void __nanosleep(unsigned) {}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
template <typename T>
void __stwb(T* to, T value) {
  *to = value;
}
inline int atomicAdd(int* at, int value) {
  const int before = *at;
  *at += value;
  return before;
}
inline unsigned atomicOr(unsigned* at, unsigned bits) {
  const unsigned before = *at;
  *at |= bits;
  return before;
}
template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}

namespace fastcnn {

// Blocks run to their end one after another, so what one waits for is there at once, or never will be.
inline long loads_since_release = 0;
inline void store_release(unsigned long long* at, unsigned long long value) {
  loads_since_release = 0;
  *at = value;
}
inline unsigned long long load_acquire(const unsigned long long* at) {
  if (++loads_since_release > 1000000) {
    fprintf(stderr, "cuda_emulator: deadlock, a block waits for a later one\n");
    abort();
  }
  return *at;
}

inline float widen(Half x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  const float magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                          : exponent == 0 ? std::ldexp(float(fraction), -24)
                                          : std::ldexp(float(1024 + fraction), exponent - 25);
  return x.bits >> 15 ? -magnitude : magnitude;
}
inline void narrow(float x, Half& to) {
  const float magnitude = std::fabs(x);
  const int exponent = magnitude < std::ldexp(1.0f, -14) ? -14 : std::ilogb(magnitude);
  // Rounding up to the next power of two carries into the exponent, as it should.
  const float steps = std::nearbyint(std::ldexp(magnitude, 10 - exponent));
  const uint16_t bits = x != x ? 0x7e00 : magnitude >= 65520 ? 0x7c00 : uint16_t(((exponent + 14) << 10) + int(steps));
  to.bits = bits | (std::signbit(x) ? 0x8000 : 0);
}
inline float widen(BFloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline void narrow(float x, BFloat16& to) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  to.bits = x != x ? 0x7fc0 : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace fastcnn
