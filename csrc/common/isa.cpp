#include "isa.h"

#include <cstdlib>
#include <cstring>

namespace fastcnn {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};

Isa best() {
#ifdef FASTCNN_X86_LEVELS
  __builtin_cpu_init();
  // Every CPU with AVX2 has F16C, which not every compiler lets one ask for.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::baseline;
#else
  return Isa::baseline;
#endif
}

Isa choose() {
  const Isa limit = best();
  if (const char* wanted = std::getenv("FASTCNN_ISA")) {
    for (int level = 0; level <= int(limit); ++level)
      if (std::strcmp(wanted, kNames[level]) == 0) return Isa(level);
  }
  return limit;
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* isa_name() { return kNames[int(isa())]; }

}  // namespace fastcnn
