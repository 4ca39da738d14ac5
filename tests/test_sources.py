"One word says where clips come from."
import pytest
import torch
from footage import pixels, write
from PIL import Image

from lamd_nb.data.benchmarks.bair import BAIR
from lamd_nb.data.benchmarks.layouts import MUG, NATOPS, SkyTimelapse
from lamd_nb.data.benchmarks.cater import CaterGen
from lamd_nb.data.video.clips import Clips
from lamd_nb.data.specs import FOLDERS, Mixture, open_data


def test_words(tmp_path):
    write(tmp_path / "a.mp4", pixels(0))
    write(tmp_path / "b.mp4", pixels(1))
    want = Clips(tmp_path, seed=3).batch(range(6))["video"]
    for word in (tmp_path, str(tmp_path), f"folder:{tmp_path}"):
        train, test = open_data(word, seed=3), open_data(word, split="test")
        assert torch.equal(train.batch(range(6))["video"], want) and not hasattr(train, "__len__")
        assert len(test) == 2 and test.batch([0, 1])["file"] == ["a.mp4", "b.mp4"]
    shapes = open_data("worlds:shapes", 32)
    assert isinstance(shapes, Mixture) and [w.rotating for w in shapes.worlds] == [6, 6]


@pytest.mark.parametrize("word, says", [
    ("worlds:shape", "unknown world 'shape'; known: shapes, arm"),
    ("nowhere", "data is 'nowhere', but no such folder is there: name a folder of films.*bair, sky, natops, mug, cater"),
    ("folder:nowhere", "data is 'folder:nowhere', but no such folder is there"),
    ("nowhere?fps=8", r"data is 'nowhere\?fps=8', but no such folder is there"),
    ("folder:", "data is 'folder:', which names no folder"),
    ("", "data is '', which names no folder"),
    ("films?speeed=1", "unknown rule 'speeed'; known for Clips: stride, window"),
    ("films?fps=fast", "rule 'fps' is 'fast', but must be float"),
    ("films?fps=inf", "fps is inf, but must be a number above 0"),
    ("films?cache=-1", "cache is -1.0, but must be"),
    ("films?flip=1", "rule 'flip' is '1', but must be true or false"),
    ("films?size=32", "unknown rule 'size'"),
    ("films?fit=oval", "unknown fit 'oval'"),
])
def test_misspelt(tmp_path, monkeypatch, word, says):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "films/a.mp4", pixels(0))
    with pytest.raises(ValueError, match=says):
        open_data(word)


def test_rules_behind_a_question_mark(tmp_path):
    write(tmp_path / "films/a.mp4", pixels(0, 40))
    for said, options in (("fps=5&flip=True", dict(fps=5, flip=True)), ("window=uniform", dict(window="uniform")), ("stride=2&jitter=.2", dict(stride=2, jitter=.2))):
        got, want = open_data(f"folder:{tmp_path}/films?{said}", frames=4).worlds[0], Clips(tmp_path / "films", frames=4, **options)
        assert torch.equal(got.batch(range(3))["video"], want.batch(range(3))["video"])
    write(tmp_path / "what?a=b/a.mp4", pixels(1))
    assert len(open_data(f"{tmp_path}/what?a=b", split="test")) == 1, "a folder whose name has a question mark in it"


@pytest.mark.parametrize("name", ["arm", "sky", "gestures", "faces"])
def test_worlds_by_name(name):
    "Each world answers to its name, in both splits, and the clips of one are not those of the other."
    one, other = (open_data(f"worlds:{name}", 32, 8, split).batch([0, 3])["video"] for split in ("train", "test"))
    assert one.shape == (2, 3, 8, 32, 32) and not torch.equal(one, other)


def test_folders_of_classes_take_turns(tmp_path):
    for k in range(4):
        write(tmp_path / "one" / f"{'ab'[k % 2]}/{k}.mp4", pixels(k))
    mixed = Mixture([Clips(tmp_path / "one"), Clips(tmp_path / "one", seed=1)])
    batch = mixed.batch([3, 0, 5])
    for place, (k, source) in enumerate(((1, 1), (0, 0), (2, 1))):
        alone = mixed.worlds[source].batch([k])
        assert torch.equal(batch["video"][place], alone["video"][0]) and batch["label"][place] == alone["label"][0] and batch["file"][place] == alone["file"][0]


@pytest.mark.parametrize("name", ["shapes", "gestures", "faces"])
def test_worlds_that_speak_know_their_words(name):
    "Every sentence of a world is made of words of its vocabulary, so that a motion generator can be trained on it."
    source = open_data(f"worlds:{name}", 32, 4)
    words = getattr(source, "worlds", [source])[0].vocabulary
    said = source.batch(range(24))["caption"]
    assert any(said) and {w for sentence in said for w in sentence.split()} <= set(words) and words == sorted(words)


def test_benchmarks_by_name(tmp_path):
    "Each name reads its own layout with its own class, at the size that was asked for; training has no end."
    faces = tmp_path / "mug/subjects3"
    for k, name in enumerate(("008/anger/take000", "001/fear/take000")):
        (faces / name).mkdir(parents=True)
        for t, x in enumerate(pixels(k, 4)):
            Image.fromarray(x).save(faces / name / f"img_{t:04d}.jpg")
    for word, kind in (("bair", BAIR), ("sky", SkyTimelapse), ("natops", NATOPS), ("mug", MUG), ("cater", CaterGen), ("folder", Clips)):
        assert FOLDERS[word] is kind
        with pytest.raises(ValueError, match=f"data is '{word}:nowhere', but no such folder is there"):
            open_data(f"{word}:nowhere")
    train, test = (open_data(f"mug:{tmp_path}/mug", 32, 4, split=s) for s in ("train", "test"))
    assert isinstance(test, MUG) and len(test) == 1 and not hasattr(train, "__len__")
    assert train.batch([0, 7])["label"].tolist() == [0, 0] and test.batch([0])["label"].tolist() == [2]
    assert train.batch([0])["video"].shape == (1, 3, 4, 32, 32)
