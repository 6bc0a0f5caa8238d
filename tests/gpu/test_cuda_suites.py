"""The tests that run on a GPU only, with a CPU in its place: that they test what they say, and that they can fail."""

import contextlib

import pytest
import test_cuda_contract as suite
import test_cuda_large as large
import torch

from fastcnn.ops import _library
from fastcnn.testing import graphs
from fastcnn.testing.specs import SPECS

NAMES = list(SPECS)
NCHW, NHWC = torch.contiguous_format, torch.channels_last
QUICK = ["channel_shuffle", "local_response_norm", "roi_align", "batched_nms_padded", "squeeze_excite"]


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch):
    def capture(run):
        """Replays by running again, into the results of the first time."""
        results = run()

        def replay():
            for held, new in zip(results, run(), strict=True):
                held.copy_(new)

        return results, replay

    for module in (suite, large):
        monkeypatch.setattr(module, "DEVICE", "cpu")
    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "no_waiting", contextlib.nullcontext)
    monkeypatch.setattr(large, "LIMIT", 1 << 21)
    monkeypatch.setattr(suite, "RUNS", 2)
    with _library.kernel_mode():
        yield


def first(name):
    return SPECS[name], SPECS[name].cases[0]


@pytest.mark.parametrize("layout", [NCHW, NHWC], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("name", NAMES)
def test_recorded_unwaiting_and_deterministic(name, layout):
    spec, case = first(name)
    suite.test_deterministic(spec, case, layout)
    if not spec.data_dependent:
        suite.test_never_waits_for_the_gpu(spec, case, layout)
        suite.test_as_a_cuda_graph(spec, case, layout)


@pytest.mark.parametrize("name", NAMES)
def test_contract_and_peers(name):
    spec, case = first(name)
    suite.test_values(spec, case, torch.float16)
    if spec.gradients:
        suite.test_gradients(spec, case, torch.float32, NHWC)
    if spec.peer:
        suite.test_peers_agree(spec, case, torch.float32)


@pytest.mark.parametrize("name", QUICK)
def test_opcheck_and_strides(name):
    suite.test_opcheck(*first(name), NCHW)
    suite.test_shapes_and_strides_are_as_said(*first(name))


def test_a_graph_that_holds_old_values_fails(monkeypatch):
    monkeypatch.setattr(graphs, "capture", lambda run: (run(), lambda: None))
    with pytest.raises(AssertionError):
        suite.test_as_a_cuda_graph(*first("local_response_norm"), NCHW)


def test_what_changes_between_runs_fails(monkeypatch):
    spec, case = first("local_response_norm")
    noisy = type(spec)(**{**vars(spec), "function": lambda x, *rest: x + torch.rand(())})
    with pytest.raises(AssertionError):
        suite.test_deterministic(noisy, case, NCHW)


def test_large_tensors():
    for layout in (NCHW, NHWC):
        large.test_maps(lambda x: x.sigmoid(), layout)
        large.test_depthwise_conv2d(2, layout)
        large.test_grouped_conv2d_shuffle(1, layout)
        large.test_grouped_conv2d_shuffle(3, layout)
        large.test_squeeze_excite(layout)
    large.test_sigmoid_focal_loss()
    large.test_softmax_focal_loss((30_000, 91))
    large.test_softmax_focal_loss((2, 19, 200, 256))
    large.test_sums("sum")
    large.test_sums("mean")


@pytest.mark.parametrize("name", large.POOLS)
def test_large_pools(name):
    large.test_boxes_of_the_last_image(name, NHWC)
    large.test_many_boxes(name, NCHW)


def test_an_index_that_wraps_fails():
    def wraps(x, weight):
        out = x * weight
        return torch.cat([out[:-1], out[:1] * 0])

    with pytest.raises(AssertionError, match="copies differ"):
        large.check_copies(wraps, [large.random(2, 8, 64, 64)], [large.random(8, 1, 1)])
