"""Attentive heads and video classification: published frame numbers, order of tokens, rotations, groups, skipping."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError
from opendino.evaluation.actions import GRID, evaluate_actions, even_frames, held_out_groups
from opendino.evaluation.datasets.actions import Clip, open_actions
from opendino.evaluation.protocol import Job, Subject
from opendino.models.attentive_heads import AttentiveHeads, rotate, turned
from opendino.models.family import build_model
from opendino.train.methods.head_fitting import Recipe, Setting, fit_heads
from tests.evaluation import layouts


def some_tokens(batch=3, count=20, dim=7):
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(batch, count, 3, generator=generator) * 2 - 1
    return torch.cat([torch.randn(batch, count, dim, generator=generator), places], -1)


@pytest.mark.oracle
def test_sixteen_of_a_hundred_frames_are_the_published_ones():
    assert even_frames(100, 16).tolist() == [0, 7, 13, 20, 26, 33, 40, 46, 53, 59, 66, 73, 79, 86, 92, 99]
    assert even_frames(3, 5).tolist() == [0, 0, 1, 2, 2]  # a short clip repeats frames


@pytest.mark.oracle
def test_tokens_may_be_shuffled_with_their_places_but_not_without():
    heads, tokens = AttentiveHeads(7, 4, 2, width=24, heads=2, depth=2).eval(), some_tokens()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = heads(tokens)
        torch.testing.assert_close(heads(tokens[:, order]), expected, atol=1e-5, rtol=1e-5)
        parted = torch.cat([tokens[:, order, :-3], tokens[..., -3:]], -1)
        assert (heads(parted) - expected).abs().max() > 1e-4


def test_rotary_products_depend_on_differences_of_places_alone():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 24, generator=generator)
    at, other = torch.randn(2, 1, 1, 3, generator=generator)
    moved = torch.randn(1, 1, 3, generator=generator)
    one = (rotate(q, at) * rotate(k, other)).sum()
    same = (rotate(q, at + moved) * rotate(k, other + moved)).sum()
    torch.testing.assert_close(one, same, atol=1e-4, rtol=1e-4)
    assert (one - (rotate(q, at) * rotate(k, other + moved)).sum()).abs() > 1e-3


def test_a_turn_keeps_distances_and_times():
    tokens = some_tokens()
    after = turned(tokens, torch.tensor([math.pi / 2, 0.3, 2.0]))
    torch.testing.assert_close(after[..., :-2], tokens[..., :-2])
    torch.testing.assert_close(after[0, :, -2], -tokens[0, :, -1])
    apart, before = (torch.cdist(one[..., -2:], one[..., -2:]) for one in (after, tokens))
    torch.testing.assert_close(apart, before)


def test_the_coordinates_alone_can_be_learned_from():
    """The class is in which half the marked token lies: no pooling of features could tell."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.zeros(200, 6, 1 + 3)
    tokens[..., 1:] = torch.rand(200, 6, 3, generator=generator) * 2 - 1
    tokens[:, 0, 0] = 5.0
    labels = (tokens[:, 0, 1] > 0).long()  # early or late: turns in the plane leave it
    heads = AttentiveHeads(1, 2, 1, width=24, heads=2, depth=1)
    fit_heads(heads, tokens[:150], labels[:150], F.cross_entropy, [Setting(3e-3, 0.0)], Recipe(200, 50, "adamw"))
    with torch.no_grad():
        assert (heads(tokens[150:])[0].argmax(1) == labels[150:]).float().mean() > 0.85


def test_every_head_starts_equal_and_owns_its_parameters():
    heads = AttentiveHeads(7, 4, 3, width=24, heads=2, depth=1).eval()
    with torch.no_grad():
        one, two, three = heads(some_tokens())
    assert torch.equal(one, two) and torch.equal(one, three)
    assert {heads.head_of(name) for name, _ in heads.named_parameters()} == {0, 1, 2}
    assert len(GRID) == 18
    with pytest.raises(UsageError, match="multiple of 6"):
        AttentiveHeads(7, 4, 1, width=64, heads=4)


def test_near_copies_never_lie_on_both_sides():
    names = [(label, group) for label in (0, 1) for group in range(6) for _ in range(3)]
    clips = [Clip(Path(f"{index}.avi"), label, f"{label}/g{group}") for index, (label, group) in enumerate(names)]
    held = held_out_groups(clips, 0)
    sides = {name: {bool(held[i]) for i, other in enumerate(names) if other == name} for name in names}
    assert all(len(side) == 1 for side in sides.values())
    assert sum(True in side for side in sides.values()) == 2  # one group of each class


def test_broken_videos_are_named_and_left_out(tmp_path):
    pytest.importorskip("av")
    root = layouts.ucf101(tmp_path)
    broken = sorted((root / "UCF-101" / "Archery").glob("*_g05_*"))[0]
    broken.write_bytes(b"RIFF0000AVI nothing")
    torch.manual_seed(0)
    model = build_model("conv_mini").eval()
    subject = Subject(model, Transform(size=48, patch=model.patch), "conv", "x")
    job = Job(root, settings={**layouts.VIDEO, "batch": 64})
    outcome = evaluate_actions(subject, open_actions(job), job)
    assert [one.id for one in outcome.skipped] == [broken.name]
    (score,) = outcome.scores
    assert score.unit == "group" and score.n == 4 and np.isfinite(score.estimate.value)


def test_videos_of_kinetics_that_vanished_are_named(tmp_path):
    data = open_actions(Job(layouts.kinetics(tmp_path)))
    assert data.classes == ["abseiling", "air drumming"] and (len(data.train), len(data.val)) == (5, 5)
    assert [clip.label for clip in data.val] == [0, 1, 0, 1, 0] and data.val[1].group == "-id_21"
    assert list(data.absent) == ["train/-id_15_000005_000015", "val/-id_25_000005_000015"]
    assert "2 more are listed and not there" in data.words()
    (tmp_path / "annotations" / "train.csv").write_text("label,youtube_id\nabseiling,x\n")
    with pytest.raises(DataError, match="must have the columns label,youtube_id,time_start,time_end"):
        open_actions(Job(tmp_path))
