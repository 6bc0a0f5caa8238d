#include "../common/parallel_map.h"
#include "hardswish_kernel.h"

FASTCNN_ELEMENTWISE_CPU(hardswish)
