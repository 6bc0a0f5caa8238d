#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "../common/loss.h"
#include "../common/tensor.h"
#include "softmax_focal_loss_kernel.h"

namespace fastcnn {
namespace {

// Whether scores [N, C, ...] lie dense in memory in the order N, ..., C.
bool classes_lie_last(const Tensor& x) {
  int64_t stride = 1;
  const auto follows = [&](int64_t d) {
    const bool fits = x.size(d) <= 1 || x.stride(d) == stride;
    stride *= x.size(d);
    return fits;
  };
  bool last = follows(1);
  for (int64_t d = x.dim() - 1; d > 1; --d) last = follows(d) && last;
  return follows(0) && last;
}

struct Arguments {
  Tensor input, target;
  std::optional<Tensor> alpha;
  int64_t images, classes, pixels;  // Of an image.
  bool copied;
  bool rows;  // Whether the classes of a position lie side by side.
  int64_t counted, ignore_index;
  int64_t block,
      blocks;  // Positions of a block, and blocks of an image, or of all where rows go on from one to the next.

  Arguments(const char* op, const Tensor& x, const Tensor& y, const std::optional<Tensor>& weights,
            int64_t ignore_index)
      : ignore_index(ignore_index) {
    // fastcnn.ops says so better; who calls the op itself must not read past the end.
    STD_TORCH_CHECK(x.dim() >= 2 && y.dim() == x.dim() - 1 && y.scalar_type() == ScalarType::Long, op,
                    ": expected scores [N, C, ...] and int64 targets [N, ...]");
    for (int64_t d = 0; d < y.dim(); ++d)
      STD_TORCH_CHECK(y.size(d) == x.size(d == 0 ? 0 : d + 1), op,
                      ": expected scores [N, C, ...] and targets [N, ...]");
    images = x.size(0), classes = x.size(1), pixels = images > 0 ? y.numel() / images : 0;
    STD_TORCH_CHECK(classes < INT32_MAX, op, ": expected fewer classes");
    rows = classes_lie_last(x);
    copied = !rows && !x.is_contiguous();
    input = copied ? torch::stable::contiguous(x) : x;
    rows = rows || pixels == 1;
    target = contiguous_as(y, ScalarType::Long);
    if (weights) {
      STD_TORCH_CHECK(weights->dim() == 1 && weights->size(0) == classes, op, ": expected a weight for each class");
      alpha = contiguous_as(*weights, x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float);
    }
    counted = count_class_indices(op, target, 0, classes, ignore_index);
    // Of whole vectors, and not so large that it leaves the cache.
    block = std::clamp<int64_t>(kSoftmaxBlock / std::max<int64_t>(classes, 1) / 64 * 64, 64, kSoftmaxPositions);
    if (rows) pixels *= images, images = 1;
    blocks = (pixels + block - 1) / block;
  }

  template <typename T>
  SoftmaxFocal<acc_t<T>> focal(double gamma) const {
    return {alpha ? static_cast<const acc_t<T>*>(alpha->const_data_ptr()) : nullptr, acc_t<T>(gamma), ignore_index};
  }

  // Calls body(block's number, block, where its scores begin, where its targets do, scratch) in parallel.
  template <typename T, typename Body>
  void for_each_block(const Body& body) const {
    const auto* x = static_cast<const T*>(input.const_data_ptr());
    const auto* targets = static_cast<const int64_t*>(target.const_data_ptr());
    const int64_t grain = std::max<int64_t>((1 << 14) / std::max<int64_t>(block * classes, 1), 1);
    torch::stable::parallel_for(0, images * blocks, grain, [&](int64_t begin, int64_t end) {
      const auto scratch = std::make_unique_for_overwrite<acc_t<T>[]>(softmax_focal_scratch(block, classes));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t image = task / blocks, first = task % blocks * block, count = std::min(block, pixels - first);
        const int64_t at = rows ? first * classes : image * classes * pixels + first, y = image * pixels + first;
        const ScoreBlock<T> scores{
            x + at, count, classes, rows ? classes : 1, rows ? 1 : pixels, input.numel() - at, targets + y};
        body(task, scores, at, y, scratch.get());
      }
    });
  }
};

Tensor softmax_focal_loss_cpu(const Tensor& input, const Tensor& target, std::optional<Tensor> alpha, double gamma,
                              int64_t reduction, int64_t ignore_index) {
  const char* op = "softmax_focal_loss";
  const Arguments args(op, input, target, alpha, ignore_index);
  std::optional<Tensor> out;
  if (reduction == kNone) out = torch::stable::empty(target.sizes(), input.scalar_type());
  std::vector<double> sums(args.images * args.blocks);
  FASTCNN_DISPATCH_FLOATING(input.scalar_type(), op, {
    using A = acc_t<scalar_t>;
    const auto kernel = FASTCNN_SELECT(softmax_focal_loss<scalar_t>);
    const auto focal = args.focal<scalar_t>(gamma);
    auto* loss = out ? static_cast<scalar_t*>(out->mutable_data_ptr()) : nullptr;
    args.for_each_block<scalar_t>([&](int64_t task, const ScoreBlock<scalar_t>& block, int64_t, int64_t y, A* scratch) {
      sums[task] = kernel(block, focal, loss == nullptr ? nullptr : loss + y, scratch);
    });
  });
  if (out) return *out;
  const double sum = std::accumulate(sums.begin(), sums.end(), 0.0);
  return scalar_like(input, reduction == kMean ? sum / double(args.counted) : sum);
}

Tensor softmax_focal_loss_backward_cpu(const Tensor& grad, const Tensor& input, const Tensor& target,
                                       std::optional<Tensor> alpha, double gamma, int64_t reduction,
                                       int64_t ignore_index) {
  const char* op = "softmax_focal_loss_backward";
  const Arguments args(op, input, target, alpha, ignore_index);
  STD_TORCH_CHECK(grad.scalar_type() == input.scalar_type(), op, ": expected a gradient of the dtype of the input");
  STD_TORCH_CHECK(reduction != kNone ? grad.numel() == 1 : grad.dim() == target.dim(), op,
                  ": expected a gradient like the loss");
  for (int64_t d = 0; reduction == kNone && d < grad.dim(); ++d)
    STD_TORCH_CHECK(grad.size(d) == target.size(d), op, ": expected a gradient of the sizes of the loss");
  const auto uniform = uniform_value(grad);
  const Tensor g = uniform ? grad : contiguous_as(grad, grad.scalar_type());
  const double factor = uniform.value_or(1) / (reduction == kMean ? double(args.counted) : 1);
  const Tensor out = empty_laid_out_as(args.input);
  FASTCNN_DISPATCH_FLOATING(input.scalar_type(), op, {
    using A = acc_t<scalar_t>;
    const auto kernel = FASTCNN_SELECT(softmax_focal_loss_backward<scalar_t>);
    const auto focal = args.focal<scalar_t>(gamma);
    const auto* each = uniform ? nullptr : static_cast<const scalar_t*>(g.const_data_ptr());
    auto* grad_x = static_cast<scalar_t*>(out.mutable_data_ptr());
    const auto body = [&](int64_t, const ScoreBlock<scalar_t>& block, int64_t x, int64_t y, A* scratch) {
      kernel(block, focal, each == nullptr ? nullptr : each + y, A(factor), grad_x + x, scratch);
    };
    args.for_each_block<scalar_t>(body);
  });
  return args.copied ? laid_out_as(out, torch::stable::empty_like(input)) : out;
}

}  // namespace
}  // namespace fastcnn

STABLE_TORCH_LIBRARY_IMPL(fastcnn, CPU, m) {
  m.impl("softmax_focal_loss", TORCH_BOX(&fastcnn::softmax_focal_loss_cpu));
  m.impl("softmax_focal_loss_backward", TORCH_BOX(&fastcnn::softmax_focal_loss_backward_cpu));
}
