"""The tree of classes, and YOLO9000's joint training over it."""

import math

import pytest
import torch

from fastcnn import models
from fastcnn.models.detection.wordtree import WordTree, generate_parents, read_word_tree
from fastcnn.models.detection.yolo_boxes import Truth

# In no order: two trees, one of them three levels deep.
PARENTS = (4, -1, 4, 0, -1, 0, 1)
TREES = {
    "mixed": PARENTS,
    "flat": (-1,) * 5,
    "chain": (-1, 0, 1, 2, 3),
    "generated": generate_parents(60, 3),
}


def logits_of(tree, *batch):
    shape = (*batch, len(tree))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def by_hand(parents, logits):
    """Conditional and absolute probabilities of one row."""
    conditionals = []
    for node, parent in enumerate(parents):
        siblings = [math.exp(logits[other]) for other, p in enumerate(parents) if p == parent]
        conditionals.append(math.exp(logits[node]) / sum(siblings))
    absolute = []
    for node in range(len(parents)):
        product = 1.0
        while node >= 0:
            product *= conditionals[node]
            node = parents[node]
        absolute.append(product)
    return conditionals, absolute


@pytest.mark.parametrize("parents", TREES.values(), ids=TREES)
def test_probabilities_by_hand(parents):
    tree = WordTree(parents)
    logits = logits_of(tree, 2, 3)
    conditionals, absolute = tree.log_conditionals(logits).exp(), tree.log_probabilities(logits).exp()
    for row in range(2):
        for column in range(3):
            wanted = by_hand(parents, logits[row, column].tolist())
            assert conditionals[row, column].tolist() == pytest.approx(wanted[0], rel=1e-9)
            assert absolute[row, column].tolist() == pytest.approx(wanted[1], rel=1e-9)
    nodes = torch.arange(len(tree)).expand(2, 3, -1)
    each = torch.stack([tree.log_probability(logits, nodes[..., node]) for node in range(len(tree))], -1)
    torch.testing.assert_close(each.exp(), absolute)


def test_siblings_sum_to_one_and_children_to_their_parent():
    parents = generate_parents(200, 5)
    tree = WordTree(parents)
    logits = logits_of(tree, 4) * 20
    conditionals, absolute = tree.log_conditionals(logits).exp(), tree.log_probabilities(logits).exp()
    for parent in {*parents}:
        children = [node for node, p in enumerate(parents) if p == parent]
        torch.testing.assert_close(conditionals[:, children].sum(1), torch.ones(4, dtype=torch.float64))
        whole = absolute[:, parent] if parent >= 0 else torch.ones(4, dtype=torch.float64)
        torch.testing.assert_close(absolute[:, children].sum(1), whole)


def test_loss_teaches_a_label_and_what_is_above_it():
    tree = WordTree(PARENTS)
    logits = logits_of(tree, 1).requires_grad_()
    tree.loss(logits, torch.tensor([0])).backward()
    conditionals, absolute = by_hand(PARENTS, logits[0].tolist())
    assert tree.loss(logits, torch.tensor([0])).item() == pytest.approx(-math.log(absolute[0]))
    # Node 0 is below 4: their groups are {0, 2} and {1, 4}. Of 0's children and of 1's nothing is said.
    wanted = [conditionals[node] - (node in (0, 4)) if node in (0, 1, 2, 4) else 0.0 for node in range(7)]
    assert logits.grad[0].tolist() == pytest.approx(wanted)


def test_gradients():
    tree = WordTree(PARENTS)
    logits = logits_of(tree, 2).requires_grad_()
    assert torch.autograd.gradcheck(tree.log_probabilities, logits)
    assert torch.autograd.gradcheck(lambda x: tree.loss(x, torch.tensor([3, 6])), logits)


def descend(parents, logits, threshold):
    _, absolute = by_hand(parents, logits)
    node, group = -1, [n for n, p in enumerate(parents) if p == -1]
    while group:
        best = max(group, key=lambda n: logits[n])
        if node >= 0 and absolute[best] <= threshold:
            break
        node, group = best, [n for n, p in enumerate(parents) if p == best]
    return node, absolute[node]


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("parents", TREES.values(), ids=TREES)
def test_predict_descends(parents, threshold):
    tree = WordTree(parents)
    logits = logits_of(tree, 50)
    node, probability = tree.predict(logits, threshold)
    for row in range(50):
        wanted = descend(parents, logits[row].tolist(), threshold)
        assert (node[row].item(), probability[row].item()) == (wanted[0], pytest.approx(wanted[1]))


def test_extremes_stay_finite():
    tree = WordTree(PARENTS)
    logits = torch.tensor([[1e4, -1e4, 0, 1e4, -1e4, -1e4, 3]])
    assert tree.log_probabilities(logits).isfinite().all()


@pytest.mark.parametrize(
    ("parents", "error", "message"),
    [
        ((), ValueError, "needs a node, got none"),
        ((-1, 2), ValueError, "parents must be -1 to 1, got 2 for node 1"),
        ((-2,), ValueError, "got -2 for node 0"),
        ((-1, 2, 3, 1), ValueError, "node 1 is its own ancestor"),
        ((0,), ValueError, "node 0 is its own ancestor"),
        ((-1, 0.0), TypeError, "parents must be ints, got 0.0 for node 1"),
    ],
)
def test_bad_trees(parents, error, message):
    with pytest.raises(error, match=message):
        WordTree(parents)


def test_bad_use():
    with pytest.raises(ValueError, match="names must be one for each of 2 nodes, got 1"):
        WordTree((-1, 0), ["a"])
    with pytest.raises(ValueError, match=r"takes \(\.\.\., 7\), got \(2, 6\)"):
        WordTree(PARENTS).log_probabilities(torch.zeros(2, 6))


def test_reads_darknets_format(tmp_path):
    (tmp_path / "words.tree").write_text("animal -1\ndog 0\n\nthing -1\ncat 0\n")
    tree = read_word_tree(tmp_path / "words.tree")
    assert (tree.names, tree.group.tolist(), tree.depth.tolist()) == (
        ("animal", "dog", "thing", "cat"),
        [0, 1, 0, 1],
        [0, 1, 0, 1],
    )
    (tmp_path / "words.tree").write_text("animal -1\ndog\n")
    with pytest.raises(ValueError, match=r"words\.tree, line 2: expected a name and a parent, got 'dog'"):
        read_word_tree(tmp_path / "words.tree")


def test_yolo9000_has_9418_classes():
    net = models.create("yolo9000", device="meta")
    assert (len(net.tree), net.num_classes, len(net.priors[0])) == (9418, 9418, 3)
    assert net.predictor.out_channels == 3 * (5 + 9418)


def small(**options):
    torch.manual_seed(0)
    options = {"num_classes": 7, "parents": PARENTS, "width_mult": 0.05, "dtype": torch.float64, **options}
    return models.create("yolo9000", multi_scale=False, **options)


def test_yolo9000_names_a_class_as_far_down_as_it_is_sure():
    net = small().eval()
    raw = torch.zeros(1, 36, 2, 2, dtype=torch.float64)
    raw[0, 12 + 4, 1, 0] = 3.0  # Of prior 1; its classes: 4 is sure, of its children 0, of 0's children none.
    raw[0, 12 + 5 : 24, 1, 0] = torch.tensor([9.0, -9, 0, 0, 9, 0, 0], dtype=torch.float64)
    boxes, scores, labels = net.candidates([raw])
    assert labels[0, 0] == 0 and scores[0, 0].item() == pytest.approx(0.9526 * 0.99988, abs=1e-4)
    centre = (boxes[0, 0, :2] + boxes[0, 0, 2:]) / 2
    assert centre.tolist() == pytest.approx([16, 48])


def test_yolo9000_learns_classes_from_images_without_boxes():
    net = small()
    generator = torch.Generator().manual_seed(1)
    raw = torch.randn(2, 36, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    none, boxes = torch.zeros(0, dtype=torch.int64), torch.tensor([[4.0, 4, 40, 40]], dtype=torch.float64)
    with_box = Truth(torch.tensor([0]), boxes, torch.tensor([5]), none, none)
    alone = net.loss([raw], with_box)
    both = net.loss([raw], with_box._replace(tagged=torch.tensor([1]), tags=torch.tensor([3])))
    assert both["loss_box_reg"] == alone["loss_box_reg"]
    rows = raw.detach()[1].reshape(3, 12, 4).transpose(1, 2).reshape(12, 12)
    shown = [(row[4].sigmoid() * net.tree.log_probability(row[5:], torch.tensor(3)).exp()).item() for row in rows]
    best = rows[shown.index(max(shown))]
    more = (both["loss_classifier"] - alone["loss_classifier"]).item()
    assert more == pytest.approx(-net.tree.log_probability(best[5:], torch.tensor(3)).item() / 2)
    # Image 1 says nothing of where no objects are.
    (gradient,) = torch.autograd.grad(both["loss_objectness"], raw)
    short = max(0.0, 0.3 - best[4].sigmoid().item())
    assert gradient[1].reshape(3, 12, 4)[:, 4].count_nonzero() == (short > 0)
    assert gradient[0].any()


def test_yolo9000_trains_jointly():
    net = small(dtype=None)
    net.size = 64
    images = [torch.rand(3, 50, 60), torch.rand(3, 64, 64)]
    box = torch.tensor([[4.0, 4, 40, 40]])
    losses = net(images, [{"boxes": box, "labels": torch.tensor([5])}, {"labels": torch.tensor([3])}])
    sum(losses.values()).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    other = net.replace_head(3, parents=(-1, 0, 0))
    assert other is net and len(net.tree) == 3 and net.row.parents == (-1, 0, 0)
    assert len(net.replace_head(9).tree) == 9
