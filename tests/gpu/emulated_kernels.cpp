// The CUDA kernels with a C interface, run by cuda_emulator.h.

#include "cuda_emulator.h"

#include "../../csrc/roi_align/roi_align_backward_cuda.cuh"

using namespace fastcnn;

namespace {

struct RoiAlignArguments {
  int64_t sizes[4];  // N, C, H, W
  int64_t n_rois;
  int pooled_height, pooled_width, sampling_ratio, aligned;
  double spatial_scale;
  int channels_last, vectorized;

  RoiAlignShape shape() const {
    return {sizes[0], sizes[1], int(sizes[2]), int(sizes[3]), pooled_height, pooled_width};
  }
  template <typename A>
  RoiAlignOptions<A> options() const {
    return {A(spatial_scale), sampling_ratio, aligned != 0};
  }
};

template <typename T>
constexpr int kVector = 16 / sizeof(T);

template <typename T>
void forward(const void* input, const void* rois, void* out, const RoiAlignArguments& a) {
  using A = acc_t<T>;
  const auto kernel = !a.channels_last ? &roi_align_planes<T>
                      : a.vectorized   ? &roi_align_channels_last<T, kVector<T>, 2>
                                       : &roi_align_channels_last<T, 1, 8>;
  emulator::launch(roi_align_blocks<A>(a.shape(), a.n_rois, a.channels_last), kRoiAlignWarps * kWarp, kernel,
                   static_cast<const T*>(input), static_cast<const A*>(rois), a.n_rois, a.shape(), a.options<A>(),
                   static_cast<T*>(out));
}

template <typename T>
void backward(const void* grad, const void* rois, void* out, const RoiAlignArguments& a) {
  using A = acc_t<T>;
  std::vector<RoiPlan<A>> plans(a.n_rois);
  emulator::launch((a.n_rois + 31) / 32, 32, &plan_rois<A>, static_cast<const A*>(rois), a.n_rois, a.shape(),
                   a.options<A>(), plans.data());
  const auto kernel = !a.channels_last ? &roi_align_backward_planes<T>
                      : a.vectorized   ? &roi_align_backward_channels_last<T, kVector<T>>
                                       : &roi_align_backward_channels_last<T, 1>;
  const int columns = a.channels_last ? kTileColumnsLast : kWarp;
  const int channels = a.channels_last ? kWarp * (a.vectorized ? kVector<T> : 1) : kRoiAlignPlanes<A>;
  emulator::launch(roi_align_backward_blocks(a.shape(), columns, channels), kTileThreads, kernel,
                   static_cast<const T*>(grad), static_cast<const RoiPlan<A>*>(plans.data()), a.n_rois, a.shape(),
                   static_cast<T*>(out));
}

using RoiAlignFunction = void (*)(const void*, const void*, void*, const RoiAlignArguments&);

}  // namespace

// dtype: 0 float32, 1 float64, 2 float16, 3 bfloat16.
extern "C" void emulated_roi_align(int dtype, int adjoint, const void* in, const void* rois, void* out,
                                   const RoiAlignArguments* arguments) {
  constexpr RoiAlignFunction functions[2][4] = {
      {&forward<float>, &forward<double>, &forward<Half>, &forward<BFloat16>},
      {&backward<float>, &backward<double>, &backward<Half>, &backward<BFloat16>}};
  functions[adjoint][dtype](in, rois, out, *arguments);
}
