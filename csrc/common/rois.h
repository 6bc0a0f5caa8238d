#pragma once

// What ops over regions of interest share: the rows (batch index, x1, y1, x2, y2), and how they become tasks.

#include <algorithm>
#include <memory>
#include <span>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "roi_shape.h"
#include "tensor.h"

namespace fastcnn {

constexpr int32_t kRoiBand = 16;
constexpr int64_t kRoiCopyBytes = 1 << 20;  // What planes copied side by side may take of L2.
constexpr int64_t kRoiSumBytes = 16 << 20;  // What sums of a block of channels may take of memory.

// Checked rows in the type that coordinates are computed in.
template <typename A>
struct Rois {
  Tensor rows;  // Owns the data.
  const A* data;
  int64_t count;

  const A* operator[](int64_t k) const { return data + 5 * k; }
  int64_t image(int64_t k) const { return int64_t(data[5 * k]); }  // Truncated towards zero, as torchvision does it.
};

template <typename A>
Rois<A> checked_rois(const char* op, const Tensor& rois, int64_t images) {
  // fastcnn.ops says so better; who calls the op itself must not read past the end.
  STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 5, op, ": expected boxes [K, 5]");
  const Tensor rows = contiguous_as(rois, std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float);
  const Rois<A> checked{rows, static_cast<const A*>(rows.const_data_ptr()), rows.size(0)};
  for (int64_t k = 0; k < checked.count; ++k) {
    const A image = checked[k][0];
    if (!(image > A(-1) && image < A(images))) {  // fastcnn.ops turns this into a ValueError.
      std::ostringstream message;
      message << op << ": box " << k << " has batch index " << image << ", but the input holds " << images
              << " image(s)";
      throw std::invalid_argument(message.str());
    }
  }
  return checked;
}

// Of maps with pixels, if there are RoIs, and bins; rows and columns of both are counted in int32.
inline RoiShape checked_shape(const char* op, const Tensor& rois, int64_t images, int64_t channels, int64_t height,
                              int64_t width, int64_t pooled_height, int64_t pooled_width) {
  for (const int64_t size : {images, channels, height, width, pooled_height, pooled_width})
    STD_TORCH_CHECK(size >= 0 && size <= INT32_MAX, op, ": expected sizes below 2^31, got ", size);
  STD_TORCH_CHECK(rois.size(0) == 0 || (height > 0 && width > 0), op, ": expected maps with pixels");
  return {channels, height, width, int32_t(pooled_height), int32_t(pooled_width)};
}

// Where a RoI is. Sorted, those of an image follow each other, band of rows by band and from left to right, so that
// neighbours find their pixels in the cache.
struct RoiPlace {
  int64_t image;
  int32_t band, left;
  int64_t roi;

  RoiPlace() = default;
  RoiPlace(int64_t image, int32_t top, int32_t left, int64_t roi)
      : image(image), band(top / kRoiBand), left(left), roi(roi) {}
  auto operator<=>(const RoiPlace&) const = default;
};

// Calls body(image, first channel, channels, RoIs, scratch) for every image and block of channels, in parallel. Where
// that makes too few tasks to share out, the RoIs of an image are split too, into at most max_runs. There may be none.
template <typename A, typename Body>
void share_out(const std::vector<RoiPlace>& sorted, int64_t images, int64_t channels, int64_t block, int64_t max_runs,
               int64_t scratch_size, const Body& body) {
  std::vector<int64_t> begin(images + 1);
  for (const RoiPlace& place : sorted) ++begin[place.image + 1];
  for (int64_t i = 0; i < images; ++i) begin[i + 1] += begin[i];
  const int64_t blocks = (channels + block - 1) / block;
  const int64_t wanted = 4 * int64_t(torch::stable::get_num_threads());
  const int64_t tasks = std::max<int64_t>(blocks * images, 1);
  const int64_t runs = std::max<int64_t>(std::min(max_runs, tasks >= wanted ? 1 : (wanted + tasks - 1) / tasks), 1);
  torch::stable::parallel_for(0, blocks * images * runs, 1, [&](int64_t first_task, int64_t end_task) {
    const auto scratch = std::make_unique_for_overwrite<A[]>(scratch_size);
    for (int64_t task = first_task; task < end_task; ++task) {
      const int64_t image = task / (blocks * runs), c = task / runs % blocks * block, run = task % runs;
      const int64_t first = begin[image], count = begin[image + 1] - first;
      const std::span rois(sorted.data() + first + count * run / runs,
                           sorted.data() + first + count * (run + 1) / runs);
      body(image, c, std::min(block, channels - c), rois, scratch.get());
    }
  });
}

}  // namespace fastcnn
