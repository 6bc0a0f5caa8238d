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
      const bool ignored = block.target[i] == focal.ignore_index;
      target[i] = ignored ? Int(-1) : Int(block.target[i]);
      weight[i] = ignored ? A(0) : A(1);
    }
    for (int64_t i = 0; focal.alpha != nullptr && i < block.positions; ++i)
      if (target[i] >= 0) weight[i] = focal.alpha[target[i]];
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

// Of one position whose classes lie side by side. Exponentials go to `exps`.
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
    store<lanes>(exps + c, e);
    sum += e;
  });
  at.peak[i] = peak;
  at.rest[i] = fold<A, lanes>(sum, Sum{});
  at.shift[i] = load_part(row + at.target[i], 1, readable - at.target[i])[0] - peak;
}

// Rows of so few classes are transposed into planes: what they cost each by themselves is more.
constexpr int64_t kTransposedClasses = 32;

// Copies the scores of a block to planes[c * stride + i] and notes the peaks. Planes of images are often a power of two
// apart and then share so few sets of the caches that the copy is the only one that stays.
template <typename T>
inline void copy_to_planes(const ScoreBlock<T>& block, Positions<acc_t<T>>& at, acc_t<T>* planes, int64_t stride) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t n = block.positions, classes = block.classes;
  for (int64_t i = 0; i < n; i += lanes) store<lanes>(at.peak + i, Lanes<A>{} - MathConstants<A>::kInfinity);
  const auto put = [&](int64_t c, int64_t i, Lanes<A> x) {
    store<lanes>(planes + c * stride + i, x);
    store<lanes>(at.peak + i, Larger{}(x, load<lanes>(at.peak + i)));
  };
  if (block.class_step != 1) {
    for (int64_t c = 0; c < classes; ++c) {
      const int64_t plane = c * block.class_step;
      for_each_vector<lanes>(n, [&](int64_t i, int64_t count) {
        put(c, i, load_part(block.x + plane + i, count, block.readable - plane - i));
      });
    }
    return;
  }
  for (int64_t i = 0; i < n; i += lanes) {
    for (int64_t c = 0; c < classes; c += lanes) {
      Lanes<A> tile[lanes] = {};
      for (int64_t row = i; row < n && row < i + lanes; ++row) {
        const int64_t from = row * block.step + c;
        tile[row - i] = load_part(block.x + from, classes - c, block.readable - from);
      }
      transpose<A, lanes>(tile);
      for (int64_t k = c; k < classes && k < c + lanes; ++k) put(k, i, tile[k - c]);
    }
  }
}

// The same as reduce_row for all positions of a block in planes, which hold the exponentials then.
template <typename A>
inline void reduce_planes(int64_t n, int64_t classes, Positions<A>& at, A* planes, int64_t stride) {
  constexpr int lanes = kLanes<A>;
  using Int = typename Positions<A>::Int;
  for (int64_t i = 0; i < n; i += lanes) {
    const Lanes<A> peak = load<lanes>(at.peak + i);
    const auto target = read<IntLanes<A>>(at.target + i);
    Lanes<A> sum{}, shift{};
    for (int64_t c = 0; c < classes; ++c) {
      A* plane = planes + c * stride + i;
      const Lanes<A> x = load<lanes>(plane) - peak;
      const auto mine = target == Int(c);
      const Lanes<A> e = mine ? Lanes<A>{} : exp_nonpositive(x);
      shift = mine ? x : shift;
      sum += e;
      store<lanes>(plane, e);
    }
    store<lanes>(at.rest + i, sum);
    store<lanes>(at.shift + i, shift);
  }
}

template <typename T>
inline bool in_rows(const ScoreBlock<T>& block) {
  return block.class_step == 1 && block.classes > kTransposedClasses;
}

// Whole vectors, and planes not a multiple of the cache's size apart.
template <typename T>
inline int64_t stride_of(const ScoreBlock<T>& block) {
  return in_rows(block) ? (block.classes + 15) / 16 * 16 : (block.positions + 15) / 16 * 16 + 16;
}

template <typename T>
inline void reduce(const ScoreBlock<T>& block, Positions<acc_t<T>>& at, acc_t<T>* scratch, int64_t stride) {
  if (in_rows(block)) {
    for (int64_t i = 0; i < block.positions; ++i)
      if (at.target[i] >= 0) reduce_row<T>(block, i, at, scratch + i * stride);
  } else {
    copy_to_planes<T>(block, at, scratch, stride);
    reduce_planes<acc_t<T>>(block.positions, block.classes, at, scratch, stride);
  }
}

// The gradients of all scores, from exponentials, what those of a position are multiplied by (`rest`) and the gradient
// of its target's score (`shift`).
template <typename T>
inline void write_rows(const ScoreBlock<T>& block, const Positions<acc_t<T>>& at, const acc_t<T>* exps, int64_t stride,
                       T* grad_x) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  for (int64_t i = 0; i < block.positions; ++i) {
    T* row = grad_x + i * block.step;
    const bool ignored = at.target[i] < 0;
    for_each_vector<lanes>(block.classes, [&](int64_t c, int64_t count) {
      const Lanes<A> value = ignored ? Lanes<A>{} : at.rest[i] * load<lanes>(exps + i * stride + c);
      store_some<lanes>(row + c, value, count);
    });
    if (!ignored) store_some<lanes>(row + at.target[i], Lanes<A>{} + at.shift[i], 1);
  }
}

template <typename T>
inline void write_planes(const ScoreBlock<T>& block, const Positions<acc_t<T>>& at, const acc_t<T>* exps,
                         int64_t stride, T* grad_x) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  const int64_t n = block.positions, classes = block.classes;
  const auto value = [&](int64_t c, int64_t i) {
    const auto target = read<IntLanes<A>>(at.target + i);
    const Lanes<A> other = load<lanes>(at.rest + i) * load<lanes>(exps + c * stride + i);
    const Lanes<A> any = target == typename Positions<A>::Int(c) ? load<lanes>(at.shift + i) : other;
    return target < 0 ? Lanes<A>{} : any;
  };
  if (block.class_step != 1) {
    for (int64_t c = 0; c < classes; ++c)
      for_each_vector<lanes>(n, [&](int64_t i, int64_t count) {
        store_some<lanes>(grad_x + c * block.class_step + i, value(c, i), count);
      });
    return;
  }
  for (int64_t i = 0; i < n; i += lanes) {
    // Backwards, so that what a whole vector writes beyond its row is written again by its owner.
    for (int64_t c = (classes - 1) / lanes * lanes; c >= 0; c -= lanes) {
      Lanes<A> tile[lanes] = {};
      for (int64_t k = c; k < classes && k < c + lanes; ++k) tile[k - c] = value(k, i);
      transpose<A, lanes>(tile);
      for (int64_t row = i; row < n && row < i + lanes; ++row) {
        const int64_t to = row * block.step + c, left = n * block.step - to;
        store_some<lanes>(grad_x + to, tile[row - i],
                          left >= lanes ? lanes : (classes - c < left ? classes - c : left));
      }
    }
  }
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
double softmax_focal_loss(const ScoreBlock<T>& block, const SoftmaxFocal<acc_t<T>>& focal, T* loss, acc_t<T>* scratch) {
  using A = acc_t<T>;
  constexpr int lanes = kLanes<A>;
  Positions<A> at(block, focal);
  // Rows need not be kept.
  reduce<T>(block, at, scratch, in_rows(block) ? 0 : stride_of(block));
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
  using V = Lanes<A>;
  constexpr int lanes = kLanes<A>;
  const int64_t stride = stride_of(block);
  Positions<A> at(block, focal);
  reduce<T>(block, at, scratch, stride);
  with_modulation(focal.gamma, [&](auto modulation) {
    for_each_vector<lanes>(block.positions, [&](int64_t i, int64_t count) {
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
  if (in_rows(block))
    write_rows<T>(block, at, scratch, stride, grad_x);
  else
    write_planes<T>(block, at, scratch, stride, grad_x);
}

#define INSTANTIATE(T)                                                                                        \
  template double softmax_focal_loss<T>(const ScoreBlock<T>&, const SoftmaxFocal<acc_t<T>>&, T*, acc_t<T>*);  \
  template void softmax_focal_loss_backward<T>(const ScoreBlock<T>&, const SoftmaxFocal<acc_t<T>>&, const T*, \
                                               acc_t<T>, T*, acc_t<T>*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
