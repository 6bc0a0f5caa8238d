#pragma once

// Greedy suppression in one pass over boxes in score order, exact and in memory linear in their number.
//
// Boxes come group by group, one class of one image after another, and only those of a group suppress each other. A
// block takes a tile of boxes. A box of it is kept unless a kept box of its group, of an earlier tile or of its own,
// suppresses it. Against all but the kBand tiles just before, boxes are tested as soon as those are decided; against
// these and their own tile they are tested beforehand, kept or not, into bit masks, so that little is left to do
// between one tile's decision and the next. Within a tile, keep = alive and not (suppressors and keep) is iterated
// until it stands still: box i is right after i + 1 sweeps at the latest, as it depends on earlier ones only, so the
// fixed point is greedy suppression.
//
// Only the group of a tile's first box can have begun in an earlier tile, and only that of its last box can go on in a
// later one. So a tile waits for at most one chain of tiles, those of small groups for none, and no class is compared
// where boxes are: positions tell.
//
// Tiles are handed out by a counter, so whatever a block waits for is running or done, however few blocks fit the GPU.

#include "../common/cuda_device.cuh"
#include "../common/iou.h"

namespace fastcnn {

constexpr int kNmsTile = 256;
constexpr int kNmsWords = kNmsTile / 32;
constexpr int kNmsBand = 3;

struct NmsTile {
  // Of the group that begins last in this tile: tiles decided, from the first of all on, << 32 | its boxes kept.
  // Written in the order of the tiles.
  unsigned long long progress;
  unsigned keep[kNmsWords];
  int kept_end;  // Boxes of its last group kept up to and including this tile.
};

// The same number of boxes for every image.
struct NmsShape {
  int images, boxes;

  constexpr int total() const { return images * boxes; }
  // Of an image's bits, one for each box in order of score.
  constexpr int words() const { return boxes / 32 + (boxes % 32 != 0); }
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

// Bit i: others[i] suppresses the item, for those among 32. Those possible are found first, without branches, so that
// lanes diverge only over the few that are.
template <bool kAny, typename Item, typename Suppresses>
__device__ __forceinline__ unsigned nms_suppressors(const Item* others, unsigned among, const Item& item,
                                                    const Suppresses& suppresses) {
  unsigned possible = 0, bits = 0;
  // All 32 of wide items at once would spill.
#pragma unroll(sizeof(Item) > 16 ? 8 : 32)
  for (int i = 0; i < 32; ++i) {
    const Item other = others[i];
    possible |= suppresses.possible(other, item) ? 1u << i : 0u;
  }
  possible &= among;
  while (possible) {
    const int i = take_bit(possible);
    bits |= unsigned(suppresses(others[i], item)) << i;
    if (kAny && bits) break;
  }
  return bits;
}

// The bits of a word from that one on, which may lie before or after it.
__device__ __forceinline__ unsigned bits_from(int bit) {
  return bit <= 0 ? kAllLanes : bit < 32 ? kAllLanes << bit : 0;
}

// Where the groups begin of the thread's item and of the first and the last of its tile.
struct NmsGroups {
  int mine, first, last;
};

// classes: of all items, ascending within each image, or null where all are one group. All threads of the block
// together; index may lie beyond the items.
__device__ __forceinline__ NmsGroups nms_groups(const int64_t* __restrict__ classes, const NmsShape& shape, int start,
                                                int index) {
  if (classes == nullptr) return {0, 0, 0};
  __shared__ int last_begins[kNmsWords];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const bool begins = index < shape.total() && (index % shape.boxes == 0 || classes[index] != classes[index - 1]);
  const unsigned ballot = __ballot_sync(kAllLanes, begins);
  const auto last_of = [&](unsigned bits) { return bits ? index - lane + 31 - __clz(int(bits)) : -1; };
  if (lane == 0) last_begins[warp] = last_of(ballot);

  // Of the image's items before the tile, those of other classes than its first are the first ones: each thread looks
  // at one of them, and the part of the items that holds the last of those is searched in turn.
  const int64_t first_class = classes[start];
  NmsGroups groups;
  groups.first = start - start % shape.boxes;
  for (int size = start - groups.first; size > 0;) {
    const int part = (size + kNmsTile - 1) / kNmsTile, at = (int(threadIdx.x) + 1) * part - 1;
    const int others = __syncthreads_count(at < size && classes[groups.first + at] != first_class);
    groups.first += others * part;
    size = min(part - 1, size - others * part);
  }
  __syncthreads();
  groups.mine = last_of(ballot & ~((kAllLanes - 1) << lane));
  groups.last = -1;
  for (int w = kNmsWords - 1; w >= 0; --w) {
    if (groups.last < 0) groups.last = last_begins[w];
    if (groups.mine < 0 && w < warp) groups.mine = last_begins[w];
  }
  if (groups.mine < 0) groups.mine = groups.first;
  if (groups.last < 0) groups.last = groups.first;
  return groups;
}

// Waits until a group, in the first of its tiles, shows `tiles` tiles decided, and returns its progress then; all
// threads of the block together.
__device__ __forceinline__ unsigned long long nms_wait(const NmsTile* tile_states, int first_tile, int tiles,
                                                       int tile) {
  __shared__ unsigned long long seen;
  if (threadIdx.x == 0) {
    unsigned long long progress = load_acquire(&tile_states[first_tile].progress);
    while (int(progress >> 32) < tiles) {
      // Blocks far behind stay out of the way of those next in line.
      const int behind = tile - max(int(progress >> 32), first_tile);
      if (behind > kNmsBand + 1) __nanosleep(min(behind, 32) * 64);
      progress = load_acquire(&tile_states[first_tile].progress);
    }
    seen = progress;
  }
  __syncthreads();
  const unsigned long long progress = seen;
  __syncthreads();
  return progress;
}

// items: image by image, in each class by class, in each in order of score. classes: theirs, or null where all are one.
// places: where the bits of kept ones are, or -1 for those that take no part. suppresses(kept, item) decides. `limit`
// or more of each group are found, if there are as many, and these are its first. kept: room for as many items.
template <typename Item, typename Suppresses>
__global__ void __launch_bounds__(kNmsTile, sizeof(Item) > 16 ? 2 : 4)
    nms_tiles(const Item* __restrict__ items, const int* __restrict__ places, const int64_t* __restrict__ classes,
              NmsShape shape, int limit, Suppresses suppresses, int* next_tile, NmsTile* tiles, Item* kept,
              unsigned* kept_bits) {
  alignas(16) __shared__ Item other[kNmsTile];
  __shared__ unsigned suppressors[kNmsBand + 1][kNmsWords][kNmsTile];
  __shared__ unsigned keeps[2][kNmsWords];
  __shared__ int taken;
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  const int n = shape.total();
  if (thread == 0) taken = atomicAdd(next_tile, 1);
  __syncthreads();
  const int tile = taken, start = tile * kNmsTile, index = start + thread;
  const int place = index < n ? places[index] : -1;
  const Item mine = index < n ? items[index] : Item{};
  const NmsGroups begin = nms_groups(classes, shape, start, index);
  const int first_tile = begin.first / kNmsTile;
  const bool continues = begin.mine < start;
  bool alive = place >= 0;

  // suppressors[0]: its own tile, [b]: the b-th before.
  const bool any_alive = __syncthreads_or(alive);
  const int warp_begin = __shfl_sync(kAllLanes, begin.mine, 0);
  for (int b = 0; any_alive && b <= kNmsBand && first_tile <= tile - b; ++b) {
    const int from = start - b * kNmsTile;
    __syncthreads();
    other[thread] = from + thread < n ? items[from + thread] : Item{};
    __syncthreads();
    for (int word = 0; word < kNmsWords; ++word) {
      const int low = from + word * 32;
      unsigned bits = 0;
      if (warp_begin < low + 32 && low <= index)
        bits = nms_suppressors<false>(other + word * 32, bits_from(begin.mine - low) & ~bits_from(index - low), mine,
                                      suppresses);
      suppressors[b][word][thread] = bits;
    }
  }

  // Kept boxes of all tiles before the band, as far as they are decided each time.
  const int before_band = max(tile - kNmsBand, first_tile);
  int done = first_tile, at = 0;
  while (done < before_band && __syncthreads_or(alive && continues)) {
    const int decided = int(nms_wait(tiles, first_tile, done + 1, tile) >> 32);
    done = min(decided, before_band);
    const int end = __ldcg(&tiles[done - 1].kept_end);
    if (end >= limit && continues) alive = false;
    for (; at < end; at += kNmsTile) {
      const int chunk = min(kNmsTile, end - at);
      __syncthreads();
      if (thread < chunk) other[thread] = load_from_l2(kept + begin.first + at + thread);
      __syncthreads();
      for (int i = 0; i < chunk && alive && continues; i += 32)
        alive = !nms_suppressors<true>(other + i, ~bits_from(chunk - i), mine, suppresses);
      if (!__syncthreads_or(alive && continues)) break;
    }
    at = end;
  }

  const int kept_before = first_tile < tile ? int(nms_wait(tiles, first_tile, tile, tile) & 0xffffffffu) : 0;
  if (continues && kept_before >= limit) alive = false;
  for (int b = 1; any_alive && b <= kNmsBand && first_tile <= tile - b; ++b)
    for (int word = 0; word < kNmsWords; ++word)
      if (suppressors[b][word][thread] & __ldcg(&tiles[tile - b].keep[word])) alive = false;

  int now = 0;
  bool kept_now = alive;
  const unsigned all = __ballot_sync(kAllLanes, alive);
  if (lane == 0) keeps[now][warp] = all;
  __syncthreads();
  for (bool changed = any_alive; changed; now ^= 1) {
    bool suppressed = false;
    for (int word = 0; word <= warp; ++word) suppressed |= (suppressors[0][word][thread] & keeps[now][word]) != 0;
    const bool next = alive && !suppressed;
    const unsigned bits = __ballot_sync(kAllLanes, next);
    if (lane == 0) keeps[now ^ 1][warp] = bits;
    changed = __syncthreads_or(next != kept_now);
    kept_now = next;
  }

  // The last group goes on in the next tile, perhaps, and for that its kept boxes lie one after another.
  int rank = begin.last < start ? kept_before : 0, kept_end = rank;
  for (int word = 0; word < kNmsWords; ++word) {
    const int low = start + word * 32;
    const unsigned bits = keeps[now][word] & bits_from(begin.last - low);
    rank += __popc(bits & ~bits_from(index - low));
    kept_end += __popc(bits);
  }
  if (kept_now) {
    if (index >= begin.last) kept[begin.last + rank] = mine;
    atomicOr(&kept_bits[place / 32], 1u << place % 32);
  }
  if (thread < kNmsWords) tiles[tile].keep[thread] = keeps[now][thread];
  if (thread == 0) tiles[tile].kept_end = kept_end;
  __threadfence();
  __syncthreads();
  if (thread == 0)
    store_release(&tiles[begin.last / kNmsTile].progress, (unsigned long long)(tile + 1) << 32 | unsigned(kept_end));
}

}  // namespace fastcnn
