#pragma once

// Kernels are compiled once per instruction-set level from the same sources, each time into the namespace FASTCNN_ISA
// names, and chosen at run time. They must not include anything whose inline functions another translation unit could
// share: the linker would keep one copy, perhaps the one that needs AVX-512.

#include <cstdint>

namespace fastcnn {

enum class Isa { baseline, avx2, avx512 };

// The best level this CPU has, or the one FASTCNN_ISA in the environment asks for if the CPU has it. Read once.
Isa isa();
const char* isa_name();

}  // namespace fastcnn

// Declares a kernel for every level built, and FASTCNN_SELECT picks the one to run.
#ifdef FASTCNN_X86_LEVELS
#define FASTCNN_FOR_EACH_ISA(...) \
  namespace baseline {            \
  __VA_ARGS__                     \
  }                               \
  namespace avx2 {                \
  __VA_ARGS__                     \
  }                               \
  namespace avx512 {              \
  __VA_ARGS__                     \
  }
#define FASTCNN_SELECT(...)                                          \
  (::fastcnn::isa() == ::fastcnn::Isa::avx512 ? &avx512::__VA_ARGS__ \
   : ::fastcnn::isa() == ::fastcnn::Isa::avx2 ? &avx2::__VA_ARGS__   \
                                              : &baseline::__VA_ARGS__)
#else
#define FASTCNN_FOR_EACH_ISA(...) \
  namespace baseline {            \
  __VA_ARGS__                     \
  }
#define FASTCNN_SELECT(...) (&baseline::__VA_ARGS__)
#endif
