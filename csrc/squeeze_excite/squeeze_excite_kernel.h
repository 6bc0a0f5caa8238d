#pragma once

#include "../common/isa.h"
#include "../common/storage.h"

namespace fastcnn {
FASTCNN_FOR_EACH_ISA(
    // NCHW: sums[c] = factor * the sum over a plane of x, or of x * y where y is not null.
    template <typename T>
    void plane_sums(const T* x, const T* y, int64_t channels, int64_t pixels, acc_t<T> factor, acc_t<T>* sums);
    // NCHW: out = x * scale[c] + shift[c], the latter where it is not null; `streams` writes past the caches.
    template <typename T> void scale_planes(const T* x, int64_t channels, int64_t pixels, const acc_t<T>* scale,
                                            const acc_t<T>* shift, bool streams, T* out);
    // NHWC: sums[c] over pixels of x, or of x * y. scratch holds `period` numbers, a multiple of `channels` and 16.
    template <typename T> void pixel_sums(const T* x, const T* y, int64_t channels, int64_t pixels, int64_t period,
                                          acc_t<T>* scratch, acc_t<T>* sums);
    // NHWC: out = x * scale + shift over n elements, scale and shift holding `period` numbers, again and again.
    template <typename T> void scale_pixels(const T* x, int64_t n, int64_t period, const acc_t<T>* scale,
                                            const acc_t<T>* shift, bool streams, T* out);)
}  // namespace fastcnn
