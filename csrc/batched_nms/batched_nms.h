#pragma once

#include <span>
#include <vector>

#include "../common/iou.h"
#include "../common/tensor.h"

namespace fastcnn {

// Of the boxes that `order` lists by descending score, those that greedy suppression within their classes keeps, in
// that order. Any numbers are classes. In parallel over classes.
template <typename T>
std::vector<int32_t> suppress_by_class(const Box<T>* boxes, const int64_t* classes, std::span<const int32_t> order,
                                       double iou_threshold);

}  // namespace fastcnn
