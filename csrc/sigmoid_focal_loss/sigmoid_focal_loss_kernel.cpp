#include "sigmoid_focal_loss_kernel.h"

#include "../common/focal.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// A logit is on the side of the class its sign says. All is written in tail = exp(-|x|), so that no difference of
// nearly equal probabilities is ever taken and hard targets at huge logits give exact zeros.
template <typename V>
struct Terms {
  V same, other;  // Of the target, what is on the side of the logit and what is not.
  V tail, head;   // exp(-|x|), and the probability of the side of the logit: 1 / (1 + tail).
  V apart;        // head * apart is 1 - p_t.
  V cross_entropy;

  [[gnu::always_inline]] Terms(V x, V y) {
    const V flipped = 1 - y, size = magnitude(x);
    same = x < 0 ? flipped : y;
    other = x < 0 ? y : flipped;
    tail = exp_nonpositive(-size);
    // One division for the two by a and b: it is what takes longest.
    const V a = 1 + tail, b = 2 + tail, inverse = reciprocal(a * b);
    head = b * inverse;
    apart = other + tail * same;
    cross_entropy = (other == 0 ? V{} : size * other) + atanh_doubled(tail * a * inverse);
  }
};

template <typename V>
inline V weight(V y, const SigmoidFocal<Lane<V>>& focal) {
  return focal.background + y * focal.difference;
}

template <typename V, typename Modulation>
[[gnu::always_inline]] inline V loss_of(V x, V y, const SigmoidFocal<Lane<V>>& focal, const Modulation& modulation) {
  const Terms<V> t(x, y);
  return weight(y, focal) * t.cross_entropy * modulation(t.head * t.apart);
}

// d/dx of miss^gamma * cross_entropy, with miss = 1 - p_t,
//   = miss^gamma * (p - y + gamma * cross_entropy * (1 - 2 y) * p (1 - p) / miss)
template <typename V, typename Modulation>
[[gnu::always_inline]] inline V slope_of(V x, V y, const SigmoidFocal<Lane<V>>& focal, const Modulation& modulation) {
  const Terms<V> t(x, y);
  // Where it is large it is multiplied by a tail of 0, which infinity must not be.
  const V finite = at_most(1024, t.cross_entropy);
  const V lean = t.other - t.tail * t.same, signed_lean = x < 0 ? -lean : lean;  // head * signed_lean is p - y.
  const V growth = modulation.gamma * finite * (1 - 2 * y);
  if constexpr (Modulation::kIsSquare) {
    const V sum = t.apart * signed_lean + growth * t.tail;
    return weight(y, focal) * (t.head * t.head) * (t.head * t.apart) * sum;
  }
  const V ratio = t.other == 0 ? V{} + 1 : t.tail / t.apart;
  return weight(y, focal) * modulation(t.head * t.apart) * t.head * (signed_lean + growth * ratio);
}

}  // namespace

template <typename T>
void sigmoid_focal_loss(const T* x, const T* y, int64_t n, SigmoidFocal<acc_t<T>> focal, T* loss) {
  constexpr int lanes = kLanes<acc_t<T>>;
  with_modulation(focal.gamma, [&](auto modulation) {
    for_each_vector<lanes>(n, [&](int64_t i, int64_t count) {
      const auto some_x = load_some<lanes>(x + i, count), some_y = load_some<lanes>(y + i, count);
      store_some<lanes>(loss + i, loss_of(some_x, some_y, focal, modulation), count);
    });
  });
}

template <typename T>
double sigmoid_focal_loss_sum(const T* x, const T* y, int64_t n, SigmoidFocal<acc_t<T>> focal) {
  constexpr int lanes = kLanes<acc_t<T>>;
  Vec<acc_t<T>, lanes> sums{}, last{};
  with_modulation(focal.gamma, [&](auto modulation) {
    for_each_vector<lanes>(n, [&](int64_t i, int64_t count) {
      const auto some_x = load_some<lanes>(x + i, count), some_y = load_some<lanes>(y + i, count);
      const auto loss = loss_of(some_x, some_y, focal, modulation);
      if (count == lanes)
        sums += loss;
      else
        last = loss;
    });
  });
  double sum = 0;
  for (int lane = 0; lane < lanes; ++lane) sum += sums[lane];
  for (int lane = 0; lane < n % lanes; ++lane) sum += last[lane];
  return sum;
}

template <typename T>
void sigmoid_focal_loss_backward(const T* grad, acc_t<T> factor, const T* x, const T* y, int64_t n,
                                 SigmoidFocal<acc_t<T>> focal, T* grad_x) {
  constexpr int lanes = kLanes<acc_t<T>>;
  focal.background *= factor, focal.difference *= factor;
  with_modulation(focal.gamma, [&](auto modulation) {
    for_each_vector<lanes>(n, [&](int64_t i, int64_t count) {
      const auto some_x = load_some<lanes>(x + i, count), some_y = load_some<lanes>(y + i, count);
      auto value = slope_of(some_x, some_y, focal, modulation);
      if (grad != nullptr) value *= load_some<lanes>(grad + i, count);
      store_some<lanes>(grad_x + i, value, count);
    });
  });
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
