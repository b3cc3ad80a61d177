"""Choices by measurement settle where they should, and what was worse gets another chance."""

from __future__ import annotations

from verifier.search.measured import BatchSize, FasterProof, SmallerTree


def test_batches_grow_while_that_pays() -> None:
    """Bounding takes 1 ms and, beyond 256 subproblems, 1 ms more for each 128."""
    size = BatchSize(64, 4096)
    assert size.size == 64
    for _ in range(20):
        size.note(size.size, 1e-3 * max(1.0, size.size / 256))
    assert size.settled and 128 <= size.size <= 256
    few = BatchSize(64, 3)
    few.note(1, 1.0)
    few.note(3, 0.0)
    assert few.size == 3 and few.settled


def test_a_batch_that_is_not_full_says_nothing_about_the_size() -> None:
    size = BatchSize(64, 4096)
    for _ in range(5):
        size.note(size.size - 1, 100.0)
    assert size.size == 64 and not size.settled


def test_both_alternatives_are_tried_and_the_better_one_preferred() -> None:
    for better in (True, False):
        choice, taken = FasterProof(), []
        for _ in range(80):
            now = choice.choose()
            taken.append(now)
            choice.note(now, 2.0 if now == better else 1.0, 1.0)
        assert set(taken[:2]) == {True, False}
        assert taken.count(not better) <= 16 and (not better) in taken[40:]


def test_an_alternative_that_becomes_better_is_noticed() -> None:
    choice, taken = FasterProof(), []
    for turn in range(120):
        now = choice.choose()
        taken.append(now)
        choice.note(now, 2.0 if now == (turn >= 20) else 1.0, 1.0)
    assert taken[:20].count(False) >= 12 and taken[80:].count(True) >= 30


def test_larger_rises_are_worth_their_price_and_equal_ones_are_not() -> None:
    for raised, preferred in ((2.0, True), (1.0, False)):
        choice, taken = SmallerTree(), []
        for _ in range(60):
            now = choice.choose()
            taken.append(now)
            choice.note(now, 100, 10.0, raised if now else 1.0, 1.5 if now else 1.0)
        assert taken[10:].count(preferred) > 40


def test_nothing_gained_and_no_time_taken() -> None:
    proof, tree = FasterProof(), SmallerTree()
    for _ in range(10):
        proof.note(proof.choose(), 0.0, 0.0)
        tree.note(tree.choose(), 0, 0.0, 0.0, 0.0)


def test_a_worse_choice_splits_few_subproblems_however_cheap_they_are() -> None:
    """Its subproblems take a hundredth of the time and gain nothing."""
    tree, bounded = SmallerTree(), [0, 0]
    for _ in range(400):
        now = tree.choose()
        bounded[now] += 4
        tree.note(now, 4, 10.0, 5.0 if now else 0.0, 4.0 if now else 0.04)
    assert 0 < bounded[False] <= 0.1 * sum(bounded) + 4
