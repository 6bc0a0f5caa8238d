#pragma once

#include "roi_plans.h"

namespace fastcnn {

// Pools the RoIs of a level from its maps into their rows of `out`; channels_last says how both lie in memory.
template <typename T>
void roi_align_level(const T* maps, int64_t images, const RoiLevel& level, const RoiPlans<acc_t<T>>& plans,
                     bool channels_last, T* out);

// The adjoint: adds to the gradient of the maps. `grad` lies in memory as the maps do.
template <typename T>
void roi_align_level_backward(const T* grad, int64_t images, const RoiLevel& level, const RoiPlans<acc_t<T>>& plans,
                              bool channels_last, acc_t<T>* grad_maps);

}  // namespace fastcnn
