"""NaN and infinity on a GPU: tests of tests/ops that say how far they spread, on another device."""

import pytest
import test_depthwise_conv2d as depthwise_tests
import test_grouped_conv2d_shuffle as grouped_tests
import test_local_response_norm as normalisation_tests
import test_softmax_focal_loss as softmax_tests
import test_squeeze_excite as squeeze_tests
import torch
from test_cuda_contract import DEVICE, on_gpu

from fastcnn.ops import _library

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch can use"),
]


@pytest.fixture(autouse=True)
def _our_kernels():
    with _library.kernel_mode():
        yield


test_grouped_conv2d_shuffle = on_gpu(grouped_tests.test_what_is_not_finite_stays_in_its_group)
test_local_response_norm = on_gpu(normalisation_tests.test_what_is_not_finite)
test_softmax_focal_loss = on_gpu(softmax_tests.test_what_is_not_finite)
test_gradient_of_a_depthwise_weight = on_gpu(
    depthwise_tests.test_the_gradient_of_the_weight_meets_no_pixel_beyond_a_tap
)


@pytest.mark.parametrize("layout", depthwise_tests.LAYOUTS)
@pytest.mark.parametrize("size, stride", [(3, 1), (5, 2)])
def test_depthwise_conv2d(size, stride, layout):
    test = depthwise_tests.test_what_is_not_finite_spreads_as_far_as_the_kernel
    test(size, stride, 7, torch.float32, layout, DEVICE)


def test_squeeze_excite():
    squeeze_tests.TestByHand().test_nan_and_infinite_pixels(_library.kernel_mode, DEVICE)
