#pragma once

// Memory of large results. What the system hands out is cleared page by page on first touch, which takes longer than
// most kernels that fill it, and malloc gives large pieces back to the system as soon as they are freed: so the pieces
// that results lie in are kept for the results to come.

#include <cstddef>

namespace fastcnn {

// Of smaller results malloc keeps the memory.
constexpr size_t kLeastKept = 1 << 20;

// At least `bytes` at an address that is a multiple of 4096, or null where nothing is kept (not on Linux, switched off)
// or there is no memory. `bytes` becomes the size of the piece.
void* take_memory(size_t& bytes);

// A piece of that size which was taken.
void give_memory_back(void* at, size_t bytes);

// Returns to the system what is kept and not in use.
void empty_cache();

}  // namespace fastcnn
