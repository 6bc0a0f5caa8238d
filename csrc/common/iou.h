#pragma once

// Intersection over union of two corner-format boxes, to the bit as torchvision computes it on the same device: its
// CUDA kernel fuses the multiply and add of the union, its CPU kernel rounds every step. Boxes with NaN, and 0 / 0,
// give NaN, which compares false with every threshold.

#include "host_device.h"

namespace fastcnn {

template <typename T>
struct Box {
  T x1, y1, x2, y2;
};

#ifdef __CUDA_ARCH__
FASTCNN_HD float union_area(float width, float height, float other, float inter) {
  return __fsub_rn(__fmaf_rn(width, height, other), inter);
}
FASTCNN_HD double union_area(double width, double height, double other, double inter) {
  return __dsub_rn(__fma_rn(width, height, other), inter);
}
// One instruction. With NaN they differ from those of the host, but then so is the union, whichever they return.
template <typename T>
FASTCNN_HD T larger(T a, T b) {
  return max(a, b);
}
template <typename T>
FASTCNN_HD T smaller(T a, T b) {
  return min(a, b);
}
#else
template <typename T>
FASTCNN_HD T union_area(T width, T height, T other, T inter) {
  return width * height + other - inter;
}
template <typename T>
FASTCNN_HD T larger(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
FASTCNN_HD T smaller(T a, T b) {
  return a < b ? a : b;
}
#endif

template <typename T>
struct BoxOverlap {
  T inter, both;  // Areas of the intersection and of the union.
};

// `kept` has the higher score. The sides are clamped as max(0, side) is in torchvision: a NaN side gives 0.
template <typename T>
FASTCNN_HD BoxOverlap<T> box_overlap(const Box<T>& kept, const Box<T>& box) {
  T width = smaller(kept.x2, box.x2) - larger(kept.x1, box.x1);
  T height = smaller(kept.y2, box.y2) - larger(kept.y1, box.y1);
  width = width > T(0) ? width : T(0);
  height = height > T(0) ? height : T(0);
  const T inter = width * height;
  const T kept_area = (kept.x2 - kept.x1) * (kept.y2 - kept.y1);
  return {inter, union_area(box.x2 - box.x1, box.y2 - box.y1, kept_area, inter)};
}

template <typename T>
FASTCNN_HD T box_iou(const Box<T>& kept, const Box<T>& box) {
  const BoxOverlap<T> overlap = box_overlap(kept, box);
  return overlap.inter / overlap.both;
}

}  // namespace fastcnn
