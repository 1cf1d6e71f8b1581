"""The label table against the published facts."""

from __future__ import annotations

from synthseg_slicer.labels import BRAIN, BRAIN_FLIP, BRAIN_IDS, BRAIN_PARTNERS, flip_permutation

PUBLISHED = [
    *(0, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 26, 28),
    *(41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 58, 60),
]


def test_channel_order_is_the_published_one():
    assert list(BRAIN_IDS) == PUBLISHED


def test_partners_mirror_each_other_and_change_sides():
    by_id = {label.id: label for label in BRAIN}
    for label in BRAIN:
        other = by_id[label.partner]
        assert other.partner == label.id
        assert {label.side, other.side} in ({"none"}, {"left", "right"})
        assert label.name.replace("Left-", "") == other.name.replace("Right-", "") or label.side == "right"


def test_flip_swaps_every_pair_and_is_its_own_inverse():
    assert [BRAIN_FLIP[BRAIN_FLIP[channel]] for channel in range(33)] == list(range(33))
    for channel, label in enumerate(BRAIN_IDS):
        assert BRAIN_IDS[BRAIN_FLIP[channel]] == BRAIN_PARTNERS[label]
    assert sum(channel != other for channel, other in enumerate(BRAIN_FLIP)) == 28


def test_flip_leaves_labels_without_a_partner_alone():
    assert flip_permutation((0, 7, 9, 30), {7: 30, 30: 7}) == [0, 3, 2, 1]


def test_topology_classes_are_the_published_ones():
    classes: dict[int, set[int]] = {}
    for label in BRAIN:
        classes.setdefault(label.topology, set()).add(label.id)
    assert classes.pop(0) == {0, 24}
    groups = {frozenset(group) for group in classes.values()}
    several = {frozenset(s) for s in ({2, 3, 4, 5}, {7, 8}, {41, 42, 43, 44}, {46, 47})}
    assert several <= groups
    assert len(groups) == 23
    assert all(len(group) == 1 for group in groups - several)


def test_names_are_unique_and_colours_shared_by_the_two_sides_only():
    assert len({label.name for label in BRAIN}) == 33
    assert all(label.color == other.color for label in BRAIN for other in BRAIN if other.id == label.partner)
    assert len({label.color for label in BRAIN}) == 19
