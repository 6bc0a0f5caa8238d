#include "sigmoid_focal_loss_kernel.h"

#include "../common/focal.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// A logit is on the side of the class its sign says. All is written in tail = exp(-|x|), so that no difference of
// nearly equal probabilities is ever taken and hard targets at huge logits give exact zeros.
template <typename V>
struct Terms {
  V size, tail, head;     // |x|, exp(-|x|), and the probability of the side the logit is on: 1 / (1 + tail).
  V same, other;          // Of the target, what is on that side and what is not.
  V cross_entropy, miss;  // 1 - p_t.

  Terms(V x, V y) {
    const V flipped = 1 - y;
    size = x < 0 ? -x : x;
    tail = exp(-size);
    head = 1 / (1 + tail);
    same = x < 0 ? flipped : y;
    other = x < 0 ? y : flipped;
    cross_entropy = (other == 0 ? V{} : size * other) + log1p_of_unit(tail);
    miss = head * (other + tail * same);
  }
};

template <typename V>
V weight(V y, const SigmoidFocal<Lane<V>>& focal) {
  return focal.background + y * focal.difference;
}

template <typename V>
V loss_of(V x, V y, const SigmoidFocal<Lane<V>>& focal) {
  const Terms<V> t(x, y);
  return weight(y, focal) * t.cross_entropy * modulation(t.miss, focal.gamma);
}

// d/dx of miss^gamma * cross_entropy
//   = miss^gamma * (p - y + gamma * cross_entropy * (1 - 2 y) * p (1 - p) / miss).
template <typename V>
V derivative(V x, V y, const SigmoidFocal<Lane<V>>& focal) {
  const Terms<V> t(x, y);
  const V apart = t.other + t.tail * t.same;
  const V ratio = t.other == 0 ? t.head : t.head * t.tail / apart;
  // An infinite loss has a slope all the same.
  const V finite = t.cross_entropy > MathOf<V>::kMax ? V{} + MathOf<V>::kMax : t.cross_entropy;
  const V slope = t.head * (t.other - t.tail * t.same) + focal.gamma * finite * ((t.other - t.same) * ratio);
  return weight(y, focal) * modulation(t.miss, focal.gamma) * (x < 0 ? -slope : slope);
}

}  // namespace

template <typename T>
void sigmoid_focal_loss(const T* x, const T* y, int64_t n, SigmoidFocal<acc_t<T>> focal, T* loss) {
  constexpr int lanes = kLanes<acc_t<T>>;
  for (int64_t i = 0; i < n; i += lanes) {
    const auto value = loss_of(load_some<lanes>(x + i, n - i), load_some<lanes>(y + i, n - i), focal);
    store_some<lanes>(loss + i, value, n - i);
  }
}

template <typename T>
double sigmoid_focal_loss_sum(const T* x, const T* y, int64_t n, SigmoidFocal<acc_t<T>> focal) {
  constexpr int lanes = kLanes<acc_t<T>>;
  Vec<acc_t<T>, lanes> lane_sums{};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) lane_sums += loss_of(load<lanes>(x + i), load<lanes>(y + i), focal);
  double sum = 0;
  for (int lane = 0; lane < lanes; ++lane) sum += lane_sums[lane];
  if (i == n) return sum;
  const auto rest = loss_of(load_some<lanes>(x + i, n - i), load_some<lanes>(y + i, n - i), focal);
  for (int lane = 0; lane < n - i; ++lane) sum += rest[lane];
  return sum;
}

template <typename T>
void sigmoid_focal_loss_backward(const T* grad, acc_t<T> factor, const T* x, const T* y, int64_t n,
                                 SigmoidFocal<acc_t<T>> focal, T* grad_x) {
  constexpr int lanes = kLanes<acc_t<T>>;
  for (int64_t i = 0; i < n; i += lanes) {
    auto value = factor * derivative(load_some<lanes>(x + i, n - i), load_some<lanes>(y + i, n - i), focal);
    if (grad != nullptr) value *= load_some<lanes>(grad + i, n - i);
    store_some<lanes>(grad_x + i, value, n - i);
  }
}

#define INSTANTIATE(T)                                                                            \
  template void sigmoid_focal_loss<T>(const T*, const T*, int64_t, SigmoidFocal<acc_t<T>>, T*);   \
  template double sigmoid_focal_loss_sum<T>(const T*, const T*, int64_t, SigmoidFocal<acc_t<T>>); \
  template void sigmoid_focal_loss_backward<T>(const T*, acc_t<T>, const T*, const T*, int64_t,   \
                                               SigmoidFocal<acc_t<T>>, T*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
