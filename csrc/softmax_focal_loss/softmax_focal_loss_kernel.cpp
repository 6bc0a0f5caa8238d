#include "softmax_focal_loss_kernel.h"

#include "../common/focal.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Of every position of a block: the largest score, the target's less the largest, the sum of exp(score - largest) over
// all other classes, and the weight, 0 where the position is ignored. Without the target in it, the sum keeps its
// accuracy where the target has nearly all of the probability.
template <typename A>
struct Positions {
  using Int = typename MathConstants<A>::Int;
  A peak[kSoftmaxPositions], shift[kSoftmaxPositions], rest[kSoftmaxPositions], weight[kSoftmaxPositions];
  Int target[kSoftmaxPositions];  // -1 where ignored.

  template <typename T>
  Positions(const ScoreBlock<T>& block, const SoftmaxFocal<A>& focal) {
    for (int64_t i = 0; i < block.positions; ++i) {
      const int64_t t = block.target[i];
      const bool ignored = t == focal.ignore_index;
      target[i] = ignored ? -1 : Int(t);
      weight[i] = ignored ? A(0) : focal.alpha != nullptr ? focal.alpha[t] : A(1);
    }
    // The last vector of them may be read beyond the last of them.
    for (int64_t i = block.positions; i % kLanes<A> != 0; ++i) {
      target[i] = -1;
      weight[i] = shift[i] = rest[i] = peak[i] = 0;
    }
  }
};

template <typename A>
using Lanes = Vec<A, kLanes<A>>;
template <typename A>
using IntLanes = Vec<typename MathConstants<A>::Int, kLanes<A>>;

// Reads a whole vector where there is memory for one, though only `count` of its lanes are meant.
template <typename T>
[[gnu::always_inline]] inline Lanes<acc_t<T>> load_part(const T* at, int64_t count, int64_t readable) {
  return load_some<kLanes<acc_t<T>>>(at, readable >= kLanes<acc_t<T>> ? kLanes<acc_t<T>> : count);
}

template <typename A>
inline IntLanes<A> lane_numbers() {
  IntLanes<A> numbers;
  for (int lane = 0; lane < kLanes<A>; ++lane) numbers[lane] = lane;
  return numbers;
}

// Halves on halves: a few steps, and always the same order.
template <typename A, int N, typename F>
[[gnu::always_inline]] inline A fold(Vec<A, N> v, const F& f) {
  if constexpr (N == 1) {
    return v[0];
  } else {
    Vec<A, N / 2> halves[2];
    memcpy(halves, &v, sizeof v);
    return fold<A, N / 2>(f(halves[0], halves[1]), f);
  }
}

struct Larger {
  template <typename V>
  V operator()(V a, V b) const {
    return a > b ? a : b;
  }
};
struct Sum {
  template <typename V>
  V operator()(V a, V b) const {
    return a + b;
  }
};

// Of one position whose classes lie side by side. Exponentials go to `exps` if it is not null.
template <typename T>
inline void reduce_row(const ScoreBlock<T>& block, int64_t i, Positions<acc_t<T>>& at, acc_t<T>* exps) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const T* row = block.x + i * block.step;
  const int64_t classes = block.classes, readable = block.readable - i * block.step;
  const IntLanes<A> numbers = lane_numbers<A>();
  const auto beyond = [&](int64_t c) { return numbers >= typename Positions<A>::Int(classes - c); };
  Lanes<A> peaks = Lanes<A>{} - MathConstants<A>::kInfinity;
  for_each_vector<lanes>(classes, [&](int64_t c, int64_t count) {
    Lanes<A> x = load_part(row + c, count, readable - c);
    if (count < lanes) x = beyond(c) ? Lanes<A>{} - MathConstants<A>::kInfinity : x;
    peaks = Larger{}(x, peaks);
  });
  const A peak = fold<A, lanes>(peaks, Larger{});
  Lanes<A> sum{};
  for_each_vector<lanes>(classes, [&](int64_t c, int64_t count) {
    Lanes<A> e = exp_nonpositive(load_part(row + c, count, readable - c) - peak);
    e = numbers == at.target[i] - typename Positions<A>::Int(c) ? Lanes<A>{} : e;
    if (count < lanes) e = beyond(c) ? Lanes<A>{} : e;
    if (exps != nullptr) store<lanes>(exps + c, e);
    sum += e;
  });
  at.peak[i] = peak;
  at.rest[i] = fold<A, lanes>(sum, Sum{});
  at.shift[i] = load_part(row + at.target[i], 1, readable - at.target[i])[0] - peak;
}

// The same for all positions of a block that lie side by side. exps has a row of `stride` for every class.
template <typename T>
inline void reduce_planes(const ScoreBlock<T>& block, Positions<acc_t<T>>& at, acc_t<T>* exps, int64_t stride) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  using Int = typename Positions<A>::Int;
  const int64_t n = block.positions;
  for (int64_t i = 0; i < n; i += lanes) {
    store<lanes>(at.peak + i, Lanes<A>{} - MathConstants<A>::kInfinity);
    store<lanes>(at.rest + i, Lanes<A>{});
    store<lanes>(at.shift + i, Lanes<A>{});
  }
  for (int64_t c = 0; c < block.classes; ++c) {
    const T* plane = block.x + c * block.class_step;
    for (int64_t i = 0; i < n; i += lanes) {
      const Lanes<A> x = load_part(plane + i, n - i, block.readable - c * block.class_step - i);
      const auto mine = read<IntLanes<A>>(at.target + i) == Int(c);
      store<lanes>(at.peak + i, Larger{}(x, load<lanes>(at.peak + i)));
      store<lanes>(at.shift + i, mine ? x : load<lanes>(at.shift + i));
    }
  }
  for (int64_t c = 0; c < block.classes; ++c) {
    const T* plane = block.x + c * block.class_step;
    for (int64_t i = 0; i < n; i += lanes) {
      const Lanes<A> x = load_part(plane + i, n - i, block.readable - c * block.class_step - i);
      const auto mine = read<IntLanes<A>>(at.target + i) == Int(c);
      const Lanes<A> e = mine ? Lanes<A>{} : exp_nonpositive(x - load<lanes>(at.peak + i));
      if (exps != nullptr) store<lanes>(exps + c * stride + i, e);
      store<lanes>(at.rest + i, load<lanes>(at.rest + i) + e);
    }
  }
  for (int64_t i = 0; i < n; i += lanes)
    store<lanes>(at.shift + i, load<lanes>(at.shift + i) - load<lanes>(at.peak + i));
}

// Of a vector of positions: 1 - p_t, p_t, -log p_t and the sum of all exponentials.
template <typename A>
struct Terms {
  Lanes<A> miss, p, cross_entropy, total;

  [[gnu::always_inline]] Terms(const Positions<A>& at, int64_t i) {
    using V = Lanes<A>;
    const auto ignored = read<IntLanes<A>>(at.target + i) < 0;
    const V rest = ignored ? V{} : load<kLanes<A>>(at.rest + i), shift = ignored ? V{} : load<kLanes<A>>(at.shift + i);
    const V mine = exp_nonpositive(shift);
    total = mine + rest;
    // What the sum lost to rounding: where one of the two is small, the logarithm is.
    const V lost = mine > rest ? rest - (total - mine) : mine - (total - rest);
    miss = rest / total;
    p = mine / total;
    cross_entropy = (log(total) + lost / total) - shift;
  }
};

}  // namespace

template <typename T>
double softmax_focal_loss(const ScoreBlock<T>& block, const SoftmaxFocal<acc_t<T>>& focal, T* loss) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  Positions<A> at(block, focal);
  if (block.class_step == 1) {
    for (int64_t i = 0; i < block.positions; ++i)
      if (at.target[i] >= 0) reduce_row<T>(block, i, at, nullptr);
  } else {
    reduce_planes<T>(block, at, nullptr, 0);
  }
  double sum = 0;
  with_modulation(focal.gamma, [&](auto modulation) {
    for_each_vector<lanes>(block.positions, [&](int64_t i, int64_t count) {
      const Terms<A> t(at, i);
      const Lanes<A> value = load<lanes>(at.weight + i) * modulation(t.miss) * t.cross_entropy;
      if (loss != nullptr) store_some<lanes>(loss + i, value, count);
      sum += fold<A, lanes>(value, Sum{});
    });
  });
  return sum;
}

template <typename T>
void softmax_focal_loss_backward(const ScoreBlock<T>& block, const SoftmaxFocal<acc_t<T>>& focal, const T* grad,
                                 acc_t<T> factor, T* grad_x, acc_t<T>* scratch) {
  using A = acc_t<T>;
  using Int = typename Positions<A>::Int;
  constexpr int lanes = kLanes<A>;
  const bool rows = block.class_step == 1;
  const int64_t stride = ((rows ? block.classes : block.positions) + lanes - 1) / lanes * lanes;
  Positions<A> at(block, focal);
  if (rows) {
    for (int64_t i = 0; i < block.positions; ++i)
      if (at.target[i] >= 0) reduce_row<T>(block, i, at, scratch + i * stride);
  } else {
    reduce_planes<T>(block, at, scratch, stride);
  }
  // From here on `rest` is what exponentials are multiplied by, and `shift` the gradient of the target's score.
  with_modulation(focal.gamma, [&](auto modulation) {
    for_each_vector<lanes>(block.positions, [&](int64_t i, int64_t count) {
      using V = Lanes<A>;
      const Terms<A> t(at, i);
      // -log p_t / miss goes to 1; where it is infinite, p_t is 0, and so is their product.
      const V ratio = t.miss == 0 ? V{} + 1 : (t.p == 0 ? V{} : t.p * t.cross_entropy) / t.miss;
      V outer = factor * load<lanes>(at.weight + i);
      if (grad != nullptr) outer *= load_some<lanes>(grad + i, count);
      const V slope = outer * modulation(t.miss) * (1 + modulation.gamma * ratio);
      store<lanes>(at.rest + i, slope / t.total);
      store<lanes>(at.shift + i, -slope * t.miss);
    });
  });
  if (rows) {
    for (int64_t i = 0; i < block.positions; ++i) {
      T* row = grad_x + i * block.step;
      const bool ignored = at.target[i] < 0;
      for_each_vector<lanes>(block.classes, [&](int64_t c, int64_t count) {
        const Lanes<A> value = ignored ? Lanes<A>{} : at.rest[i] * load<lanes>(scratch + i * stride + c);
        store_some<lanes>(row + c, value, count);
      });
      if (!ignored) store_some<lanes>(row + at.target[i], Lanes<A>{} + at.shift[i], 1);
    }
  } else {
    for (int64_t c = 0; c < block.classes; ++c) {
      for_each_vector<lanes>(block.positions, [&](int64_t i, int64_t count) {
        const auto target = read<IntLanes<A>>(at.target + i);
        Lanes<A> value = load<lanes>(at.rest + i) * load<lanes>(scratch + c * stride + i);
        value = target == Int(c) ? load<lanes>(at.shift + i) : target < 0 ? Lanes<A>{} : value;
        store_some<lanes>(grad_x + c * block.class_step + i, value, count);
      });
    }
  }
}

#define INSTANTIATE(T)                                                                                        \
  template double softmax_focal_loss<T>(const ScoreBlock<T>&, const SoftmaxFocal<acc_t<T>>&, T*);             \
  template void softmax_focal_loss_backward<T>(const ScoreBlock<T>&, const SoftmaxFocal<acc_t<T>>&, const T*, \
                                               acc_t<T>, T*, acc_t<T>*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
