#pragma once

#include "roi_plans.h"

namespace fastcnn {

// Pools the RoIs of a level from its maps into their rows of `out`; channels_last says how both lie in memory.
template <typename T>
void roi_align_level(const T* maps, int64_t images, const RoiLevel& level, const RoiPlans<acc_t<T>>& plans,
                     bool channels_last, T* out);

// The adjoint: the gradient of the maps. `grad` is dense as they are.
template <typename T>
Tensor roi_align_level_backward(const Tensor& grad, int64_t images, const RoiLevel& level,
                                const RoiPlans<acc_t<T>>& plans, bool channels_last);

}  // namespace fastcnn
