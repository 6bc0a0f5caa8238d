#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "../common/roi_geometry.h"
#include "../common/tensor.h"
#include "roi_align_kernel.h"

namespace fastcnn {
namespace {

constexpr size_t kCopyBytes = 1 << 20;  // What planes copied side by side may take of L2.

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
    const auto clamp = [&](A i) { return i > A(0) ? i < A(axis.grid) ? int(i) : axis.grid : 0; };  // NaN gives 0.
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

// The plans of all RoIs, their order by image, and where in it each image's begin.
template <typename A>
struct Plans {
  std::vector<OwnedPlan<A>> owned;
  std::vector<RoiPlan<A>> views;
  std::vector<int64_t> order, image_begin;
};

template <typename A>
Plans<A> make_plans(const char* op, const Tensor& rois, int64_t images, const RoiShape& shape, double spatial_scale,
                    int64_t sampling_ratio, bool aligned) {
  constexpr auto dtype = std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float;
  // fastcnn.ops says so better; who calls the op itself must not read past the end.
  STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 5, op, ": expected boxes [K, 5]");
  const Tensor boxes = contiguous_as(rois, dtype);
  const auto* data = static_cast<const A*>(boxes.const_data_ptr());
  const int64_t count = boxes.size(0);
  for (int64_t k = 0; k < count; ++k) {
    const A image = data[5 * k];
    // Truncated towards zero as torchvision does it. fastcnn.ops turns this into a ValueError.
    if (!(image > A(-1) && image < A(images))) {
      std::ostringstream message;
      message << op << ": box " << k << " has batch index " << image << ", but the input holds " << images
              << " image(s)";
      throw std::invalid_argument(message.str());
    }
  }
  Plans<A> plans{std::vector<OwnedPlan<A>>(count), std::vector<RoiPlan<A>>(count), {}, {}};
  const int ratio = int(std::clamp<int64_t>(sampling_ratio, 0, kMaxRoiGrid));
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
    return std::pair(plans.owned[a].image, plans.owned[a].top()) <
           std::pair(plans.owned[b].image, plans.owned[b].top());
  });
  plans.image_begin.assign(images + 1, 0);
  for (const auto& roi : plans.owned) ++plans.image_begin[roi.image + 1];
  std::partial_sum(plans.image_begin.begin(), plans.image_begin.end(), plans.image_begin.begin());
  return plans;
}

// Calls body(image, first channel, channels, RoIs, scratch) for every image and block of channels, in parallel. Where
// that makes too few tasks to share out, the RoIs of an image are split too, into at most max_runs.
template <typename A, typename Body>
void share_out(const Plans<A>& plans, const RoiShape& shape, int64_t block, int64_t max_runs, const Body& body,
               int64_t more_scratch = 0) {
  const int64_t blocks = (shape.channels + block - 1) / block, images = int64_t(plans.image_begin.size()) - 1;
  const int64_t wanted = 4 * int64_t(torch::stable::get_num_threads());
  const int64_t tasks = std::max<int64_t>(blocks * images, 1);
  const int64_t runs = std::max<int64_t>(std::min(max_runs, tasks >= wanted ? 1 : (wanted + tasks - 1) / tasks), 1);
  torch::stable::parallel_for(0, blocks * images * runs, 1, [&](int64_t begin, int64_t end) {
    const auto scratch = std::make_unique_for_overwrite<A[]>(roi_align_scratch(shape) + more_scratch);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / (blocks * runs), c = task / runs % blocks * block, run = task % runs;
      const int64_t first = plans.image_begin[image], count = plans.image_begin[image + 1] - first;
      const std::span rois(plans.order.data() + first + count * run / runs,
                           plans.order.data() + first + count * (run + 1) / runs);
      body(image, c, std::min(block, shape.channels - c), rois, scratch.get());
    }
  });
}

// Planes are read in runs of columns, of which a wide RoI uses a few each; side by side, a cache line holds nothing but
// what is used, at the price of moving every pixel once. Counted in cache lines, moving costs about a third of a line a
// pixel.
template <typename A>
bool interleaving_pays(const Plans<A>& plans, const RoiShape& shape) {
  double lines = 0, pixels = 0;
  for (const auto& roi : plans.owned) {
    const double rows = double(roi.row_index.size());
    lines += rows * std::min<double>(double(roi.columns.size()) / 2, double(shape.width) / 16 + 1);
    pixels += rows * double(roi.columns.size());
  }
  return lines > double(plans.image_begin.size() - 1) * double(shape.height * shape.width) / 3 + pixels / 16;
}

Tensor roi_align_cpu(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                     int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  const int64_t count = rois.size(0), images = x.size(0);
  const RoiShape shape{x.size(1), x.size(2), x.size(3), int32_t(pooled_height), int32_t(pooled_width)};
  Tensor out = empty_4d(x, count, shape.channels, pooled_height, pooled_width, channels_last);
  const int64_t bins = pooled_height * pooled_width, pixels = shape.height * shape.width;
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "roi_align", {
    using A = acc_t<scalar_t>;
    const auto plans = make_plans<A>("roi_align", rois, images, shape, spatial_scale, sampling_ratio, aligned);
    const auto* from = static_cast<const scalar_t*>(x.const_data_ptr());
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    if (channels_last) {
      const auto kernel = FASTCNN_SELECT(roi_align_channels_last<scalar_t>);
      share_out<A>(plans, shape, kRoiAlignBlock, count,
                   [&](int64_t image, int64_t c, int64_t n, auto rois, A* scratch) {
                     for (int64_t k : rois)
                       kernel(from + image * shape.channels * pixels + c, n, plans.views[k], shape,
                              to + k * shape.channels * bins + c, scratch);
                   });
    } else if (interleaving_pays(plans, shape)) {
      const auto interleave = FASTCNN_SELECT(interleave_planes<scalar_t>);
      const auto kernel = FASTCNN_SELECT(roi_align_interleaved<scalar_t>);
      const int side_by_side =
          pixels * kRoiAlignBlock * sizeof(scalar_t) <= kCopyBytes ? kRoiAlignBlock : kRoiAlignGroup;
      const auto body = [&](int64_t image, int64_t c, int64_t n, auto rois, A* scratch) {
        if (rois.empty()) return;
        auto* copy = reinterpret_cast<scalar_t*>(scratch + roi_align_scratch(shape));
        interleave(from + (image * shape.channels + c) * pixels, n, pixels, side_by_side, copy);
        for (int64_t k : rois)
          kernel(copy, n, side_by_side, plans.views[k], shape, to + (k * shape.channels + c) * bins, scratch);
      };
      share_out<A>(plans, shape, side_by_side, 1, body, pixels * side_by_side);
    } else {
      const auto kernel = FASTCNN_SELECT(roi_align_planes<scalar_t>);
      share_out<A>(plans, shape, kRoiAlignGroup, count,
                   [&](int64_t image, int64_t c, int64_t n, auto rois, A* scratch) {
                     for (int64_t k : rois)
                       kernel(from + (image * shape.channels + c) * pixels, n, plans.views[k], shape,
                              to + (k * shape.channels + c) * bins, scratch);
                   });
    }
  });
  return out;
}

Tensor roi_align_backward_cpu(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t sampling_ratio,
                              bool aligned, std::vector<int64_t> input_size, bool channels_last) {
  const int64_t images = input_size[0];
  const RoiShape shape{input_size[1], input_size[2], input_size[3], int32_t(grad.size(2)), int32_t(grad.size(3))};
  const Tensor g =
      torch::stable::contiguous(grad, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  const int64_t bins = grad.size(2) * grad.size(3), pixels = shape.height * shape.width;
  Tensor out = empty_4d(grad, images, shape.channels, shape.height, shape.width, channels_last);
  FASTCNN_DISPATCH_FLOATING(grad.scalar_type(), "roi_align_backward", {
    using A = acc_t<scalar_t>;
    const auto plans = make_plans<A>("roi_align_backward", rois, images, shape, spatial_scale, sampling_ratio, aligned);
    const auto* from = static_cast<const scalar_t*>(g.const_data_ptr());
    // A task owns its channels of an image and takes the RoIs in order: the sum does not depend on the threads.
    if (channels_last) {
      const auto kernel = FASTCNN_SELECT(roi_align_channels_last_backward<scalar_t>);
      // 16-bit gradients are summed in float and rounded once.
      Tensor sum = std::is_same_v<A, scalar_t>
                       ? out
                       : empty_4d(grad, images, shape.channels, shape.height, shape.width, true, ScalarType::Float);
      torch::stable::zero_(sum);
      auto* to = static_cast<A*>(sum.mutable_data_ptr());
      share_out<A>(plans, shape, kRoiAlignBlock, 1, [&](int64_t image, int64_t c, int64_t n, auto rois, A* scratch) {
        for (int64_t k : rois)
          kernel(from + k * shape.channels * bins + c, n, plans.views[k], shape,
                 to + image * shape.channels * pixels + c, scratch);
      });
      if (!std::is_same_v<A, scalar_t>) out = torch::stable::copy_(out, sum);
    } else {
      const auto kernel = FASTCNN_SELECT(roi_align_interleaved_backward<scalar_t>);
      const auto separate = FASTCNN_SELECT(separate_planes<scalar_t>);
      auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
      const int side_by_side = pixels * kRoiAlignBlock * sizeof(A) <= kCopyBytes ? kRoiAlignBlock : kRoiAlignGroup;
      const auto body = [&](int64_t image, int64_t c, int64_t n, auto rois, A* scratch) {
        A* sum = scratch + roi_align_scratch(shape);
        std::fill_n(sum, rois.empty() ? 0 : pixels * side_by_side, A(0));
        for (int64_t k : rois)
          kernel(from + (k * shape.channels + c) * bins, n, side_by_side, plans.views[k], shape, sum, scratch);
        auto* planes = to + (image * shape.channels + c) * pixels;
        if (rois.empty())
          std::fill_n(planes, n * pixels, scalar_t{});
        else
          separate(sum, n, pixels, side_by_side, planes);
      };
      share_out<A>(plans, shape, side_by_side, 1, body, (pixels + kRoiAlignBlock) * side_by_side);
    }
  });
  return out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&fastcnn::roi_align_cpu));
  m.impl("roi_align_backward", TORCH_BOX(&fastcnn::roi_align_backward_cpu));
}
