#pragma once

// What comes before suppression and after it: boxes put in order, and indices kept written in it.

#include <type_traits>

#include "../common/score_key.h"
#include "nms_cuda.cuh"

namespace fastcnn {

// Signed, as PyTorch sorts no others; ascending from high scores to low.
template <typename T>
using SortKey = std::make_signed_t<ScoreKey<T>>;

// Of boxes that take no part. No score has it.
template <typename Key>
constexpr Key kNmsAbsent = Key(~(std::make_unsigned_t<Key>(1) << (8 * sizeof(Key) - 1)));

// Boxes whose score is not above a number take no part, if there is one.
template <typename In, typename T>
__global__ void nms_sort_keys(const In* __restrict__ scores, int n, bool filtered, T above,
                              SortKey<T>* __restrict__ keys) {
  const int i = int(block_index() * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const T score = T(widen(scores[i]));
  constexpr ScoreKey<T> sign = ScoreKey<T>(1) << (8 * sizeof(T) - 1);
  keys[i] = filtered && !(score > above) ? kNmsAbsent<SortKey<T>> : SortKey<T>(score_key(score) ^ sign);
}

// For each image the indices of its boxes by score, their keys in that order, and, or null, positions in that order
// class by class. Puts boxes, and the places of their bits, in the last order, and resets what nms_tiles writes.
template <typename In, typename T, typename Key>
__global__ void nms_gather(const In* __restrict__ boxes, const int64_t* __restrict__ order,
                           const Key* __restrict__ keys, const int64_t* __restrict__ by_class, NmsShape shape,
                           Box<T>* __restrict__ sorted, int* __restrict__ places, int* __restrict__ next_tile,
                           NmsTile* __restrict__ tiles, unsigned* __restrict__ kept_bits) {
  const int i = int(block_index() * blockDim.x + threadIdx.x);
  const int image = i / shape.boxes, first = image * shape.boxes;
  if (i >= shape.total()) return;
  if (i == 0) *next_tile = 0;
  if (i % kNmsTile == 0) tiles[i / kNmsTile].progress = 0;
  if (i - first < shape.words()) kept_bits[image * shape.words() + i - first] = 0;
  const int rank = by_class == nullptr ? i - first : int(by_class[i]);
  const In* box = boxes + 4 * (first + order[first + rank]);
  places[i] = keys[first + rank] == kNmsAbsent<Key> ? -1 : image * shape.words() * 32 + rank;
  sorted[i] = {T(widen(box[0])), T(widen(box[1])), T(widen(box[2])), T(widen(box[3]))};
}

// Blocks that each image has: one for every 256 boxes, and for as many places of the result.
FASTCNN_HD int64_t nms_list_blocks(const NmsShape& shape, int64_t limit) {
  return ((limit > shape.boxes ? limit : shape.boxes) + kNmsTile - 1) / kNmsTile;
}

// For each image its first `limit` kept indices, by score, then -1, and how many they are.
__global__ void __launch_bounds__(kNmsTile)
    nms_list(const unsigned* __restrict__ kept_bits, const int64_t* __restrict__ order, NmsShape shape, int64_t limit,
             int64_t* __restrict__ indices, int64_t* __restrict__ counts) {
  __shared__ int sum_before, sum;
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  const int64_t blocks = nms_list_blocks(shape, limit), image = block_index() / blocks, from = block_index() % blocks;
  const int64_t first_word = from * kNmsWords;
  kept_bits += image * shape.words();
  if (thread == 0) sum_before = sum = 0;
  __syncthreads();
  // Each block counts anew what lies before it: a bit to a box is little, and nothing has to wait.
  int before = 0, all = 0;
  for (int word = thread; word < shape.words(); word += kNmsTile) {
    const int bits = __popc(kept_bits[word]);
    all += bits;
    before += word < first_word ? bits : 0;
  }
  before = __reduce_add_sync(kAllLanes, before);
  all = __reduce_add_sync(kAllLanes, all);
  if (lane == 0) {
    atomicAdd(&sum_before, before);
    atomicAdd(&sum, all);
  }
  __syncthreads();
  int64_t place = sum_before;
  unsigned bits = 0;
  for (int64_t word = first_word; word <= first_word + warp; ++word) {
    place += __popc(bits);
    bits = word < shape.words() ? kept_bits[word] : 0;
  }
  place += __popc(bits & ((1u << lane) - 1));
  if (bits >> lane & 1 && place < limit)
    indices[image * limit + place] = order[image * shape.boxes + from * kNmsTile + thread];

  const int64_t rest = from * kNmsTile + thread;
  if (rest >= sum && rest < limit) indices[image * limit + rest] = -1;
  if (rest == 0) counts[image] = sum < limit ? sum : limit;
}

}  // namespace fastcnn
