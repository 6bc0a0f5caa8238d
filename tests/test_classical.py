"""The classical examples: the lecture's numbers, and each method against its definition."""

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


def test_lectures_images_are_456_apart(example):
    nearest = example("nearest_neighbour")
    images = [torch.tensor(image)[None] for image in (nearest.TEST_IMAGE, nearest.TRAINING_IMAGE)]
    assert nearest.distances(*images).item() == 456


def test_a_training_image_has_its_own_label(example):
    nearest = example("nearest_neighbour")
    images, labels = torch.rand(30, 4, 4), torch.randint(5, (30,))
    assert torch.equal(nearest.NearestNeighbour(images, labels)(images), labels)
    three = nearest.NearestNeighbour(torch.tensor([[0.0], [1], [2], [9]]), torch.tensor([1, 2, 2, 3]), 3)
    assert three(torch.tensor([[0.0]])).item() == 2
    with pytest.raises(ValueError, match="1 to 30 neighbours"):
        nearest.NearestNeighbour(images, labels, 31)


def test_nearest_neighbours_read_digits(example):
    pytest.importorskip("sklearn")
    assert example("nearest_neighbour").main() > 0.97


@pytest.mark.parametrize("cell", [4, 5])
def test_hog_as_layers_is_hog_as_loops(example, cell):
    hog = example("hog")
    levels = np.random.default_rng(0).integers(0, 256, (23, 31))
    levels[5:15, 5:20] = 77  # Flat, and with edges and corners of 45 degrees beside.
    levels[15:20, 5:20] = np.add.outer(range(5), range(15)) * 9
    expected = hog.hog_directly(levels / 255, cell)
    assert expected.shape == (18, 23 // cell, 31 // cell)
    found = hog.HOG(cell)(torch.from_numpy(levels / 255)[None, None])[0]
    torch.testing.assert_close(found, torch.from_numpy(expected))
    assert (np.linalg.norm(expected, axis=0) < 1).all()


def test_a_ramp_fills_the_bin_of_its_direction(example):
    hog = example("hog")
    for turn in range(0, 360, 15):
        y, x = torch.meshgrid(torch.arange(15.0).double(), torch.arange(15.0).double(), indexing="ij")
        angle = torch.deg2rad(torch.tensor(float(turn)).double())
        found = hog.HOG(5)((0.1 * (x * angle.cos() + y * angle.sin()))[None, None])[0, :, 1, 1]
        assert found.argmax() == int((turn - hog.TURN) % 360 // 20)
        assert found.max() > 0.9 and found.sum() == found.max()


def test_a_template_finds_itself_at_its_size(example):
    hog = example("hog")
    pattern = torch.rand(1, 25, 25)
    image = torch.full((1, 150, 160), 0.5)
    image[:, 40:90, 60:110] = F.interpolate(pattern[None], scale_factor=2, mode="bilinear")[0]
    template = hog.HOG(5)(pattern[None])
    template = template - template.mean()
    score, box = hog.detect(image, template, 0.0, cell=5)[0]
    assert score > 0 and max(abs(a - b) for a, b in zip(box, (60, 40, 110, 90), strict=True)) <= 5


@pytest.mark.slow
def test_astronauts_face_is_among_the_first(example, capsys):
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    assert example("hog").main() <= 10
    assert "8 x 8 cells; layers and loops differ by" in capsys.readouterr().out


def test_maxima_are_over_their_neighbours(example):
    scores = torch.tensor([[1.0, 2, 1, 0], [0, 1, 1, 5], [0, 0, 0, 4]])
    assert example("hog").local_maxima(scores, 0.0).tolist() == [[0, 1], [1, 3]]
    assert example("hog").local_maxima(scores, 2.0).tolist() == [[1, 3]]


def test_parts_move_where_brute_force_says(example):
    parts = example("deformable_parts")
    scores = torch.randn(5, 6, dtype=torch.float64)
    spring = (0.1, -0.2, 0.05, 0.3)
    best, rows, columns = parts.transform(scores, spring)
    for y, x in itertools.product(range(5), range(6)):
        values = {
            (v, u): scores[v, u]
            - spring[0] * (v - y)
            - spring[1] * (u - x)
            - spring[2] * (v - y) ** 2
            - spring[3] * (u - x) ** 2
            for v, u in itertools.product(range(5), range(6))
        }
        place = max(values, key=values.__getitem__)
        assert (int(rows[y, x]), int(columns[y, x])) == place
        torch.testing.assert_close(best[y, x], values[place])


def test_model_scores_are_dot_products_of_windows(example):
    """Of each place: the root's window, and of each part the best of all its windows minus its spring."""
    dpm = example("deformable_parts")
    double = {"dtype": torch.float64}
    coarse, fine = torch.randn(1, 3, 6, 7, **double), torch.randn(1, 3, 12, 14, **double)
    root = torch.randn(1, 3, 4, 4, **double)
    parts = [
        dpm.Part(torch.randn(1, 3, 3, 2, **double), (1, 4), (0.0, 0.1, 0.3, 0.2)),
        dpm.Part(torch.randn(1, 3, 2, 2, **double), (0, 0)),
    ]
    total, moved = dpm.score(coarse, fine, root, parts, bias=0.5)
    assert total.shape == (3, 4)
    for row, column in itertools.product(range(3), range(4)):
        expected = 0.5 + (coarse[:, :, row : row + 4, column : column + 4] * root).sum()
        for part, (to_row, to_column) in zip(parts, moved, strict=True):
            high, wide = part.filter.shape[2:]
            y, x = 2 * row + part.anchor[0], 2 * column + part.anchor[1]
            best = -float("inf")
            for v, u in itertools.product(range(12 - high + 1), range(14 - wide + 1)):
                move = torch.tensor([v - y, u - x, (v - y) ** 2, (u - x) ** 2], **double)
                window = (fine[:, :, v : v + high, u : u + wide] * part.filter).sum()
                value = float(window - (torch.tensor(part.spring, **double) * move).sum())
                if value > best:
                    best, place = value, (v, u)
            assert (int(to_row[row, column]), int(to_column[row, column])) == place
            expected = expected + best
        torch.testing.assert_close(total[row, column], expected)


def test_parts_are_told_apart_and_help(example):
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    root, parts = example("deformable_parts").main()
    assert parts >= root - 0.01 > 0.85


def test_eigenfaces_say_all_in_the_end(example):
    faces = example("faces")
    images = torch.rand(12, 6, 5).double()
    errors = [faces.Eigenfaces(images, count).error(images).mean() for count in (1, 4, 8, 11)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.01 and errors[-1] < 1e-20
    space = faces.Eigenfaces(images, 4)
    torch.testing.assert_close(space.basis @ space.basis.T, torch.eye(4, dtype=torch.float64))
    codes = space.encode(images)
    torch.testing.assert_close(codes.T @ codes, torch.diag((codes**2).sum(0)))  # Components do not correlate.
    torch.testing.assert_close(space.encode(space.decode(codes)), codes)
    with pytest.raises(ValueError, match="components must be from 1 to 12, got 13"):
        faces.Eigenfaces(images, 13)


def test_faces_are_told(example):
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    by_space, boosted = example("faces").main(candidates=300, rounds=10)
    assert by_space > 0.7 and boosted > 0.7


def test_histograms_sum_to_one(example):
    words = example("bag_of_words")
    drawn = np.random.default_rng(0)
    colours = words.colour_histogram(drawn.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    assert colours.shape == (64,) and colours.sum() == pytest.approx(1)
    blue = words.colour_histogram(np.full((2, 2, 3), (0, 64, 255), np.uint8))
    assert blue[0 * 16 + 1 * 4 + 3] == 1
    found = words.Descriptors(drawn.random((40, 128)), drawn.random((40, 2)))
    vocabulary = drawn.random((5, 128))
    counts = np.zeros(5)
    for value in found.values:
        counts[np.linalg.norm(vocabulary - value, axis=1).argmin()] += 1 / 40
    np.testing.assert_allclose(words.word_histogram(found, vocabulary), counts)
    none = words.Descriptors(np.zeros((0, 128)), np.zeros((0, 2)))
    assert not words.word_histogram(none, vocabulary).any() and not words.spatial_pyramid(none, vocabulary).any()


def test_pyramids_count_words_where_they_are(example):
    words = example("bag_of_words")
    vocabulary = np.eye(2, 128)
    found = words.Descriptors(vocabulary[[0, 1, 1, 1]], np.array([[0.1, 0.1], [0.1, 0.9], [0.9, 0.9], [0.6, 0.6]]))
    pyramid = words.spatial_pyramid(found, vocabulary, 2)
    assert pyramid.sum() == pytest.approx(1)  # The kernel of an image with itself.
    assert pyramid.tolist() == [0.125, 0.375, 0.125, 0, 0, 0.125, 0, 0, 0, 0.25]
    # Turned by half a circle, they still match in the coarsest cell, and nowhere else.
    moved = words.Descriptors(found.values, 1 - found.places - 1e-9)
    assert np.minimum(pyramid, words.spatial_pyramid(moved, vocabulary, 2)).sum() == pytest.approx(0.5)


def test_words_tell_photographs_apart(example):
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    right = example("bag_of_words").main(step=96, count=20)
    assert set(right) == {"colour histograms", "visual words", "spatial pyramids", "Fisher vectors"}
    assert min(right.values()) > 0.4  # A quarter by chance.


def test_sparse_codes_read_digits(example):
    pytest.importorskip("sklearn")
    sparse = example("sparse_coding")
    images = np.random.default_rng(0).random((3, 8, 8))
    found = sparse.patches(images)
    np.testing.assert_allclose(found[1, 2, 3], (w := images[1, 2:6, 3:7].ravel()) - w.mean())
    assert sparse.main(600) > 0.85


def test_sparse_codes_are_of_few_atoms(example):
    """A patch that is a sum of two atoms is coded by them."""
    pytest.importorskip("sklearn")
    sparse = example("sparse_coding")
    atoms = np.linalg.qr(np.random.default_rng(0).standard_normal((16, 16)) - 0.0)[0]
    atoms[:] -= atoms.mean(1, keepdims=True)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    image = np.zeros((1, 8, 8))
    image[0, 2:6, 2:6] = (2 * atoms[3]).reshape(4, 4)
    codes = sparse.encode(image, atoms).reshape(4, 16)
    assert codes[:, 3].min() == pytest.approx(2, abs=1e-6)
