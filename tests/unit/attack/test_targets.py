"""Target classes: never the label nor the prediction, the same for every network."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from blindspots.attack import targets


@st.composite
def labelled(draw, min_classes=3):
    """Labels, predictions and the number of classes."""
    classes = draw(st.integers(min_classes, 12))
    size = draw(st.integers(1, 40))
    a_class = st.lists(st.integers(0, classes - 1), min_size=size, max_size=size)
    return torch.tensor(draw(a_class)), torch.tensor(draw(a_class)), classes


@given(labelled(), st.integers(0, 2**31))
def test_random_target_is_a_class_but_neither_label_nor_prediction(case, seed):
    labels, predicted, classes = case
    chosen = targets.random_targets(labels, predicted, classes, seed)
    assert ((chosen >= 0) & (chosen < classes)).all()
    assert not (chosen == labels).any()
    assert not (chosen == predicted).any()


def test_of_two_classes_the_target_is_the_one_that_the_network_does_not_say():
    labels, predicted = torch.tensor([0, 1, 0, 1]), torch.tensor([1, 1, 0, 0])
    assert targets.random_targets(labels, predicted, 2, 0).tolist() == [0, 0, 1, 1]
    logits = torch.nn.functional.one_hot(predicted).double()
    assert targets.second_targets(logits, labels).tolist() == [0, 0, 1, 1]


@given(labelled(), st.integers(0, 1000), st.data())
def test_random_targets_of_two_networks_differ_only_where_their_predictions_do(case, seed, data):
    labels, predicted, classes = case
    other = predicted.clone()
    changed = data.draw(st.integers(0, len(labels) - 1))
    other[changed] = data.draw(st.integers(0, classes - 1))
    same = predicted == other
    one, two = (targets.random_targets(labels, answer, classes, seed) for answer in (predicted, other))
    assert torch.equal(one[same], two[same])


@given(labelled(), st.integers(0, 1000))
def test_a_prediction_that_was_no_target_does_not_change_the_target(case, seed):
    # The next network may be wrong in any way but the one that the target itself is.
    labels, _, classes = case
    right = targets.random_targets(labels, labels, classes, seed)
    wrong = torch.tensor([next(c for c in range(classes) if c != target) for target in right.tolist()])
    assert torch.equal(targets.random_targets(labels, wrong, classes, seed), right)


@given(labelled(), st.integers(0, 1000), st.data())
def test_random_targets_of_the_first_images_do_not_depend_on_how_many_follow(case, seed, data):
    labels, predicted, classes = case
    first = data.draw(st.integers(1, len(labels)))
    whole = targets.random_targets(labels, predicted, classes, seed)
    assert torch.equal(
        targets.random_targets(labels[:first], predicted[:first], classes, seed), whole[:first]
    )


def test_random_targets_are_seeded():
    labels = torch.arange(200) % 10
    one, again, other = (targets.random_targets(labels, labels, 10, seed) for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_random_targets_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    targets.random_targets(torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.long), 10, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_targets_are_uniform_over_the_other_classes():
    labels = torch.full((18000,), 4)
    counts = np.bincount(targets.random_targets(labels, labels, 10, 0), minlength=10)
    assert counts[4] == 0
    # 2000 expected in each of nine classes, with a standard deviation of 42.
    assert np.abs(np.delete(counts, 4) - 2000).max() < 5 * 42


def test_random_targets_do_not_depend_on_the_label_of_the_image_before():
    # Independence between neighbours: all 90 combinations of
    # two following targets turn up about equally often.
    labels = torch.zeros(16200, dtype=torch.long)
    chosen = targets.random_targets(labels, labels, 10, 1)
    counts = np.bincount(10 * chosen[:-1:2] + chosen[1::2], minlength=100)[11:].reshape(-1)
    counts = counts[counts > 0]
    assert len(counts) == 81
    assert np.abs(counts - 100).max() < 5.5 * 10


@given(labelled(), st.integers(0, 2**31))
def test_second_target_is_the_most_likely_other_class_and_keeps_the_logits(case, seed):
    labels, _, classes = case
    logits = torch.randn(len(labels), classes, generator=torch.Generator().manual_seed(seed))
    before = logits.clone()
    chosen = targets.second_targets(logits, labels)
    for row, label, target in zip(logits.tolist(), labels.tolist(), chosen.tolist(), strict=True):
        answer = max(range(classes), key=lambda k: row[k])
        others = [k for k in range(classes) if k not in (label, answer)]
        assert target == max(others, key=lambda k: row[k])
    assert torch.equal(logits, before)


@given(labelled())
def test_other_classes_are_all_but_label_and_prediction(case):
    labels, predicted, classes = case
    allowed = targets.other_classes(labels, predicted, classes)
    wanted = [
        [k not in pair for k in range(classes)]
        for pair in zip(labels.tolist(), predicted.tolist(), strict=True)
    ]
    assert allowed.tolist() == wanted
