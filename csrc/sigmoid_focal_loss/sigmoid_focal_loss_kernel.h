#pragma once

#include "../common/isa.h"
#include "../common/storage.h"

namespace fastcnn {

// The weight of a target y is background + y * (difference to the foreground).
template <typename A>
struct SigmoidFocal {
  A background, difference, gamma;
};

FASTCNN_FOR_EACH_ISA(
    // Losses of n logits x with targets y in [0, 1].
    template <typename T>
    void sigmoid_focal_loss(const T* x, const T* y, int64_t n, SigmoidFocal<acc_t<T>> focal, T* loss);
    // Their sum.
    template <typename T>
    double sigmoid_focal_loss_sum(const T* x, const T* y, int64_t n, SigmoidFocal<acc_t<T>> focal);
    // grad_x[i] = factor * grad[i] * (derivative of the loss in x[i]); a null grad counts as 1 everywhere.
    template <typename T> void sigmoid_focal_loss_backward(const T* grad, acc_t<T> factor, const T* x, const T* y,
                                                           int64_t n, SigmoidFocal<acc_t<T>> focal, T* grad_x);)

}  // namespace fastcnn
