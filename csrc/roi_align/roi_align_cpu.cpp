#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/roi_geometry.h"
#include "../common/tensor.h"
#include "roi_align_kernel.h"

namespace fastcnn {
namespace {

constexpr int64_t kPlaneBytes = 1 << 20;  // Planes pooled together, so that all RoIs find them in L2.

// Appends the merged taps of one axis, their weights times `scale`, and the first tap of every bin.
template <typename A>
void append_axis(const RoiAxis<A>& axis, int bins, int size, A scale, std::vector<int32_t>& first,
                 std::vector<int32_t>& index, std::vector<A>& weight) {
  first.push_back(0);
  std::vector<std::pair<int32_t, A>> taps;
  for (int bin = 0; bin < bins; ++bin) {
    taps.clear();
    // A huge box has most of its samples off the map: only those that can be on it, and two to spare, are looked at.
    const A step = axis.grid > 0 ? axis.bin / A(axis.grid) : A(0), at = axis.start + A(bin) * axis.bin;
    const auto clamp = [&](A i) { return int(std::min(std::max(i, A(0)), A(axis.grid))); };
    const int begin = step > A(0) ? clamp((A(-1) - at) / step - A(2)) : 0;
    const int end = step > A(0) ? clamp((A(size) - at) / step + A(3)) : std::max(axis.grid, 0);
    taps.reserve(2 * std::max(end - begin, 0));
    for (int sample = begin; sample < end; ++sample) {
      const RoiTap<A> tap = roi_tap(axis, bin, sample, size);
      if (!tap.inside) continue;
      taps.emplace_back(tap.low, tap.w_low * scale);
      taps.emplace_back(tap.high, tap.w_high * scale);
    }
    std::stable_sort(taps.begin(), taps.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const size_t bin_begin = weight.size();
    for (const auto& [pixel, w] : taps) {
      if (weight.size() > bin_begin && index.back() == pixel) {
        weight.back() += w;
      } else {
        index.push_back(pixel);
        weight.push_back(w);
      }
    }
    first.push_back(int32_t(weight.size()));
  }
}

// The plan of one RoI and the memory it points into.
template <typename A>
struct OwnedPlan {
  int64_t image = 0;
  std::vector<int32_t> row_first, row_index, col_first, col_index, columns;
  std::vector<A> row_weight, col_weight;

  OwnedPlan() = default;
  OwnedPlan(const A* roi, const RoiShape& shape, A spatial_scale, int sampling_ratio, bool aligned)
      : image(int64_t(roi[0])) {
    const auto x = roi_axis(roi[1], roi[3], spatial_scale, aligned, shape.pooled_width, sampling_ratio);
    const auto y = roi_axis(roi[2], roi[4], spatial_scale, aligned, shape.pooled_height, sampling_ratio);
    const A count = A(std::max(x.grid, 0)) * A(std::max(y.grid, 0));
    append_axis(y, shape.pooled_height, int(shape.height), A(1) / std::max(count, A(1)), row_first, row_index,
                row_weight);
    append_axis(x, shape.pooled_width, int(shape.width), A(1), col_first, col_index, col_weight);
    columns = col_index;
    std::sort(columns.begin(), columns.end());
    columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
  }

  int32_t top() const { return row_index.empty() ? 0 : row_index.front(); }

  RoiPlan<A> view() const {
    return {{row_first.data(), row_index.data(), row_weight.data()},
            {col_first.data(), col_index.data(), col_weight.data()},
            columns.data(),
            int32_t(columns.size()),
            columns.empty() ? 0 : columns.front(),
            columns.empty() ? 0 : columns.back() + 1};
  }
};

// The plans of all RoIs, and their order by image.
template <typename A>
struct Plans {
  std::vector<OwnedPlan<A>> owned;
  std::vector<RoiPlan<A>> views;
  std::vector<int64_t> order;
};

template <typename A>
Plans<A> make_plans(const char* op, const Tensor& rois, int64_t images, const RoiShape& shape, double spatial_scale,
                    int64_t sampling_ratio, bool aligned) {
  constexpr auto dtype = std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float;
  const Tensor boxes = torch::stable::contiguous(torch::stable::to(rois, dtype));
  const auto* data = static_cast<const A*>(boxes.const_data_ptr());
  const int64_t count = boxes.size(0);
  for (int64_t k = 0; k < count; ++k) {
    const A image = data[5 * k];
    // Truncated towards zero as torchvision does it. fastcnn.ops turns this into a ValueError.
    if (!(image > A(-1) && image < A(images)))
      throw std::invalid_argument(std::string(op) + ": box " + std::to_string(k) + " has batch index " +
                                  std::to_string(image) + ", but the input holds " + std::to_string(images) +
                                  " image(s)");
  }
  Plans<A> plans{std::vector<OwnedPlan<A>>(count), std::vector<RoiPlan<A>>(count), {}};
  const int ratio = int(std::min<int64_t>(sampling_ratio, kMaxRoiGrid));
  torch::stable::parallel_for(0, count, 64, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      plans.owned[k] = OwnedPlan<A>(data + 5 * k, shape, A(spatial_scale), ratio, aligned);
      plans.views[k] = plans.owned[k].view();
    }
  });
  plans.order.resize(count);
  std::iota(plans.order.begin(), plans.order.end(), int64_t(0));
  // By image and then by row, so that neighbours find their rows in the cache.
  std::stable_sort(plans.order.begin(), plans.order.end(), [&](int64_t a, int64_t b) {
    return std::pair(plans.owned[a].image, plans.owned[a].top()) < std::pair(plans.owned[b].image, plans.owned[b].top());
  });
  return plans;
}

Tensor roi_align_cpu(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                     int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  const int64_t count = rois.size(0), images = x.size(0);
  const RoiShape shape{x.size(1), x.size(2), x.size(3), int32_t(pooled_height), int32_t(pooled_width)};
  Tensor out = empty_4d(x, count, shape.channels, pooled_height, pooled_width, channels_last);
  const int64_t bins = pooled_height * pooled_width, pixels = shape.height * shape.width;
  const int64_t threads = torch::stable::get_num_threads();
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "roi_align", {
    using A = acc_t<scalar_t>;
    const auto plans = make_plans<A>("roi_align", rois, images, shape, spatial_scale, sampling_ratio, aligned);
    const auto planes_kernel = FASTCNN_SELECT(roi_align_planes<scalar_t>);
    const auto last_kernel = FASTCNN_SELECT(roi_align_channels_last<scalar_t>);
    const auto* from = static_cast<const scalar_t*>(x.const_data_ptr());
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    // A task is a block of channels and a run of RoIs; runs are split only where blocks alone are too few to share out.
    const int64_t fit = channels_last ? 256 : std::max<int64_t>(kPlaneBytes / (pixels * sizeof(scalar_t) + 1), 1);
    const int64_t block = std::min(std::min<int64_t>(fit, 256), std::max<int64_t>(shape.channels, 1));
    const int64_t blocks = (shape.channels + block - 1) / block;
    const int64_t runs = std::min(count, blocks >= 4 * threads ? 1 : 4 * threads / std::max<int64_t>(blocks, 1));
    torch::stable::parallel_for(0, blocks * runs, 1, [&](int64_t begin, int64_t end) {
      std::vector<A> scratch(roi_align_scratch(shape));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t c = task / runs * block, run = task % runs, n = std::min(block, shape.channels - c);
        for (int64_t i = count * run / runs; i < count * (run + 1) / runs; ++i) {
          const int64_t k = plans.order[i], image = plans.owned[k].image * shape.channels * pixels;
          if (channels_last)
            last_kernel(from + image + c, n, plans.views[k], shape, to + k * shape.channels * bins + c, scratch.data());
          else
            planes_kernel(from + image + c * pixels, n, plans.views[k], shape, to + (k * shape.channels + c) * bins,
                          scratch.data());
        }
      }
    });
  });
  return out;
}

Tensor roi_align_backward_cpu(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t sampling_ratio,
                              bool aligned, std::vector<int64_t> input_size, bool channels_last) {
  const int64_t images = input_size[0];
  const RoiShape shape{input_size[1], input_size[2], input_size[3], int32_t(grad.size(2)), int32_t(grad.size(3))};
  const Tensor g = torch::stable::contiguous(grad, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  const int64_t bins = grad.size(2) * grad.size(3), pixels = shape.height * shape.width;
  const bool wide = grad.scalar_type() == ScalarType::Double;
  // 16-bit gradients are summed in float and rounded once.
  Tensor sum = empty_4d(grad, images, shape.channels, shape.height, shape.width, channels_last,
                        wide ? ScalarType::Double : ScalarType::Float);
  torch::stable::zero_(sum);
  FASTCNN_DISPATCH_FLOATING(grad.scalar_type(), "roi_align_backward", {
    using A = acc_t<scalar_t>;
    const auto plans = make_plans<A>("roi_align_backward", rois, images, shape, spatial_scale, sampling_ratio, aligned);
    const auto planes_kernel = FASTCNN_SELECT(roi_align_planes_backward<scalar_t>);
    const auto last_kernel = FASTCNN_SELECT(roi_align_channels_last_backward<scalar_t>);
    const auto* from = static_cast<const scalar_t*>(g.const_data_ptr());
    auto* to = static_cast<A*>(sum.mutable_data_ptr());
    // A task owns its channels of all images and takes the RoIs in order: the sum does not depend on the threads.
    const int64_t fit = channels_last ? 64 : std::max<int64_t>(kPlaneBytes / (pixels * sizeof(A) + 1), 1);
    const int64_t block = std::min<int64_t>(fit, 64);
    torch::stable::parallel_for(0, (shape.channels + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
      std::vector<A> scratch(roi_align_scratch(shape));
      for (int64_t c = begin * block; c < std::min(end * block, shape.channels); c += block) {
        const int64_t n = std::min(block, shape.channels - c);
        for (int64_t k : plans.order) {
          const int64_t image = plans.owned[k].image * shape.channels * pixels;
          if (channels_last)
            last_kernel(from + k * shape.channels * bins + c, n, plans.views[k], shape, to + image + c, scratch.data());
          else
            planes_kernel(from + (k * shape.channels + c) * bins, n, plans.views[k], shape, to + image + c * pixels,
                          scratch.data());
        }
      }
    });
  });
  return torch::stable::to(sum, grad.scalar_type());
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&fastcnn::roi_align_cpu));
  m.impl("roi_align_backward", TORCH_BOX(&fastcnn::roi_align_backward_cpu));
}
