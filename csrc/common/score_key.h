#pragma once

// Scores as integers whose ascending order is the one of suppression: from high to low, NaN before all, the zeros tie.

#include <bit>
#include <cstdint>
#include <type_traits>

#include "host_device.h"

namespace fastcnn {

template <typename T>
using ScoreKey = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <typename T>
FASTCNN_HD ScoreKey<T> score_key(T score) {
  using Key = ScoreKey<T>;
  constexpr Key sign = Key(1) << (8 * sizeof(Key) - 1);
  const Key bits = std::bit_cast<Key>(score == T(0) ? T(0) : score);
  const Key descending = bits & sign ? bits : ~(bits | sign);
  return score != score ? Key(0) : descending;
}

}  // namespace fastcnn
