// The CUDA kernels of suppression with a C interface, run by cuda_emulator.h.

#include <algorithm>
#include <numeric>

#include "cuda_emulator.h"

#include "../../csrc/nms/nms_lists_cuda.cuh"

using namespace fastcnn;

namespace {

struct NmsArguments {
  int images, boxes;
  int filtered;
  double iou_threshold, score_threshold;
  int64_t limit;
};

// As torch.sort(stable=True) of each image's values, which leaves them sorted.
template <typename T>
std::vector<int64_t> sort(std::vector<T>& values, const NmsShape& shape) {
  std::vector<int64_t> indices(values.size());
  std::vector<T> sorted(values.size());
  for (int image = 0; image < shape.images; ++image) {
    const auto first = indices.begin() + image * shape.boxes;
    const T* of_image = values.data() + image * shape.boxes;
    std::iota(first, first + shape.boxes, 0);
    std::stable_sort(first, first + shape.boxes, [=](int64_t a, int64_t b) { return of_image[a] < of_image[b]; });
    for (int i = 0; i < shape.boxes; ++i) sorted[image * shape.boxes + i] = of_image[first[i]];
  }
  values = sorted;
  return indices;
}

template <typename In, typename Score>
void suppress(const void* boxes, const void* scores, const int64_t* classes, int64_t* indices, int64_t* counts,
              const NmsArguments& a) {
  using T = acc_t<In>;
  using A = acc_t<Score>;
  const NmsShape shape{a.images, a.boxes};
  const int n = shape.total(), tiles = (n + kNmsTile - 1) / kNmsTile;
  std::vector<SortKey<A>> keys(n);
  emulator::launch(tiles, kNmsTile, &nms_sort_keys<Score, A>, static_cast<const Score*>(scores), n, a.filtered != 0,
                   A(a.score_threshold), keys.data());
  const std::vector<int64_t> order = sort(keys, shape);
  std::vector<int64_t> sorted_classes, by_class;
  if (classes != nullptr) {
    for (int i = 0; i < n; ++i) sorted_classes.push_back(classes[i - i % a.boxes + order[i]]);
    by_class = sort(sorted_classes, shape);
  }
  const int64_t* class_order = classes ? by_class.data() : nullptr;
  const int64_t* class_values = classes ? sorted_classes.data() : nullptr;
  // Memory of before: nothing may rely on zeros.
  std::vector<Box<T>> sorted(n), kept(n);
  std::vector<NmsTile> states(tiles);
  memset(static_cast<void*>(states.data()), 0xff, tiles * sizeof(NmsTile));
  std::vector<int> places(n, 12345);
  std::vector<unsigned> bits(shape.images * shape.words(), ~0u);
  int next_tile = -1;
  emulator::launch(tiles, kNmsTile, &nms_gather<In, T, SortKey<A>>, static_cast<const In*>(boxes), order.data(),
                   static_cast<const SortKey<A>*>(keys.data()), class_order, shape, sorted.data(), places.data(),
                   &next_tile, states.data(), bits.data());
  emulator::launch(tiles, kNmsTile, &nms_tiles<Box<T>, IouAbove<T>>, static_cast<const Box<T>*>(sorted.data()),
                   static_cast<const int*>(places.data()), class_values, shape, int(std::min<int64_t>(a.limit, a.boxes)),
                   IouAbove<T>{T(float(a.iou_threshold))}, &next_tile, states.data(), kept.data(), bits.data());
  emulator::launch(shape.images * nms_list_blocks(shape, a.limit), kNmsTile, &nms_list,
                   static_cast<const unsigned*>(bits.data()), order.data(), shape, a.limit, indices, counts);
}

template <typename In>
void suppress_with(int score_dtype, const void* boxes, const void* scores, const int64_t* classes, int64_t* indices,
                   int64_t* counts, const NmsArguments& a) {
  constexpr decltype(&suppress<In, float>) functions[] = {&suppress<In, float>, &suppress<In, double>,
                                                          &suppress<In, Half>, &suppress<In, BFloat16>};
  functions[score_dtype](boxes, scores, classes, indices, counts, a);
}

}  // namespace

// dtype: 0 float32, 1 float64, 2 float16, 3 bfloat16.
extern "C" void emulated_nms(int dtype, int score_dtype, const void* boxes, const void* scores, const int64_t* classes,
                             int64_t* indices, int64_t* counts, const NmsArguments* arguments) {
  constexpr decltype(&suppress_with<float>) functions[] = {&suppress_with<float>, &suppress_with<double>,
                                                           &suppress_with<Half>, &suppress_with<BFloat16>};
  functions[dtype](score_dtype, boxes, scores, classes, indices, counts, *arguments);
}
