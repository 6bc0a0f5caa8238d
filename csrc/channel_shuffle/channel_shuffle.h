#pragma once

#include "../common/tensor.h"

namespace fastcnn {

// Channel i * (C / groups) + j of [N, C, *] becomes channel j * groups + i.
Tensor channel_shuffle_cpu(const Tensor& input, int64_t groups);

}  // namespace fastcnn
