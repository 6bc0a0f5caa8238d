#pragma once

#include <cstdint>

#include "../common/iou.h"
#include "../common/isa.h"

namespace fastcnn {
FASTCNN_FOR_EACH_ISA(
    // boxes: n boxes by descending score. Writes the positions of those greedy suppression keeps, ascending, to `keep`
    // and returns how many there are. threshold: the largest T not above the caller's. Needs O(n) memory.
    template <typename T> int64_t nms(const Box<T>* boxes, int64_t n, T threshold, int64_t* keep);)
}  // namespace fastcnn
