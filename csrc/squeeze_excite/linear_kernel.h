#pragma once

// The two small fully connected layers of squeeze-and-excitation, their gradients and activations. Vectors of several
// images lie `stride` numbers apart. Every sum is added up in an order that depends on its length alone.

#include "../common/isa.h"
#include "../common/storage.h"

namespace fastcnn {

enum class Activation { relu, silu, sigmoid, hardsigmoid };

template <typename A>
struct Rows {
  A* at;
  int64_t stride;
};

FASTCNN_FOR_EACH_ISA(
    // out[n][i] = bias[i] + sum over j < width of weight[i][j] * in[n][j], for i in [begin, end). bias may be null.
    template <typename T> void linear(const T* weight, const T* bias, int64_t width, int64_t begin, int64_t end,
                                      int64_t images, Rows<const acc_t<T>> in, Rows<acc_t<T>> out);
    // out[n][j] = factor * sum over i < rows of weight[i][j] * in[n][i], for j in [begin, end).
    template <typename T>
    void linear_transposed(const T* weight, int64_t rows, int64_t width, int64_t begin, int64_t end, int64_t images,
                           Rows<const acc_t<T>> in, acc_t<T> factor, Rows<acc_t<T>> out);
    // out[i][j] = sum over n of a[n][i] * b[n][j], for i in [begin, end) and j < width.
    template <typename T> void outer_sum(Rows<const acc_t<T>> a, Rows<const acc_t<T>> b, int64_t images, int64_t begin,
                                         int64_t end, int64_t width, T* out);
    template <typename A> void activate(Activation f, const A* in, int64_t n, A* out);
    // grad *= f', of its input (relu, silu) or its output (the gates).
    template <typename A> void activate_backward(Activation f, const A* of, int64_t n, A* grad);)
}  // namespace fastcnn
