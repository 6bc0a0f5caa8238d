#pragma once

#include "../common/activation.h"
#include "../common/isa.h"
#include "../common/storage.h"

namespace fastcnn {

// Of a channel, y = activation(scale * x + shift); g being the gradient before the activation, that of x is
// scale * g - (slope * (x - mean) + offset), the latter where mean and deviation are the batch's; else slope is null.
template <typename A>
struct BatchNormFactors {
  const A *scale, *shift, *mean, *slope, *offset;
};

// Elements as they lie in memory: rows of a number of each of `width` channels, or where width is 1 one channel's.
struct BatchNormRows {
  int64_t rows, width;
};

FASTCNN_FOR_EACH_ISA(
    // Mean, and sum of squared distances from it, of every channel. scratch: three rows.
    template <typename T>
    void batch_norm_moments(const T* x, const BatchNormRows& part, acc_t<T>* scratch, double* mean, double* square);

    // Those of `count` numbers more in the moments of `n`, channel by channel.
    void batch_norm_merge(double n, double* mean, double* square, double count, const double* more_mean,
                          const double* more_square, int64_t channels);

    template <typename T>
    void batch_norm_forward(const T* x, const BatchNormRows& part, const BatchNormFactors<acc_t<T>>& factors,
                            Activation kind, bool streams, T* y);

    // Of every channel, the sum of g and of g * (x - mean). scratch: two rows.
    template <typename T> void batch_norm_sums(const T* grad, const T* x, const BatchNormRows& part,
                                               const BatchNormFactors<acc_t<T>>& factors, Activation kind,
                                               acc_t<T>* scratch, double* sum, double* product);

    template <typename T>
    void batch_norm_backward(const T* grad, const T* x, const BatchNormRows& part,
                             const BatchNormFactors<acc_t<T>>& factors, Activation kind, bool streams, T* grad_x);)
}  // namespace fastcnn
