#pragma once

// What each RoI reads of its map, worked out once for all channels.

#include <numeric>

#include "../common/roi_geometry.h"
#include "../common/rois.h"
#include "roi_align_kernel.h"

namespace fastcnn {

// Appends the merged taps of one axis, their weights times `scale`, and the first tap of every bin.
template <typename A>
void append_axis(const RoiAxis<A>& axis, int bins, int size, A scale, std::vector<int32_t>& first,
                 std::vector<int32_t>& index, std::vector<A>& weight) {
  first.push_back(0);
  std::vector<std::pair<int32_t, A>> taps;
  for (int bin = 0; bin < bins; ++bin) {
    taps.clear();
    // A huge box has most of its samples off the map: only those that can be on it, and two to spare, are looked at.
    const A step = axis.grid > 0 ? axis.bin / A(axis.grid) : A(0), at = axis.start + A(bin) * axis.bin;
    const auto clamp = [&](A i) { return i > A(0) ? i < A(axis.grid) ? int(i) : axis.grid : 0; };  // NaN gives 0.
    const int begin = step > A(0) ? clamp((A(-1) - at) / step - A(2)) : 0;
    const int end = step > A(0) ? clamp((A(size) - at) / step + A(3)) : std::max(axis.grid, 0);
    taps.reserve(2 * std::max(end - begin, 0));
    for (int sample = begin; sample < end; ++sample) {
      const RoiTap<A> tap = roi_tap(axis, bin, sample, size);
      if (!tap.inside) continue;
      taps.emplace_back(tap.low, tap.w_low * scale);
      taps.emplace_back(tap.high, tap.w_high * scale);
    }
    std::stable_sort(taps.begin(), taps.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const size_t bin_begin = weight.size();
    for (const auto& [pixel, w] : taps) {
      if (weight.size() > bin_begin && index.back() == pixel) {
        weight.back() += w;
      } else {
        index.push_back(pixel);
        weight.push_back(w);
      }
    }
    first.push_back(int32_t(weight.size()));
  }
}

// The plan of one RoI and the memory it points into.
template <typename A>
struct OwnedPlan {
  int64_t image = 0;
  std::vector<int32_t> row_first, row_index, col_first, col_index, columns;
  std::vector<A> row_weight, col_weight;

  OwnedPlan() = default;
  OwnedPlan(const A* roi, const RoiShape& shape, A spatial_scale, int sampling_ratio, bool aligned) {
    const auto x = roi_axis(roi[1], roi[3], spatial_scale, aligned, shape.pooled_width, sampling_ratio);
    const auto y = roi_axis(roi[2], roi[4], spatial_scale, aligned, shape.pooled_height, sampling_ratio);
    const A count = A(std::max(x.grid, 0)) * A(std::max(y.grid, 0));
    append_axis(y, shape.pooled_height, int(shape.height), A(1) / std::max(count, A(1)), row_first, row_index,
                row_weight);
    append_axis(x, shape.pooled_width, int(shape.width), A(1), col_first, col_index, col_weight);
    columns = col_index;
    std::sort(columns.begin(), columns.end());
    columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
  }

  int32_t top() const { return row_index.empty() ? 0 : row_index.front(); }
  int32_t left() const { return columns.empty() ? 0 : columns.front(); }

  RoiPlan<A> view() const {
    return {{row_first.data(), row_index.data(), row_weight.data()},
            {col_first.data(), col_index.data(), col_weight.data()},
            columns.data(),
            int32_t(columns.size()),
            columns.empty() ? 0 : columns.front(),
            columns.empty() ? 0 : columns.back() + 1};
  }
};

// A map and its share of the RoIs.
struct RoiLevel {
  RoiShape shape;
  double spatial_scale;
  std::vector<RoiPlace> places;
};

// The plans of all RoIs. Those of a level that does not exist have none, and are at no place.
template <typename A>
class RoiPlans {
 public:
  // level_of: of every RoI, or null if there is one level.
  RoiPlans(const Rois<A>& rois, std::vector<RoiLevel>& levels, const int64_t* level_of, int64_t sampling_ratio,
           bool aligned)
      : owned_(rois.count) {
    const int ratio = int(std::clamp<int64_t>(sampling_ratio, 0, kMaxRoiGrid));
    const auto level = [&](int64_t k) {
      const int64_t l = level_of ? level_of[k] : 0;
      return l >= 0 && l < int64_t(levels.size()) ? &levels[l] : nullptr;
    };
    torch::stable::parallel_for(0, rois.count, 64, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k)
        if (const RoiLevel* l = level(k))
          owned_[k] = OwnedPlan<A>(rois[k], l->shape, A(l->spatial_scale), ratio, aligned);
    });
    for (int64_t k = 0; k < rois.count; ++k)
      if (RoiLevel* l = level(k)) l->places.emplace_back(rois.image(k), owned_[k].top(), owned_[k].left(), k);
    for (RoiLevel& l : levels) std::sort(l.places.begin(), l.places.end());
  }

  RoiPlan<A> operator[](int64_t k) const { return owned_[k].view(); }
  const OwnedPlan<A>& owned(int64_t k) const { return owned_[k]; }

 private:
  std::vector<OwnedPlan<A>> owned_;
};

}  // namespace fastcnn
