#pragma once

#include "../common/isa.h"
#include "../common/storage.h"

namespace fastcnn {

// Powers that are products of roots, and all others: by vectors where the base cannot be negative, else one by one.
enum class LrnPower { one, half, three_quarters, any, any_sign };

// d[c] = k + scale * the sum of x[j]^2 over c - before <= j <= c + after; out[c] = x[c] / d[c]^beta.
struct LrnWindow {
  int64_t before, after;  // At most channels - 1.
  double scale, beta, k;
  LrnPower power;
};

// One run of at most `room` pixels of an image: `channels` rows of `pixels` elements `stride` apart (NCHW), or `pixels`
// rows of `channels` elements one after the other (NHWC).
struct LrnRun {
  int64_t channels, pixels, stride, room;
};

// The power of two from a window's channels upwards.
static inline int64_t lrn_rows(const LrnWindow& window) {
  int64_t rows = 1;
  while (rows < window.before + window.after + 1) rows *= 2;
  return rows;
}

// scratch: for NCHW twice lrn_rows() rows of `room` numbers, rounded up to whole vectors. For NHWC zeros at first, and
// three times `room` rows of `channels` and of a window, rounded up both.
FASTCNN_FOR_EACH_ISA(
    // With `grad`, out is the gradient of x.
    template <typename T>
    void lrn_planes(const T* x, const T* grad, const LrnRun& run, const LrnWindow& window, acc_t<T>* scratch, T* out);
    template <typename T> void lrn_channels_last(const T* x, const T* grad, const LrnRun& run, const LrnWindow& window,
                                                 acc_t<T>* scratch, T* out);)
}  // namespace fastcnn
