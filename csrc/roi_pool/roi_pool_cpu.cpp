#include "../common/rois.h"
#include "roi_pool_geometry.h"
#include "roi_pool_kernel.h"

namespace fastcnn {
namespace {

template <typename A>
void bin_bounds(A low, A high, A scale, int32_t bins, int64_t size, int32_t* bounds) {
  const PoolAxis<A> axis = pool_axis(low, high, scale, bins);
  for (int32_t b = 0; b < bins; ++b) {
    const PoolBin pixels = pool_bin(axis, b, int(size));
    bounds[2 * b] = pixels.begin;
    bounds[2 * b + 1] = pixels.end;
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
        places[k] = {rois.image(k), rows[0], rows[2 * shape.pooled_height], k};
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

// The channels of one image side by side: as they are, or copied once for all RoIs, or anew for each.
template <typename T>
class SideBySide {
 public:
  enum class Mode { as_they_are, copy_once, copy_each };

  // For `n` channels of an image from `from` on; `copy` has room for `stride` of every pixel.
  SideBySide(Mode mode, const T* from, int64_t n, const RoiShape& shape, bool channels_last, int stride, T* copy)
      : mode_(mode), from_(from), n_(n), shape_(shape), channels_last_(channels_last), stride_(stride), copy_(copy) {
    if (mode == Mode::copy_once) copy_part(0, shape.height, 0, shape.width);
  }

  ChannelsOfMap<T> of(const RoiBins& roi) const {
    if (mode_ == Mode::as_they_are) return {from_, shape_.width * shape_.channels, shape_.channels};
    if (mode_ == Mode::copy_once) return {copy_, shape_.width * stride_, stride_};
    const Window w(roi, shape_);
    copy_part(w.y, w.rows, w.x, w.cols);
    return {copy_ - (w.y * w.cols + w.x) * stride_, w.cols * stride_, stride_};
  }

 private:
  void copy_part(int64_t y, int64_t rows, int64_t x, int64_t cols) const {
    FASTCNN_SELECT(roi_pool_copy<T>)(from_, n_, shape_, channels_last_, y, rows, x, cols, stride_, copy_);
  }

  Mode mode_;
  const T* from_;
  int64_t n_;
  const RoiShape& shape_;
  bool channels_last_;
  int stride_;
  T* copy_;
};

// Whether the RoIs together read more pixels than the maps have.
bool read_all(const PoolPlans& plans, int64_t images) {
  int64_t read = 0;
  for (const RoiPlace& place : plans.places) {
    const Window window(plans[place.roi], plans.shape);
    read += window.rows * window.cols;
  }
  return read > images * plans.shape.pixels();
}

// Where channel c of an item begins, of `each` pixels or bins a channel.
int64_t offset(int64_t item, int64_t c, const RoiShape& shape, int64_t each, bool channels_last) {
  return channels_last ? item * shape.channels * each + c : (item * shape.channels + c) * each;
}

template <typename T>
void pool_all(const T* maps, int64_t images, const PoolPlans& plans, bool channels_last, T* out) {
  using A = acc_t<T>;
  using Mode = typename SideBySide<T>::Mode;
  const RoiShape& shape = plans.shape;
  const int64_t pixels = shape.pixels(), bins = shape.bins(), scratch_size = roi_pool_scratch(shape);
  const bool once = !channels_last && read_all(plans, images);
  const Mode mode = channels_last ? Mode::as_they_are : once ? Mode::copy_once : Mode::copy_each;
  const bool wide = channels_last || (once && pixels * kRoiBlock * int64_t(sizeof(T)) <= kRoiCopyBytes);
  const int block = wide ? kRoiBlock : kRoiGroup;
  const auto kernel = FASTCNN_SELECT(roi_pool<T>);
  share_out<A>(plans.places, images, shape.channels, block, once ? 1 : int64_t(plans.places.size()),
               scratch_size + (channels_last ? 0 : pixels * block),
               [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                 if (places.empty()) return;
                 const SideBySide<T> map(mode, maps + offset(image, c, shape, pixels, channels_last), n, shape,
                                         channels_last, block, reinterpret_cast<T*>(scratch + scratch_size));
                 for (const RoiPlace& place : places) {
                   const RoiBins roi = plans[place.roi];
                   kernel(map.of(roi), n, roi, shape, channels_last,
                          out + offset(place.roi, c, shape, bins, channels_last), scratch);
                 }
               });
}

template <typename T>
void give_back_all(const acc_t<T>* grad, const T* maps, int64_t images, const PoolPlans& plans, bool channels_last,
                   T* grad_maps) {
  using A = acc_t<T>;
  using Mode = typename SideBySide<T>::Mode;
  const RoiShape& shape = plans.shape;
  const int64_t pixels = shape.pixels(), bins = shape.bins(), of_roi = bins * kRoiGroup, map_size = pixels * kRoiGroup;
  // Planes: so many RoIs at a time that their places stay in L2, and a plane of sums in L1 for all of them.
  const int64_t together = channels_last ? 1 : std::clamp<int64_t>(2048 / bins, 1, 32);
  const Mode mode = read_all(plans, images) ? Mode::copy_once : channels_last ? Mode::as_they_are : Mode::copy_each;
  const auto search = FASTCNN_SELECT(roi_pool_search<T>);
  const auto planes_of_places = FASTCNN_SELECT(roi_pool_planes_of_places);
  const auto add_to_plane = FASTCNN_SELECT(roi_pool_add_to_plane<A>);
  const auto add_to_pixels = FASTCNN_SELECT(roi_pool_add_to_pixels<A>);
  const auto store = FASTCNN_SELECT(roi_pool_store<T>);
  // A task owns its channels of an image and takes the RoIs in order: the sum does not depend on the threads.
  share_out<A>(plans.places, images, shape.channels, kRoiGroup, 1,
               2 * map_size + (1 + together) * of_roi + 3 * kRoiGroup * kRoiGroup,
               [&](int64_t image, int64_t c, int64_t n, auto places, A* scratch) {
                 A *sum = scratch + kRoiGroup, *copy = sum + map_size;
                 auto* found = reinterpret_cast<int32_t*>(copy + map_size + kRoiGroup);
                 int32_t* planes = found + of_roi + kRoiGroup * kRoiGroup;
                 std::fill(sum, sum + map_size, A(0));
                 const int64_t first = offset(image, c, shape, pixels, channels_last);
                 const SideBySide<T> map(places.empty() ? Mode::as_they_are : mode, maps + first, n, shape,
                                         channels_last, kRoiGroup, reinterpret_cast<T*>(copy));
                 for (size_t begin = 0; begin < places.size(); begin += together) {
                   const auto some = places.subspan(begin, std::min<size_t>(together, places.size() - begin));
                   for (size_t i = 0; i < some.size(); ++i) {
                     const RoiBins roi = plans[some[i].roi];
                     search(map.of(roi), n, roi, shape, found);
                     if (channels_last)
                       add_to_pixels(grad + offset(some[i].roi, c, shape, bins, true), found, n, shape, sum);
                     else
                       planes_of_places(found, n, bins, planes + i * of_roi);
                   }
                   for (int64_t channel = 0; !channels_last && channel < n; ++channel)
                     for (size_t i = 0; i < some.size(); ++i)
                       add_to_plane(grad + offset(some[i].roi, c, shape, bins, false) + channel * bins,
                                    planes + i * of_roi + channel * bins, bins, sum + channel * pixels);
                 }
                 store(sum, n, shape, channels_last, grad_maps + first);
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
    const PoolPlans plans(checked_rois<acc_t<scalar_t>>("roi_pool", rois, x.size(0)), shape, spatial_scale);
    pool_all(static_cast<const scalar_t*>(x.const_data_ptr()), x.size(0), plans, channels_last,
             static_cast<scalar_t*>(out.mutable_data_ptr()));
  });
  return out;
}

Tensor roi_pool_backward_cpu(const Tensor& grad, const Tensor& input, const Tensor& rois, double spatial_scale) {
  STD_TORCH_CHECK(input.dim() == 4 && grad.dim() == 4 && grad.size(0) == rois.size(0) &&
                      grad.size(1) == input.size(1) && grad.size(2) > 0 && grad.size(3) > 0 &&
                      grad.scalar_type() == input.scalar_type(),
                  "roi_pool_backward: expected input [N, C, H, W] and a gradient [K, C, height, width] of its dtype");
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input);
  const RoiShape shape{x.size(1), x.size(2), x.size(3), int32_t(grad.size(2)), int32_t(grad.size(3))};
  STD_TORCH_CHECK(shape.pixels() < INT32_MAX / kRoiGroup, "roi_pool_backward: a map of more than 2**27 pixels");
  Tensor out = empty_4d(x, x.size(0), x.size(1), x.size(2), x.size(3), channels_last);
  const auto wide = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const Tensor g = torch::stable::contiguous(grad.scalar_type() == wide ? grad : torch::stable::to(grad, wide),
                                             channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  FASTCNN_DISPATCH_FLOATING(x.scalar_type(), "roi_pool_backward", {
    using A = acc_t<scalar_t>;
    const PoolPlans plans(checked_rois<A>("roi_pool_backward", rois, x.size(0)), shape, spatial_scale);
    give_back_all(static_cast<const A*>(g.const_data_ptr()), static_cast<const scalar_t*>(x.const_data_ptr()),
                  x.size(0), plans, channels_last, static_cast<scalar_t*>(out.mutable_data_ptr()));
  });
  return out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("roi_pool", TORCH_BOX(&fastcnn::roi_pool_cpu));
  m.impl("roi_pool_backward", TORCH_BOX(&fastcnn::roi_pool_backward_cpu));
}
