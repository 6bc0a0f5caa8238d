#pragma once

#include "../common/activation.h"
#include "../common/host_device.h"
#include "../common/isa.h"
#include "../common/storage.h"

namespace fastcnn {

constexpr int64_t kGemmLanes = 16;  // What a row of `b` and of the result must hold at least, if only as padding.

// out[i][j] = sum over p of a(i, p) * b(p, j), a(i, p) at a[i * a_row + p * a_step], row p of b at b + b_rows[p], row i
// of the result at out_rows[i]. Sums start from a bias, of the row or of the column or neither; what lies at the same
// place in a residual, if there is one, is added before the activation. With several segments there are `terms` to
// each, and a(i, p) begins anew `a_segment` further on in each. With a slope, below 0, ReLU is the leaky one.
template <typename A>
struct Gemm {
  int64_t rows, columns, terms;
  const A* a;
  int64_t a_row, a_step;
  const A* b;
  const int64_t* b_rows;
  const A* row_bias;
  const A* column_bias;
  Activation activation;
  const int64_t* out_rows;
  int64_t segments = 1, a_segment = 0;
  A slope = 0;
};

// Rows at rows.table[i], or `stride` apart where there is no table.
struct Rows {
  const int64_t* table;
  int64_t stride;
};
FASTCNN_HD int64_t row_at(const Rows& rows, int64_t i) { return rows.table ? rows.table[i] : i * rows.stride; }

// What a convolution slides over. Pixels of the source lie `spread` apart, with zeros between them: so it is with the
// gradient of a convolution with a stride.
struct Window {
  int64_t height, width, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, spread_h, spread_w;
};

// A packed plane holds, for every phase of the stride, the pixels that taps of this phase meet, row by row as those of
// the result: a tap is then a shift of the whole plane. There are `pitch` pixels to a row, the last ones too many.
struct Packing {
  int64_t phases_h, phases_w, rows, pitch, plane;
};
FASTCNN_HD int64_t phases(int64_t kernel, int64_t dilation, int64_t stride) {
  const int64_t reach = (kernel - 1) * dilation + 1;
  return reach < stride ? reach : stride;
}
FASTCNN_HD Packing packing(const Window& w, int64_t rows) {
  Packing p{phases(w.kernel_h, w.dilation_h, w.stride_h), phases(w.kernel_w, w.dilation_w, w.stride_w),
            rows + (w.kernel_h - 1) * w.dilation_h / w.stride_h,
            w.out_width + (w.kernel_w - 1) * w.dilation_w / w.stride_w, 0};
  p.plane = p.phases_h * p.phases_w * p.rows * p.pitch;
  return p;
}

// Every pixel of the source is one of the result.
FASTCNN_HD bool is_flat(const Window& w) {
  return w.kernel_h == 1 && w.kernel_w == 1 && w.stride_h == 1 && w.stride_w == 1 && w.pad_h == 0 && w.pad_w == 0 &&
         w.spread_h == 1 && w.spread_w == 1;
}

FASTCNN_FOR_EACH_ISA(
    template <typename T> void gemm(const Gemm<acc_t<T>>& g, T* out, const T* residual);
    // Adds to what is there; A only.
    template <typename A> void gemm_accumulate(const Gemm<A>& g, A* out);
    template <typename From, typename To> void convert(const From* from, To* to, int64_t n);
    // to[to_rows[j] + i] = from[from_rows[i] + j] for i of `rows` and j of `columns`.
    template <typename From, typename To>
    void transpose_into(const From* from, Rows from_rows, int64_t rows, int64_t columns, To* to, Rows to_rows);
    // Packs what `rows` rows of the result from `y` on need of `channels` channels of an image. In NCHW, channel i is
    // the plane source[i] and goes to i * packed_plane; in NHWC, channel i goes to source[i].
    template <typename T> void pack_planes(const Window& window, int64_t y, int64_t rows, const T* image,
                                           bool channels_last, int64_t channels, const int64_t* source, acc_t<T>* to);)
}  // namespace fastcnn
