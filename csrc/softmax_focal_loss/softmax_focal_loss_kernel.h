#pragma once

#include "../common/isa.h"
#include "../common/storage.h"

namespace fastcnn {

// A block of positions, each with a score for every class. Class c of position i lies at x[i * step + c * class_step]:
// either classes or positions are next to each other, that is, class_step or step is 1.
template <typename T>
struct ScoreBlock {
  const T* x;
  int64_t positions, classes, step, class_step;
  int64_t readable;  // Elements of the tensor from x on.
  const int64_t* target;
};

template <typename A>
struct SoftmaxFocal {
  const A* alpha;  // For every class, or null.
  A gamma;
  int64_t ignore_index;
};

// Positions of a block at most, and scores of one that has more than the fewest positions.
constexpr int64_t kSoftmaxPositions = 512, kSoftmaxBlock = 1 << 16;

// Elements of working memory for a block: its scores as computed in, with room for vectors that end beyond a row.
static inline int64_t softmax_focal_scratch(int64_t positions, int64_t classes) {
  return (positions + 32) * (classes + 16);
}

FASTCNN_FOR_EACH_ISA(
    // The sum of the losses of a block, which are also written to `loss` if it is not null.
    template <typename T> double softmax_focal_loss(const ScoreBlock<T>& block, const SoftmaxFocal<acc_t<T>>& focal,
                                                    T* loss, acc_t<T>* scratch);
    // grad_x, laid out as x, is factor * grad[i] * (derivative of the loss of position i); a null grad counts as 1.
    template <typename T>
    void softmax_focal_loss_backward(const ScoreBlock<T>& block, const SoftmaxFocal<acc_t<T>>& focal, const T* grad,
                                     acc_t<T> factor, T* grad_x, acc_t<T>* scratch);)

}  // namespace fastcnn
