#include "memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <vector>

namespace fastcnn {
namespace {

constexpr size_t kHugePage = 2 << 20;
constexpr size_t kAdvised = 32 << 20;  // From this size on huge pages are asked for: several times fewer to clear.

struct Piece {
  void* at;
  size_t bytes;
};

// FASTCNN_CACHE_MB, or an eighth of the memory that this process may use.
size_t most_kept() {
  if (const char* said = std::getenv("FASTCNN_CACHE_MB")) return size_t(std::max(std::atoll(said), 0ll)) << 20;
  size_t memory = size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE)), limit = 0;
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit) memory = std::min(memory, limit);
  return memory / 8;
}

struct Cache {
  const size_t most = most_kept();
  std::mutex mutex;
  std::vector<Piece> pieces;  // Those not in use, from the one that has been so for longest.
  size_t bytes = 0;
};

// Never destroyed: tensors may be freed after the last destructors have run.
Cache& cache() {
  static Cache* const instance = new Cache;
  return *instance;
}

void unmap(const std::vector<Piece>& pieces) {
  for (const Piece& piece : pieces) munmap(piece.at, piece.bytes);
}

}  // namespace

void* take_memory(size_t& bytes) {
  Cache& c = cache();
  if (c.most == 0) return nullptr;
  bytes = (bytes + kLeastKept / 16 - 1) & ~(kLeastKept / 16 - 1);
  // A process forked while another thread was in here would wait for ever.
  if (std::unique_lock lock(c.mutex, std::try_to_lock); lock) {
    auto best = c.pieces.end();
    for (auto piece = c.pieces.begin(); piece != c.pieces.end(); ++piece) {
      const bool fits = piece->bytes >= bytes && piece->bytes <= bytes + bytes / 4;
      // Of equals the last given back, whose memory may still be in a cache of the CPU.
      if (fits && (best == c.pieces.end() || piece->bytes <= best->bytes)) best = piece;
    }
    if (best != c.pieces.end()) {
      const Piece found = *best;
      c.pieces.erase(best);
      c.bytes -= found.bytes;
      bytes = found.bytes;
      return found.at;
    }
  }
  void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  const auto begin = (reinterpret_cast<uintptr_t>(at) + kHugePage - 1) & ~(kHugePage - 1);
  const auto end = (reinterpret_cast<uintptr_t>(at) + bytes) & ~(kHugePage - 1);
  // Best effort: a kernel without such pages refuses, and nothing is lost.
  if (bytes >= kAdvised) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  return at;
}

void give_memory_back(void* at, size_t bytes) {
  Cache& c = cache();
  std::vector<Piece> dropped;
  if (std::unique_lock lock(c.mutex, std::try_to_lock); lock) {
    c.pieces.push_back({at, bytes});
    c.bytes += bytes;
    while (c.bytes > c.most) {
      dropped.push_back(c.pieces.front());
      c.bytes -= c.pieces.front().bytes;
      c.pieces.erase(c.pieces.begin());
    }
  } else {
    dropped.push_back({at, bytes});
  }
  unmap(dropped);
}

void empty_cache() {
  Cache& c = cache();
  std::vector<Piece> dropped;
  {
    const std::lock_guard lock(c.mutex);
    dropped.swap(c.pieces);
    c.bytes = 0;
  }
  unmap(dropped);
}

}  // namespace fastcnn
#else
namespace fastcnn {
void* take_memory(size_t&) { return nullptr; }
void give_memory_back(void*, size_t) {}
void empty_cache() {}
}  // namespace fastcnn
#endif
