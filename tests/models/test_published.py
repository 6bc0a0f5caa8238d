"""Published weights by tag: from a server or a file of this machine, and what goes wrong on the way."""

import dataclasses
import functools
import hashlib
import http.server
import os
import re
import threading

import pytest
import torch

from fastcnn import models
from fastcnn.models import _registry
from fastcnn.models._published import PUBLISHED, Published, find_published, locate

SMALL = {"layers": (1, 1, 1, 1), "num_classes": 7}
NEWER = models.Preprocess(32, crop_pct=0.5)


def small(**options):
    return models.create("resnet50", **{**SMALL, **options})


def save(state, folder, digits=8):
    """A file that has the first digits of its hash in its name, as torch.hub wants it."""
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    return (folder / "w.pth").rename(folder / f"resnet50-{digest[:digits]}.pth")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "hub" / "checkpoints"


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/served; its requests are counted."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            found.requests.append(args)

    folder = tmp_path / "served"
    folder.mkdir()
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    found.folder, found.requests, found.url = folder, [], f"http://127.0.0.1:{found.server_port}/"
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.fixture
def publish(monkeypatch):
    def publish(url, name="resnet50", **options):
        monkeypatch.setitem(
            PUBLISHED, name, {"OLD": Published("http://127.0.0.1:1/o.pth"), "NEW": Published(url, **options)}
        )

    return publish


def equal(net, state):
    return all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("tag", ["NEW", "DEFAULT"])
def test_from_a_server_once_and_then_from_the_cache(tag, server, publish, cache):
    state = small().state_dict()
    file = save(state, server.folder)
    publish(server.url + file.name, preprocess=NEWER)
    net = small(weights=tag)
    assert equal(net, state) and net.preprocess == NEWER
    assert [path.name for path in cache.iterdir()] == [file.name]
    assert len(server.requests) == 1
    assert equal(small(weights=tag), state)
    assert len(server.requests) == 1


def test_from_a_file_url(tmp_path, publish):
    state = small().state_dict()
    publish(save(state, tmp_path).as_uri())
    assert equal(small(weights="NEW", dtype=torch.float64), {key: v.double() for key, v in state.items()})


def test_from_a_file_that_was_put_into_the_cache(tmp_path, publish, cache, server):
    state = small().state_dict()
    file = save(state, tmp_path)
    cache.mkdir(parents=True)
    file.rename(cache / file.name)
    publish(server.url + file.name)
    assert equal(small(weights="NEW"), state) and server.requests == []


def test_options_behave_as_with_files(tmp_path, publish):
    state = small().state_dict()
    publish(save(state, tmp_path).as_uri(), preprocess=NEWER)
    body = small(weights="NEW", features_only=["stem", "layer2"])
    assert body.feature_names == ("stem", "layer2") and equal(body, state)
    own = models.Preprocess(64)
    assert small(weights="NEW", preprocess=own).preprocess == own
    message = r"resnet50's NEW has 7 classes, the network 3: build it with num_classes=7.*replace_head\(3\)"
    with pytest.raises(ValueError, match=message):
        small(weights="NEW", num_classes=3)
    with pytest.raises(ValueError, match="meta device"):
        small(weights="NEW", device="meta")


def test_other_classes_of_a_convolutional_classifier(tmp_path, publish):
    options = {"layers": (1, 1, 1, 1)}
    state = models.create("resnetv2_18", 6, **options).state_dict()
    publish(save(state, tmp_path).as_uri(), "resnetv2_18")
    with pytest.raises(ValueError, match="has 6 classes, the network 1000"):
        models.create("resnetv2_18", weights="NEW", **options)


def test_what_a_file_needs_of_the_network(tmp_path, publish):
    state = small().state_dict()
    file = save({**state, "aux.weight": torch.zeros(3)}, tmp_path)
    publish(file.as_uri(), overrides={"stride_in_1x1": True}, optional=("aux",))
    net = small(weights="NEW")
    assert net.row.stride_in_1x1 and equal(net, state)
    assert not small(weights="NEW", stride_in_1x1=False).row.stride_in_1x1
    publish(file.as_uri())
    with pytest.raises(ValueError, match=r"resnet50's NEW does not fit this ResNet: unexpected 'aux\.weight'"):
        small(weights="NEW")


def test_old_keys_of_densenets(tmp_path, publish):
    options = {"layers": (2, 2), "growth_rate": 4, "stem_channels": 8, "num_classes": 7}
    state = models.create("densenet121", **options).state_dict()
    old = {
        re.sub(r"(denselayer\d+\.[a-z]+)(\d)", r"\1.\2", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer2.norm.1.weight" in old and "features.transition1.norm.weight" in old
    publish(save(old, tmp_path).as_uri(), "densenet121")
    assert equal(models.create("densenet121", weights="NEW", **options), state)


def refused(error, kind, message):
    assert type(error.value) is kind and re.search(message, str(error.value)) and "\n" not in str(error.value)
    assert error.value.__suppress_context__ and error.value.__cause__ is None  # Nothing of urllib is printed.


def test_wrong_hash(server, publish, cache):
    file = save(small().state_dict(), server.folder)
    file = file.rename(server.folder / "resnet50-00000000.pth")
    publish(server.url + file.name)
    with pytest.raises(RuntimeError) as error:
        small(weights="NEW")
    refused(
        error, RuntimeError, r"^http.*-00000000.pth is not the file that was published \(invalid hash value.*\): fetch"
    )
    assert str(error.value).endswith(f": fetch it elsewhere and put it at {cache / file.name}")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("digits", [8, 64])
def test_a_hash_of_any_length_is_checked(digits, tmp_path, publish):
    state = small().state_dict()
    publish(save(state, tmp_path, digits).as_uri())
    assert equal(small(weights="NEW"), state)


def test_no_server(publish, server):
    publish(server.url + "resnet50-12345678.pth")
    with pytest.raises(RuntimeError) as error:
        small(weights="NEW")
    refused(error, RuntimeError, r"resnet50-12345678.pth cannot be fetched \(HTTP Error 404: .*\): fetch it elsewhere")
    server.shutdown()
    server.server_close()
    with pytest.raises(RuntimeError) as error:
        small(weights="NEW")
    refused(
        error, RuntimeError, r"^http://127.0.0.1:\d+/resnet50-12345678.pth cannot be fetched \(.*refused.*\): fetch"
    )


def test_a_missing_file_url(tmp_path, publish):
    publish((tmp_path / "resnet50-12345678.pth").as_uri())
    with pytest.raises(RuntimeError) as error:
        small(weights="NEW")
    refused(error, RuntimeError, r"cannot be fetched \(.*No such file.*\)")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("hostile", [True, False])
def test_a_file_that_is_no_weights(hostile, tmp_path, publish, cache):
    made = tmp_path / "made"
    file = save({"bad": Hostile(str(made))}, tmp_path)
    publish(file.as_uri())
    if not hostile:  # What is in the cache is taken as it is, and may have been damaged since.
        cache.mkdir(parents=True)
        (cache / file.name).write_bytes(b"<html>")
    with pytest.raises(ValueError) as error:
        small(weights="NEW")
    refused(error, ValueError, rf"{file.name} is no readable PyTorch file \(.*\): delete it$")
    assert str(cache / file.name) in str(error.value)
    assert not made.exists()


def test_tags():
    assert models.list_weights("resnet50") == ["IMAGENET1K_V1", "IMAGENET1K_V2"]
    assert models.list_weights("resnetv2_18") == []
    assert find_published("resnet50", "DEFAULT") is PUBLISHED["resnet50"]["IMAGENET1K_V2"]
    with pytest.raises(ValueError, match="no network is called 'resnet05'"):
        models.list_weights("resnet05")
    with pytest.raises(
        ValueError, match=r"^resnet50 has no weights 'V3'; it has IMAGENET1K_V1, IMAGENET1K_V2 and DEFAULT$"
    ):
        small(weights="V3")
    with pytest.raises(ValueError, match=r"^no published weights of resnetv2_18 are known: .*file, not 'DEFAULT'$"):
        models.create("resnetv2_18", weights="DEFAULT")


def test_paths_are_no_tags(tmp_path, monkeypatch):
    monkeypatch.setattr(_registry, "find_published", None)
    state = small().state_dict()
    torch.save(state, tmp_path / "DEFAULT.pth")
    monkeypatch.chdir(tmp_path)
    assert equal(small(weights="DEFAULT.pth"), state)
    assert equal(small(weights=tmp_path / "DEFAULT.pth"), state)


TAGS = [(network, tag) for network, tags in PUBLISHED.items() for tag in tags]


@pytest.mark.parametrize(("network", "tag"), TAGS)
def test_table(network, tag):
    published = find_published(network, tag)
    if published.is_packaged:
        assert models.read_metadata(locate(published))["network"] == network
        models.create(network, weights=tag)
        return
    assert re.fullmatch(r"https://download\.pytorch\.org/models/[\w.-]+-[0-9a-f]{8,10}\.pth", published.url)
    assert len(published.categories) in (0, models.find_entry(network).row.num_classes)
    preprocess = published.preprocess or models.find_entry(network).row.preprocess
    assert preprocess.input_size <= round(preprocess.input_size / preprocess.crop_pct) <= 800
    if network in models.list_models():
        row = models.find_entry(network).row
        assert {**published.overrides}.keys() <= {field.name for field in dataclasses.fields(row)}
        net = models.create(network, device="meta", preprocess=preprocess, **published.overrides)
        assert net.preprocess == preprocess
        assert all(hasattr(net, child) for child in published.optional)


def test_sizes_of_the_published_resizes():
    """Torchvision's "resize" of the weights that differ from 256 pixels for 224."""
    resized = {
        ("resnet50", "IMAGENET1K_V1"): 256,
        ("resnet50", "IMAGENET1K_V2"): 232,
        ("inception_v3", "IMAGENET1K_V1"): 342,
        ("efficientnet_b1", "IMAGENET1K_V2"): 255,
        ("efficientnet_b4", "IMAGENET1K_V1"): 384,
    }
    for key, wanted in resized.items():
        preprocess = find_published(*key).preprocess
        assert round(preprocess.input_size / preprocess.crop_pct) == wanted
