#pragma once

#ifdef __CUDACC__
#define FASTCNN_HD __host__ __device__ __forceinline__
#else
#define FASTCNN_HD static inline  // Of one translation unit: see isa.h.
#endif
