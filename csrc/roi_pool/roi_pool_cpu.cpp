#include <cmath>

#include "../common/rois.h"
#include "roi_pool_kernel.h"

namespace fastcnn {
namespace {

// Boxes come from a network and may be huge: pixels this far outside any map stand for all beyond.
constexpr double kFar = 1 << 26;

// The pixels of every bin of one axis (Fast R-CNN, Girshick 2015, section 2.1, quantised as torchvision does it).
template <typename A>
void bin_bounds(A low, A high, A scale, int32_t bins, int64_t size, int32_t* bounds) {
  // Rounds half away from zero.
  const double first = std::round(double(low * scale)), last = std::round(double(high * scale));
  if (std::isnan(first) || std::isnan(last)) {
    std::fill(bounds, bounds + 2 * bins, 0);
    return;
  }
  const auto start = int64_t(std::clamp(first, -kFar, kFar)), end = int64_t(std::clamp(last, -kFar, kFar));
  const A step = A(std::max<int64_t>(end - start + 1, 1)) / A(bins);
  for (int32_t b = 0; b < bins; ++b) {
    bounds[2 * b] = int32_t(std::clamp<int64_t>(start + int64_t(std::floor(A(b) * step)), 0, size));
    bounds[2 * b + 1] = int32_t(std::clamp<int64_t>(start + int64_t(std::ceil(A(b + 1) * step)), 0, size));
  }
}

// The bins of all RoIs, and the RoIs in order.
struct PoolPlans {
  const RoiShape shape;
  std::vector<int32_t> bounds;
  std::vector<RoiPlace> places;

  template <typename A>
  PoolPlans(const Rois<A>& rois, const RoiShape& shape, double spatial_scale)
      : shape(shape), bounds(rois.count * per_roi()), places(rois.count) {
    torch::stable::parallel_for(0, rois.count, 256, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        int32_t* rows = bounds.data() + k * per_roi();
        bin_bounds(rois[k][2], rois[k][4], A(spatial_scale), shape.pooled_height, shape.height, rows);
        bin_bounds(rois[k][1], rois[k][3], A(spatial_scale), shape.pooled_width, shape.width,
                   rows + 2 * shape.pooled_height);
        places[k] = {rois.image(k), rows[0], k};
      }
    });
    std::sort(places.begin(), places.end());
  }

  RoiBins operator[](int64_t k) const {
    const int32_t *rows = bounds.data() + k * per_roi(), *cols = rows + 2 * shape.pooled_height;
    return {rows, cols, rows[0], cols[-1], cols[0], rows[per_roi() - 1]};
  }

 private:
  int64_t per_roi() const { return 2 * (int64_t(shape.pooled_height) + shape.pooled_width); }
};

// The part of the planes that a RoI reads, to be copied: as many columns as vectors take at once, if there are.
struct Window {
  int64_t y, rows, x, cols;

  Window(const RoiBins& roi, const RoiShape& shape) : y(roi.y_begin), rows(roi.y_end - roi.y_begin) {
    const int64_t wanted = (roi.x_end - roi.x_begin + kRoiGroup - 1) / kRoiGroup * kRoiGroup;
    cols = std::min(wanted, shape.width);
    x = std::min<int64_t>(roi.x_begin, shape.width - cols);
  }
};

// Calls body(map, first channel, channels, RoI, its bins, image, scratch), the channels of the map side by side: as
// they are, or copied once for all RoIs, or, where these read less than the map holds, for each.
template <typename T, typename Body>
void pool_all(const T* maps, int64_t images, const PoolPlans& plans, bool channels_last, bool split, const Body& body) {
  using A = acc_t<T>;
  const RoiShape& shape = plans.shape;
  const int64_t pixels = shape.pixels(), scratch_size = roi_pool_scratch(shape);
  const int64_t count = split ? int64_t(plans.places.size()) : 1;
  const auto with_map = [&](const ChannelsOfMap<T>& map, int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
    for (const RoiPlace& place : places) body(map, c, n, place.roi, plans[place.roi], image, scratch);
  };
  if (channels_last) {
    share_out<A>(plans.places, images, shape.channels, kRoiBlock, count, scratch_size,
                 [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                   const T* map = maps + image * shape.channels * pixels + c;
                   with_map({map, shape.width * shape.channels, shape.channels}, image, c, n, places, scratch);
                 });
    return;
  }
  const auto interleave = FASTCNN_SELECT(roi_pool_interleave<T>);
  int64_t read = 0;
  for (const RoiPlace& place : plans.places) {
    const Window window(plans[place.roi], shape);
    read += window.rows * window.cols;
  }
  if (read > images * pixels) {
    const int side_by_side = pixels * kRoiBlock * int64_t(sizeof(T)) <= kRoiCopyBytes ? kRoiBlock : kRoiGroup;
    share_out<A>(plans.places, images, shape.channels, side_by_side, 1, scratch_size + pixels * side_by_side,
                 [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                   auto* copy = reinterpret_cast<T*>(scratch + scratch_size);
                   interleave(maps + (image * shape.channels + c) * pixels, n, shape, 0, shape.height, 0, shape.width,
                              side_by_side, copy);
                   with_map({copy, shape.width * side_by_side, side_by_side}, image, c, n, places, scratch);
                 });
    return;
  }
  share_out<A>(plans.places, images, shape.channels, kRoiGroup, count, scratch_size + pixels * kRoiGroup,
               [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                 auto* copy = reinterpret_cast<T*>(scratch + scratch_size);
                 const T* planes = maps + (image * shape.channels + c) * pixels;
                 for (const RoiPlace& place : places) {
                   const RoiBins roi = plans[place.roi];
                   const Window w(roi, shape);
                   interleave(planes, n, shape, w.y, w.rows, w.x, w.cols, kRoiGroup, copy);
                   const T* origin = copy - (w.y * w.cols + w.x) * kRoiGroup;
                   body({origin, w.cols * kRoiGroup, kRoiGroup}, c, n, place.roi, roi, image, scratch);
                 }
               });
}

Tensor roi_pool_cpu(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                    int64_t pooled_width) {
  STD_TORCH_CHECK(input.dim() == 4 && pooled_height > 0 && pooled_width > 0,
                  "roi_pool: expected input [N, C, H, W] and a positive output size");
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  const RoiShape shape{x.size(1), x.size(2), x.size(3), int32_t(pooled_height), int32_t(pooled_width)};
  Tensor out = empty_4d(x, rois.size(0), x.size(1), pooled_height, pooled_width, channels_last);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "roi_pool", {
    using A = acc_t<scalar_t>;
    const PoolPlans plans(checked_rois<A>("roi_pool", rois, x.size(0)), shape, spatial_scale);
    const auto kernel = FASTCNN_SELECT(roi_pool<scalar_t>);
    auto* to = static_cast<scalar_t*>(out.mutable_data_ptr());
    const auto body = [&](const ChannelsOfMap<scalar_t>& map, int64_t c, int64_t n, int64_t k, const RoiBins& roi,
                          int64_t, A* scratch) {
      scalar_t* first =
          to + (channels_last ? k * shape.channels * shape.bins() + c : (k * shape.channels + c) * shape.bins());
      kernel(map, n, roi, shape, channels_last, first, scratch);
    };
    pool_all(static_cast<const scalar_t*>(x.const_data_ptr()), x.size(0), plans, channels_last, true, body);
  });
  return out;
}

Tensor roi_pool_backward_cpu(const Tensor& grad, const Tensor& input, const Tensor& rois, double spatial_scale) {
  STD_TORCH_CHECK(input.dim() == 4 && grad.dim() == 4 && grad.size(0) == rois.size(0) &&
                      grad.size(1) == input.size(1) && grad.scalar_type() == input.scalar_type(),
                  "roi_pool_backward: expected input [N, C, H, W] and a gradient [K, C, height, width] of its dtype");
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  const RoiShape shape{x.size(1), x.size(2), x.size(3), int32_t(grad.size(2)), int32_t(grad.size(3))};
  STD_TORCH_CHECK(shape.pixels() <= INT32_MAX, "roi_pool_backward: a map of more than 2**31 pixels");
  Tensor sum = zeros_to_sum(x, {x.size(0), x.size(1), x.size(2), x.size(3)}, channels_last);
  const auto wide = sum.scalar_type();
  const Tensor g = torch::stable::contiguous(grad.scalar_type() == wide ? grad : torch::stable::to(grad, wide),
                                             channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "roi_pool_backward", {
    using A = acc_t<scalar_t>;
    const PoolPlans plans(checked_rois<A>("roi_pool_backward", rois, x.size(0)), shape, spatial_scale);
    const auto kernel = FASTCNN_SELECT(roi_pool_backward<scalar_t>);
    const auto* from = static_cast<const A*>(g.const_data_ptr());
    auto* to = static_cast<A*>(sum.mutable_data_ptr());
    const auto first = [&](int64_t item, int64_t c, int64_t each) {
      return channels_last ? item * shape.channels * each + c : (item * shape.channels + c) * each;
    };
    const auto body = [&](const ChannelsOfMap<scalar_t>& map, int64_t c, int64_t n, int64_t k, const RoiBins& roi,
                          int64_t image, A* scratch) {
      kernel(from + first(k, c, shape.bins()), map, n, roi, shape, channels_last, to + first(image, c, shape.pixels()),
             scratch);
    };
    // A task owns its channels of an image and takes all RoIs in order: the sum does not depend on the threads.
    pool_all(static_cast<const scalar_t*>(x.const_data_ptr()), x.size(0), plans, channels_last, false, body);
  });
  return sum.scalar_type() == x.scalar_type() ? sum : torch::stable::to(sum, x.scalar_type());
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("roi_pool", TORCH_BOX(&fastcnn::roi_pool_cpu));
  m.impl("roi_pool_backward", TORCH_BOX(&fastcnn::roi_pool_backward_cpu));
}
