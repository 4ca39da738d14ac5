"One word says where clips come from."
import pytest
import torch
from sample_videos import pixels, write
from PIL import Image

from lamd_nb.data.benchmarks.bair import BAIR
from lamd_nb.data.benchmarks.layouts import MUG, NATOPS, SkyTimelapse
from lamd_nb.data.benchmarks.cater import CaterGen
from lamd_nb.data.video.clips import Clips
from lamd_nb.data.specs import DATASET_PREFIXES, InterleavedDataset, dataset_from_spec


def test_words(tmp_path):
    write(tmp_path / "a.mp4", pixels(0))
    write(tmp_path / "b.mp4", pixels(1))
    want = Clips(tmp_path, seed=3).batch(range(6))["video"]
    for word in (tmp_path, str(tmp_path), f"folder:{tmp_path}"):
        train, test = dataset_from_spec(word, seed=3), dataset_from_spec(word, split="test")
        assert torch.equal(train.batch(range(6))["video"], want) and not hasattr(train, "__len__")
        assert len(test) == 2 and test.batch([0, 1])["file"] == ["a.mp4", "b.mp4"]
    shapes = dataset_from_spec("worlds:shapes", 32)
    assert isinstance(shapes, InterleavedDataset) and [w.rotating_weight for w in shapes.datasets] == [6, 6]


@pytest.mark.parametrize("word, says", [
    ("worlds:shape", "unknown world 'shape'; known: shapes, arm"),
    ("nowhere", "data is 'nowhere', but no such folder is there: name a folder of videos.*bair, sky, natops, mug, cater"),
    ("folder:nowhere", "data is 'folder:nowhere', but no such folder is there"),
    ("nowhere?fps=8", r"data is 'nowhere\?fps=8', but no such folder is there"),
    ("folder:", "data is 'folder:', which names no folder"),
    ("", "data is '', which names no folder"),
    ("videos?speeed=1", "unknown option 'speeed'; known for Clips: stride, window"),
    ("videos?fps=fast", "option 'fps' is 'fast', but must be float"),
    ("videos?fps=inf", "fps is inf, but must be a number above 0"),
    ("videos?frame_cache_mib=-1", "frame_cache_mib is -1.0, but must be"),
    ("videos?flip=1", "option 'flip' is '1', but must be true or false"),
    ("videos?size=32", "unknown option 'size'"),
    ("videos?resize_mode=oval", "unknown resize_mode 'oval'"),
])
def test_misspelt(tmp_path, monkeypatch, word, says):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "videos/a.mp4", pixels(0))
    with pytest.raises(ValueError, match=says):
        dataset_from_spec(word)


def test_rules_behind_a_question_mark(tmp_path):
    write(tmp_path / "videos/a.mp4", pixels(0, 40))
    for said, options in (("fps=5&flip=True", dict(fps=5, flip=True)), ("window=uniform", dict(window="uniform")), ("stride=2&colour_jitter=.2", dict(stride=2, colour_jitter=.2))):
        got, want = dataset_from_spec(f"folder:{tmp_path}/videos?{said}", frames=4).datasets[0], Clips(tmp_path / "videos", frames=4, **options)
        assert torch.equal(got.batch(range(3))["video"], want.batch(range(3))["video"])
    write(tmp_path / "what?a=b/a.mp4", pixels(1))
    assert len(dataset_from_spec(f"{tmp_path}/what?a=b", split="test")) == 1, "a folder whose name has a question mark in it"


@pytest.mark.parametrize("name", ["arm", "sky", "gestures", "faces"])
def test_worlds_by_name(name):
    "Each world answers to its name, in both splits, and the clips of one are not those of the other."
    one, other = (dataset_from_spec(f"worlds:{name}", 32, 8, split).batch([0, 3])["video"] for split in ("train", "test"))
    assert one.shape == (2, 3, 8, 32, 32) and not torch.equal(one, other)


def test_folders_of_classes_take_turns(tmp_path):
    for k in range(4):
        write(tmp_path / "one" / f"{'ab'[k % 2]}/{k}.mp4", pixels(k))
    mixed = InterleavedDataset([Clips(tmp_path / "one"), Clips(tmp_path / "one", seed=1)])
    batch = mixed.batch([3, 0, 5])
    for place, (k, dataset) in enumerate(((1, 1), (0, 0), (2, 1))):
        alone = mixed.datasets[dataset].batch([k])
        assert torch.equal(batch["video"][place], alone["video"][0]) and batch["label"][place] == alone["label"][0] and batch["file"][place] == alone["file"][0]


@pytest.mark.parametrize("name", ["shapes", "gestures", "faces"])
def test_worlds_that_speak_know_their_words(name):
    "Every sentence of a world is made of words of its vocabulary, so that a motion generator can be trained on it."
    dataset = dataset_from_spec(f"worlds:{name}", 32, 4)
    words = getattr(dataset, "datasets", [dataset])[0].vocabulary
    said = dataset.batch(range(24))["caption"]
    assert any(said) and {w for sentence in said for w in sentence.split()} <= set(words) and words == sorted(words)


def test_benchmarks_by_name(tmp_path):
    "Each name reads its own layout with its own class, at the size that was asked for; training has no end."
    faces = tmp_path / "mug/subjects3"
    for k, name in enumerate(("008/anger/take000", "001/fear/take000")):
        (faces / name).mkdir(parents=True)
        for t, x in enumerate(pixels(k, 4)):
            Image.fromarray(x).save(faces / name / f"img_{t:04d}.jpg")
    for word, kind in (("bair", BAIR), ("sky", SkyTimelapse), ("natops", NATOPS), ("mug", MUG), ("cater", CaterGen), ("folder", Clips)):
        assert DATASET_PREFIXES[word] is kind
        with pytest.raises(ValueError, match=f"data is '{word}:nowhere', but no such folder is there"):
            dataset_from_spec(f"{word}:nowhere")
    train, test = (dataset_from_spec(f"mug:{tmp_path}/mug", 32, 4, split=s) for s in ("train", "test"))
    assert isinstance(test, MUG) and len(test) == 1 and not hasattr(train, "__len__")
    assert train.batch([0, 7])["label"].tolist() == [0, 0] and test.batch([0])["label"].tolist() == [2]
    assert train.batch([0])["video"].shape == (1, 3, 4, 32, 32)
