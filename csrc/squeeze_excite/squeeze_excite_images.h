#pragma once

// The passes of squeeze-and-excitation over the images, and how images and their parts become tasks.

#include <algorithm>
#include <memory>

#include "../common/tensor.h"
#include "linear_kernel.h"
#include "squeeze_excite_kernel.h"

namespace fastcnn {
namespace {

constexpr int64_t kGrain = 1 << 15;  // Elements, or multiply-adds, a thread must have for a second one to pay.
// Bytes of a result from which on it is written past the caches: with the input, and in training the gradients of both,
// it would not fit the last level, and lines would be read only to be overwritten.
constexpr int64_t kStream = 4 << 20;
constexpr int64_t kPlanes = 16;  // Planes, or rows of weights, to a task: a multiple of any vector's lanes.

struct Shape {
  int64_t images, channels, hidden, pixels;
  bool channels_last;
  // channels_last: an image is summed in chunks of pixels, and gone over in periods, whole numbers of vectors.
  int64_t period = 0, chunk = 0, chunks = 1;

  Shape(const Tensor& x, int64_t hidden, bool channels_last)
      : images(x.size(0)),
        channels(x.size(1)),
        hidden(hidden),
        pixels(x.size(2) * x.size(3)),
        channels_last(channels_last) {
    if (!channels_last) return;
    int64_t repeat = 16 / std::min<int64_t>(16, channels & -channels);
    repeat *= std::max<int64_t>(1, 128 / (repeat * channels));
    period = repeat * channels;
    chunks = std::max<int64_t>(1, (pixels * channels + kGrain - 1) / kGrain);
    chunk = ((pixels + chunks - 1) / chunks + repeat - 1) / repeat * repeat;
    chunks = (pixels + chunk - 1) / chunk;
  }
  int64_t image_size() const { return channels * pixels; }
  // What a forward pass keeps of an image for its gradient: means, hidden layer before its activation, gate.
  int64_t saved() const { return 2 * channels + hidden; }
};

// Some of the images, one after the other by one thread, or all of them, each step by all threads.
struct Batch {
  int64_t first, count;
  bool parallel;

  template <typename Body>
  void share_out(int64_t tasks, int64_t cost, const Body& body) const {
    if (parallel)
      torch::stable::parallel_for(0, tasks, std::max<int64_t>(1, kGrain / std::max<int64_t>(cost, 1)), body);
    else
      body(int64_t(0), tasks);
  }
};

// Calls body(batch). With many images a thread takes its own, as many at a time as make reading the weights worth it,
// and finds an image in its cache when it comes to it again.
template <typename Body>
void for_each_batch(const Shape& shape, const Body& body) {
  const int64_t threads = torch::stable::get_num_threads(), n = shape.images;
  if (n < 4 * threads && n % threads != 0) return body(Batch{0, n, true});
  const int64_t pays = 2 * shape.hidden / std::max<int64_t>(shape.pixels, 1) + 1;
  const int64_t together = std::clamp<int64_t>((pays + 3) / 4 * 4, pays == 1 ? 1 : 4, 16);
  torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += together)
      body(Batch{first, std::min(together, end - first), false});
  });
}

// sums[n][c] = factor * the sum over the pixels of x, or of x * y.
template <typename T>
void pool(const Shape& shape, const Batch& batch, const T* x, const T* y, acc_t<T> factor, Rows<acc_t<T>> sums) {
  using A = acc_t<T>;
  const auto at = [](const T* p, int64_t offset) { return p ? p + offset : nullptr; };
  if (!shape.channels_last) {
    const auto kernel = FASTCNN_SELECT(plane_sums<T>);
    const int64_t blocks = (shape.channels + kPlanes - 1) / kPlanes;
    batch.share_out(batch.count * blocks, kPlanes * shape.pixels, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t n = batch.first + task / blocks, c = task % blocks * kPlanes;
        const int64_t offset = (n * shape.channels + c) * shape.pixels;
        kernel(x + offset, at(y, offset), std::min(kPlanes, shape.channels - c), shape.pixels, factor,
               sums.at + n * sums.stride + c);
      }
    });
    return;
  }
  const auto kernel = FASTCNN_SELECT(pixel_sums<T>);
  const auto parts = std::make_unique_for_overwrite<A[]>(batch.count * shape.chunks * shape.channels);
  batch.share_out(batch.count * shape.chunks, shape.chunk * shape.channels, [&](int64_t begin, int64_t end) {
    const auto scratch = std::make_unique_for_overwrite<A[]>(shape.period);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = batch.first + task / shape.chunks, p = task % shape.chunks * shape.chunk;
      const int64_t offset = (n * shape.pixels + p) * shape.channels;
      kernel(x + offset, at(y, offset), shape.channels, std::min(shape.chunk, shape.pixels - p), shape.period,
             scratch.get(), parts.get() + task * shape.channels);
    }
  });
  for (int64_t i = 0; i < batch.count; ++i) {
    A* to = sums.at + (batch.first + i) * sums.stride;
    const A* from = parts.get() + i * shape.chunks * shape.channels;
    std::copy_n(from, shape.channels, to);
    for (int64_t chunk = 1; chunk < shape.chunks; ++chunk)
      for (int64_t c = 0; c < shape.channels; ++c) to[c] += from[chunk * shape.channels + c];
    for (int64_t c = 0; c < shape.channels; ++c) to[c] *= factor;
  }
}

// out = x * scale[n][c] + shift[n][c], the latter where it is not null.
template <typename T>
void scale_images(const Shape& shape, const Batch& batch, const T* x, Rows<const acc_t<T>> scale,
                  Rows<const acc_t<T>> shift, T* out) {
  using A = acc_t<T>;
  const bool streams = shape.images * shape.image_size() * int64_t(sizeof(T)) >= kStream;
  if (!shape.channels_last) {
    const auto kernel = FASTCNN_SELECT(scale_planes<T>);
    const int64_t blocks = (shape.channels + kPlanes - 1) / kPlanes;
    batch.share_out(batch.count * blocks, kPlanes * shape.pixels, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end;) {
        const int64_t i = task / blocks, last = std::min(end, (i + 1) * blocks);
        const int64_t n = batch.first + i, c = task % blocks * kPlanes;
        const int64_t count = std::min((last - i * blocks) * kPlanes, shape.channels) - c;
        const int64_t offset = (n * shape.channels + c) * shape.pixels;
        kernel(x + offset, count, shape.pixels, scale.at + n * scale.stride + c,
               shift.at ? shift.at + n * shift.stride + c : nullptr, streams, out + offset);
        task = last;
      }
    });
    return;
  }
  const auto kernel = FASTCNN_SELECT(scale_pixels<T>);
  batch.share_out(batch.count * shape.chunks, shape.chunk * shape.channels, [&](int64_t begin, int64_t end) {
    const auto periods = std::make_unique_for_overwrite<A[]>(2 * shape.period);
    const auto repeat = [&](const A* from, A* to) {
      for (int64_t i = 0; i < shape.period; i += shape.channels) std::copy_n(from, shape.channels, to + i);
    };
    int64_t filled = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = batch.first + task / shape.chunks, p = task % shape.chunks * shape.chunk;
      A* shifts = shift.at ? periods.get() + shape.period : nullptr;
      if (n != filled) {
        repeat(scale.at + n * scale.stride, periods.get());
        if (shifts) repeat(shift.at + n * shift.stride, shifts);
        filled = n;
      }
      const int64_t offset = (n * shape.pixels + p) * shape.channels;
      kernel(x + offset, std::min(shape.chunk, shape.pixels - p) * shape.channels, shape.period, periods.get(), shifts,
             streams, out + offset);
    }
  });
}

}  // namespace
}  // namespace fastcnn
