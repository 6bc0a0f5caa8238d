#include "nms_kernel.h"

#include <cstdlib>

#include "../common/simd.h"

namespace fastcnn {
namespace FASTCNN_ISA {
namespace {

// Boxes can only suppress each other if their centres are close: with v and w the larger and smaller width, IoU > t
// needs an overlap above t * v, and so v < w / t and a distance of centres below (v + w) / 2 - t * v. Kept boxes are
// therefore held in a grid of their centres, as one structure of arrays in which every cell has room for all boxes that
// fall in it, and a candidate is tested, a vector of kept boxes at a time, against the cells within that distance.
template <typename T>
class KeptBoxes {
 public:
  static constexpr int kWidth = kLanes<T>;
  static constexpr int kBoxesPerCell = 48;
  static constexpr int kMaxSide = 256;

  KeptBoxes(const Box<T>* boxes, int64_t n, T threshold) : threshold_(threshold) {
    while (side_ < kMaxSide && int64_t(side_ + 1) * (side_ + 1) * kBoxesPerCell <= n) ++side_;
    reach_ = (T(1) / threshold - T(1)) / 2;
    if (!(reach_ > T(1) - threshold)) reach_ = T(1) - threshold;
    if (reach_ < T(0)) reach_ = 0;
    // Rounding moves the bound by a few units in the last place; this is far more.
    reach_ += T(1e-3);
    likely_ = threshold - threshold * T(1e-4);

    fit(boxes, n);
    const int cells = side_ * side_;
    begin_ = allocate<int64_t>(cells + 1);
    end_ = allocate<int64_t>(cells);
    memset(begin_, 0, sizeof(int64_t) * (cells + 1));
    for (int64_t i = 0; i < n; ++i)
      if (regular(boxes[i])) ++begin_[cell(boxes[i]) + 1];
    for (int c = 0; c < cells; ++c) {
      end_[c] = begin_[c];
      begin_[c + 1] = begin_[c] + (begin_[c + 1] + kWidth - 1) / kWidth * kWidth;
    }
    const int64_t room = begin_[cells] + kWidth;
    data_ = allocate<T>(5 * room);
    x1_ = data_, y1_ = x1_ + room, x2_ = y1_ + room, y2_ = x2_ + room, area_ = y2_ + room;
    for (int64_t i = 0; i < room; ++i) {  // Empty places overlap nothing.
      x1_[i] = y1_[i] = T(__builtin_inff());
      x2_[i] = y2_[i] = -T(__builtin_inff());
      area_[i] = 0;
    }
  }
  KeptBoxes(const KeptBoxes&) = delete;
  KeptBoxes& operator=(const KeptBoxes&) = delete;
  ~KeptBoxes() {
    free(begin_);
    free(end_);
    free(data_);
  }

  // Others (empty, inverted, infinite, NaN) have an IoU of 0 or NaN with every box: never suppressed, never
  // suppressing.
  static bool regular(const Box<T>& b) {
    const T area = (b.x2 - b.x1) * (b.y2 - b.y1);
    return b.x2 > b.x1 && b.y2 > b.y1 && area > T(0) && area - area == T(0);
  }

  bool suppresses(const Box<T>& b) const {
    const T dx = reach_ * (b.x2 - b.x1) + slack_, dy = reach_ * (b.y2 - b.y1) + slack_;
    const T cx = centre(b.x1, b.x2), cy = centre(b.y1, b.y2);
    const int left = place(cx - dx, x_low_, x_scale_), right = place(cx + dx, x_low_, x_scale_);
    const int top = place(cy - dy, y_low_, y_scale_), bottom = place(cy + dy, y_low_, y_scale_);
    const T area = (b.x2 - b.x1) * (b.y2 - b.y1);
    for (int row = top; row <= bottom; ++row)
      for (int c = row * side_ + left; c <= row * side_ + right; ++c)
        if (any_above(b, area, begin_[c], end_[c])) return true;
    return false;
  }

  void add(const Box<T>& b) {
    const int64_t at = end_[cell(b)]++;
    x1_[at] = b.x1, y1_[at] = b.y1, x2_[at] = b.x2, y2_[at] = b.y2;
    area_[at] = (b.x2 - b.x1) * (b.y2 - b.y1);
  }

 private:
  template <typename U>
  static U* allocate(int64_t n) {
    return static_cast<U*>(malloc(sizeof(U) * n));
  }

  static T centre(T low, T high) { return low / 2 + high / 2; }

  int place(T at, T low, T scale) const {
    const T cell = (at - low) * scale;
    return cell >= T(side_ - 1) ? side_ - 1 : cell > T(0) ? int(cell) : 0;
  }

  int cell(const Box<T>& b) const {
    return place(centre(b.y1, b.y2), y_low_, y_scale_) * side_ + place(centre(b.x1, b.x2), x_low_, x_scale_);
  }

  // The grid spans two standard deviations of the centres either way, so that a few far boxes do not stretch it; places
  // beyond are in its outer cells.
  void fit(const Box<T>* boxes, int64_t n) {
    double count = 0, x = 0, y = 0, xx = 0, yy = 0;
    T largest = 0;
    const auto grow = [&](T v) { largest = v > largest ? v : -v > largest ? -v : largest; };
    for (int64_t i = 0; i < n; ++i) {
      const Box<T>& b = boxes[i];
      if (!regular(b)) continue;
      const double cx = centre(b.x1, b.x2), cy = centre(b.y1, b.y2);
      count += 1, x += cx, y += cy, xx += cx * cx, yy += cy * cy;
      grow(b.x1), grow(b.x2), grow(b.y1), grow(b.y2);
    }
    slack_ = largest * (sizeof(T) == 4 ? T(1e-6) : T(1e-14));
    if (count == 0) return;
    const auto span = [&](double sum, double squares, T& low, T& scale) {
      const double mean = sum / count, variance = squares / count - mean * mean;
      const double deviation = variance > 0 ? __builtin_sqrt(variance) : 0;
      low = T(mean - 2 * deviation);
      const double cells = side_ / (4 * deviation);
      scale = deviation > 0 && cells < 1e30 ? T(cells) : T(0);
    };
    span(x, xx, x_low_, x_scale_);
    span(y, yy, y_low_, y_scale_);
    if (x_low_ - x_low_ != T(0) || y_low_ - y_low_ != T(0)) side_ = 1;
  }

  bool any_above(const Box<T>& b, T area, int64_t begin, int64_t end) const {
    using V = Vec<T, kWidth>;
    const V zero{};
    for (int64_t i = begin; i < end; i += kWidth) {
      const V x1 = load<kWidth>(x1_ + i), y1 = load<kWidth>(y1_ + i), x2 = load<kWidth>(x2_ + i),
              y2 = load<kWidth>(y2_ + i), kept_area = load<kWidth>(area_ + i);
      const V left = x1 > b.x1 ? x1 : zero + b.x1, top = y1 > b.y1 ? y1 : zero + b.y1;
      const V right = x2 < b.x2 ? x2 : zero + b.x2, bottom = y2 < b.y2 ? y2 : zero + b.y2;
      V width = right - left, height = bottom - top;
      width = width > 0 ? width : zero;
      height = height > 0 ? height : zero;
      const V inter = width * height, both = area + kept_area - inter;
      const auto likely = inter > likely_ * both;
      if (!any(likely)) continue;
      if (any(inter / both > threshold_)) return true;
    }
    return false;
  }

  template <typename M>
  static bool any(const M& mask) {
    using Words = Vec<int64_t, kVectorBytes / 8>;
    const Words words = bit_cast<Words>(mask);
    int64_t set = 0;
    for (int i = 0; i < kVectorBytes / 8; ++i) set |= words[i];
    return set != 0;
  }

  int side_ = 1;
  T threshold_, likely_, reach_, slack_ = 0;
  T x_low_ = 0, y_low_ = 0, x_scale_ = 0, y_scale_ = 0;
  int64_t *begin_, *end_;
  T *data_, *x1_, *y1_, *x2_, *y2_, *area_;
};

// Below a threshold of 0 even disjoint boxes suppress each other, and a NaN threshold is above nothing.
template <typename T>
int64_t nms_any_threshold(const Box<T>* boxes, int64_t n, T threshold, int64_t* keep) {
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    bool suppressed = false;
    for (int64_t k = 0; k < kept && !suppressed; ++k) suppressed = box_iou(boxes[keep[k]], boxes[i]) > threshold;
    if (!suppressed) keep[kept++] = i;
  }
  return kept;
}

}  // namespace

template <typename T>
int64_t nms(const Box<T>* boxes, int64_t n, T threshold, int64_t* keep) {
  if (!(threshold >= T(0))) return nms_any_threshold(boxes, n, threshold, keep);
  KeptBoxes<T> kept_boxes(boxes, n, threshold);
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (KeptBoxes<T>::regular(boxes[i])) {
      if (kept_boxes.suppresses(boxes[i])) continue;
      kept_boxes.add(boxes[i]);
    }
    keep[kept++] = i;
  }
  return kept;
}

template int64_t nms<float>(const Box<float>*, int64_t, float, int64_t*);
template int64_t nms<double>(const Box<double>*, int64_t, double, int64_t*);

}  // namespace FASTCNN_ISA
}  // namespace fastcnn
