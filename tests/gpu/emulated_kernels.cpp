// The CUDA kernels with a C interface, run by cuda_emulator.h.

#include "cuda_emulator.h"

#include "../../csrc/nms/nms_cuda.cuh"

using namespace fastcnn;

namespace {

template <typename T>
int64_t suppress(const void* boxes, const int64_t* order, int n, T threshold, int64_t* keep) {
  const int tiles = (n + kNmsTile - 1) / kNmsTile;
  std::vector<Box<T>> sorted(n), kept(n);
  std::vector<NmsTile> decided(tiles);
  NmsState state{~0ull, -1};
  int64_t count = -1;
  emulator::launch(tiles, kNmsTile, &nms_gather<T, T>, static_cast<const T*>(boxes), order, n, sorted.data(), &state);
  emulator::launch(tiles, kNmsTile, &nms_tiles<Box<T>, IouAbove<T>>, static_cast<const Box<T>*>(sorted.data()), order,
                   n, IouAbove<T>{threshold}, &state, decided.data(), kept.data(), keep, &count);
  return count;
}

}  // namespace

// dtype: 0 float32, 1 float64.
extern "C" int64_t emulated_nms(int dtype, const void* boxes, const int64_t* order, int n, float threshold,
                                int64_t* keep) {
  return dtype == 0 ? suppress<float>(boxes, order, n, threshold, keep)
                    : suppress<double>(boxes, order, n, threshold, keep);
}
