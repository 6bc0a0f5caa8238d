#pragma once

// What all suppressing ops share on a GPU.

#include <optional>

#include "../common/cuda_utils.h"

namespace fastcnn {

// Boxes [B, N, 4] or [N, 4], scores [B, N] or [N] and int64 classes of that shape, or null where all are of one class.
struct BoxesToSuppress {
  const char* op;
  const Tensor &boxes, &scores;
  const Tensor* classes;

  // fastcnn.ops says better what is wrong; who calls an op itself must not read past the end.
  void check(int64_t rank_of_boxes) const;
};

// Of each image the indices of its first kept boxes by descending score, filled up with -1, and how many they are.
struct Kept {
  Tensor indices, counts;
};

// Boxes take part with a score above score_threshold, if given. Nothing waits for the device, and memory is linear in
// the number of boxes.
Kept suppress_on_device(const BoxesToSuppress& input, double iou_threshold, std::optional<double> score_threshold,
                        int64_t limit);

// All indices kept of one image. Waits for their number.
Tensor suppress_and_wait(const BoxesToSuppress& input, double iou_threshold);

}  // namespace fastcnn
