#include "../common/parallel_map.h"
#include "hardsigmoid_kernel.h"

FASTCNN_ELEMENTWISE_CPU(hardsigmoid)
