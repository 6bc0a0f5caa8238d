#pragma once

// Greedy suppression in one pass over boxes in score order, exact and in memory linear in their number.
//
// A block takes a tile of boxes. A box of it is kept unless a kept box of an earlier tile, or of its own, suppresses
// it. Against all but the kBand tiles just before, boxes are tested as soon as those are decided; against these and
// their own tile they are tested beforehand, kept or not, into bit masks, so that little is left to do between one
// tile's decision and the next. Within a tile, keep = alive and not (suppressors and keep) is iterated until it stands
// still: box i is right after i + 1 sweeps at the latest, as it depends on earlier ones only, so the fixed point is
// greedy suppression.
//
// Tiles are handed out by a counter, so whatever a block waits for is running or done, however few blocks fit the GPU.

#include "../common/cuda_device.cuh"
#include "../common/iou.h"

namespace fastcnn {

constexpr int kNmsTile = 256;
constexpr int kNmsWords = kNmsTile / 32;
constexpr int kNmsBand = 3;

struct NmsState {
  unsigned long long progress;  // Tiles decided << 32 | boxes kept. Written in the order of the tiles.
  int next_tile;
};

// What a decided tile leaves to later ones.
struct NmsTile {
  unsigned keep[kNmsWords];
  int kept_end;  // Boxes kept up to and including this tile.
};

// Whether a kept box suppresses another. nms_tiles asks possible() first, which must hold wherever operator() does and
// should be cheap and rarely true.
template <typename T>
struct IouAbove {
  T threshold;

  __device__ __forceinline__ bool possible(const Box<T>& kept, const Box<T>& box) const {
    // Bitwise: && and || would become branches.
    const bool x = smaller(kept.x2, box.x2) > larger(kept.x1, box.x1);
    const bool y = smaller(kept.y2, box.y2) > larger(kept.y1, box.y1);
    return (x & y) | (threshold < T(0));
  }

  // box_iou(kept, box) > threshold, without the division where the answer is certain: rounding is monotone, so
  // inter < rn(threshold * both) implies inter / both < threshold.
  __device__ __forceinline__ bool operator()(const Box<T>& kept, const Box<T>& box) const {
    const BoxOverlap<T> areas = box_overlap(kept, box);
    if (areas.both > T(0) && areas.inter < threshold * areas.both) return false;
    return areas.inter / areas.both > threshold;
  }
};

// Bit i: others[i] suppresses the item, for the first n of 32. Those possible are found first, without branches, so
// that lanes diverge only over the few that are.
template <bool kAny, typename Item, typename Suppresses>
__device__ __forceinline__ unsigned nms_suppressors(const Item* others, int n, const Item& item,
                                                    const Suppresses& suppresses) {
  unsigned possible = 0, bits = 0;
  // All 32 of wide items at once would spill.
#pragma unroll(sizeof(Item) > 16 ? 8 : 32)
  for (int i = 0; i < 32; ++i) {
    const Item other = others[i];
    possible |= suppresses.possible(other, item) ? 1u << i : 0u;
  }
  if (n < 32) possible &= (1u << n) - 1;
  while (possible) {
    const int i = take_bit(possible);
    bits |= unsigned(suppresses(others[i], item)) << i;
    if (kAny && bits) break;
  }
  return bits;
}

// sorted[i] = boxes[order[i]], and the state reset, in one launch.
template <typename In, typename T>
__global__ void nms_gather(const In* __restrict__ boxes, const int64_t* __restrict__ order, int n,
                           Box<T>* __restrict__ sorted, NmsState* __restrict__ state) {
  const int i = int(block_index() * blockDim.x + threadIdx.x);
  if (i == 0) *state = NmsState{0, 0};
  if (i >= n) return;
  const In* box = boxes + 4 * order[i];
  sorted[i] = {T(widen(box[0])), T(widen(box[1])), T(widen(box[2])), T(widen(box[3]))};
}

// Waits until `tiles` tiles are decided and returns the progress then; all threads of the block together.
__device__ __forceinline__ unsigned long long nms_wait(const NmsState* state, int tiles, int tile) {
  __shared__ unsigned long long seen;
  if (threadIdx.x == 0) {
    unsigned long long progress = load_acquire(&state->progress);
    while (int(progress >> 32) < tiles) {
      // Blocks far behind stay out of the way of those next in line.
      const int behind = tile - int(progress >> 32);
      if (behind > kNmsBand + 1) __nanosleep(min(behind, 32) * 64);
      progress = load_acquire(&state->progress);
    }
    seen = progress;
  }
  __syncthreads();
  const unsigned long long progress = seen;
  __syncthreads();
  return progress;
}

// items: n of them in order of score, order: their original indices. suppresses(kept, item) decides. keep receives the
// original indices of those kept, in order of score, kept the items themselves, count their number.
template <typename Item, typename Suppresses>
__global__ void __launch_bounds__(kNmsTile, sizeof(Item) > 16 ? 2 : 4)
    nms_tiles(const Item* __restrict__ items, const int64_t* __restrict__ order, int n, Suppresses suppresses,
              NmsState* state, NmsTile* tiles, Item* kept, int64_t* __restrict__ keep, int64_t* __restrict__ count) {
  alignas(16) __shared__ Item other[kNmsTile];
  __shared__ unsigned suppressors[kNmsBand + 1][kNmsWords][kNmsTile];
  __shared__ unsigned keeps[2][kNmsWords];
  __shared__ int taken;
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  const unsigned below = (1u << lane) - 1;
  if (thread == 0) taken = atomicAdd(&state->next_tile, 1);
  __syncthreads();
  const int tile = taken, index = tile * kNmsTile + thread;
  bool alive = index < n;
  const Item mine = alive ? items[index] : Item{};

  // suppressors[0]: its own tile, [b]: the b-th before.
  for (int b = 0; b <= kNmsBand && b <= tile; ++b) {
    const int from = index - b * kNmsTile;
    __syncthreads();
    other[thread] = from < n ? items[from] : Item{};
    __syncthreads();
    for (int word = 0; word < kNmsWords; ++word) {
      unsigned bits = 0;
      if (b > 0 || word <= warp)
        bits = nms_suppressors<false>(other + word * 32, b == 0 && word == warp ? lane : 32, mine, suppresses);
      suppressors[b][word][thread] = bits;
    }
  }

  // Kept boxes of all tiles before the band, as far as they are decided each time.
  const int before_band = max(tile - kNmsBand, 0);
  int done = 0, at = 0;
  while (done < before_band && __syncthreads_or(alive)) {
    const int decided = int(nms_wait(state, done + 1, tile) >> 32);
    done = min(decided, before_band);
    const int end = __ldcg(&tiles[done - 1].kept_end);
    for (; at < end; at += kNmsTile) {
      const int chunk = min(kNmsTile, end - at);
      __syncthreads();
      if (thread < chunk) other[thread] = load_from_l2(kept + at + thread);
      __syncthreads();
      for (int i = 0; i < chunk && alive; i += 32)
        alive = !nms_suppressors<true>(other + i, chunk - i, mine, suppresses);
      if (!__syncthreads_or(alive)) break;
    }
    at = end;
  }

  const int kept_before = int(nms_wait(state, tile, tile) & 0xffffffffu);
  for (int b = 1; b <= kNmsBand && b <= tile; ++b)
    for (int word = 0; word < kNmsWords; ++word)
      if (suppressors[b][word][thread] & __ldcg(&tiles[tile - b].keep[word])) alive = false;

  int now = 0;
  bool kept_now = alive;
  const unsigned all = __ballot_sync(kAllLanes, alive);
  if (lane == 0) keeps[now][warp] = all;
  __syncthreads();
  for (bool changed = true; changed; now ^= 1) {
    bool suppressed = false;
    for (int word = 0; word <= warp; ++word) suppressed |= (suppressors[0][word][thread] & keeps[now][word]) != 0;
    const bool next = alive && !suppressed;
    const unsigned bits = __ballot_sync(kAllLanes, next);
    if (lane == 0) keeps[now ^ 1][warp] = bits;
    changed = __syncthreads_or(next != kept_now);
    kept_now = next;
  }

  int rank = kept_before, kept_end = kept_before;
  for (int word = 0; word < kNmsWords; ++word) {
    const int bits = __popc(keeps[now][word]);
    rank += word < warp ? bits : 0;
    kept_end += bits;
  }
  if (kept_now) {
    rank += __popc(keeps[now][warp] & below);
    keep[rank] = order[index];
    kept[rank] = mine;
  }
  if (thread < kNmsWords) tiles[tile].keep[thread] = keeps[now][thread];
  if (thread == 0) {
    tiles[tile].kept_end = kept_end;
    if (tile == int(gridDim.x) - 1) *count = kept_end;
  }
  __threadfence();
  __syncthreads();
  if (thread == 0) store_release(&state->progress, (unsigned long long)(tile + 1) << 32 | unsigned(kept_end));
}

}  // namespace fastcnn
