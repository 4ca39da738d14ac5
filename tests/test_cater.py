"""CATER-GEN: its sentences word by word, its frames by number, a small one written in the official layout and read back."""
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from sample_videos import as_bytes, pixels, whole, write

from lamd_nb.data.benchmarks.cater import OBJECT_ATTRIBUTES, CaterGen, CaptionEvent, ObjectDescription, parse_caption, compose_cater_caption
from lamd_nb.data.video.windows import variable_speed_indices

V1 = [" the cone is sliding to (-1, 2).", " the snitch is rotating.", " the cone is picked up and placed to (3, -3).", " the cone is picked up and containing the snitch.",
      " the snitch is sliding to the fourth quadrant. the cone is rotating."]
V2 = [" the small gold metal snitch is picked up and placed to the first quadrant.", " the large red rubber cone is picked up and containing the small gold metal snitch.",
      " the cube is rotating. the medium gray metal cylinder is sliding to (1, 1).", " the purple sphere is sliding to the second quadrant.", " the rubber cube is rotating."]


@pytest.mark.parametrize("caption", V1 + V2)
def test_sentences(caption):
    "Said again, a caption is what it was; and each sentence has its own event."
    events = parse_caption(caption)
    assert compose_cater_caption(events) == caption and len(events) == caption.count(".")


def test_meaning():
    assert parse_caption(V2[1]) == [CaptionEvent(ObjectDescription("large", "red", "rubber", "cone"), "containing", None, ObjectDescription("small", "gold", "metal", "snitch"))]
    assert parse_caption(V1[4]) == [CaptionEvent(ObjectDescription(shape="snitch"), "sliding", 4), CaptionEvent(ObjectDescription(shape="cone"), "rotating")]
    assert parse_caption(V1[2]) == [CaptionEvent(ObjectDescription(shape="cone"), "placed", (3, -3))]


def test_every_thing():
    for looks in itertools.product(*(("", *words) for words in list(OBJECT_ATTRIBUTES.values())[:3]), OBJECT_ATTRIBUTES["shape"]):
        event = CaptionEvent(ObjectDescription(*looks), "rotating")
        assert parse_caption(compose_cater_caption([event])) == [event]


def test_every_word_matters():
    "No word can be left out, doubled or misspelt unnoticed, except attributes, which may be missing."
    for caption in V1 + V2:
        words = caption.split()
        free = {w for words in list(OBJECT_ATTRIBUTES.values())[:3] for w in words}
        for k, word in enumerate(words):
            others = [words[:k] + ["xyz"] + words[k + 1:], words[:k] + [word] + words[k:]] + ([] if word in free else [words[:k] + words[k + 1:]])
            for other in others:
                with pytest.raises(ValueError, match="caption '"):
                    parse_caption(" ".join(other))


@pytest.mark.parametrize("text, part", [("the cone is hopping.", "found 'hopping' where one of these was expected: sliding, rotating, picked"), ("the cone is sliding to (4, 1).", r"\(4, 1\) is no destination"),
                                        ("the pink cone is rotating.", "found 'pink' where .* gold, .*metal, rubber, sphere"), ("", "found nothing more"), ("the cone is rotating. and", "found 'and'")])
def test_the_word_is_named(text, part):
    with pytest.raises(ValueError, match=part):
        parse_caption(text)


@pytest.mark.parametrize("n", [1, 2, 30, 60, 301])
@pytest.mark.parametrize("u", [0, .3, 1])
def test_pace(n, u):
    "As the public code has it."
    at = np.floor(np.linspace(0, n - 1, max(round(n / (3 + 3 * u)), 1))).astype(int)[:10].tolist()
    assert variable_speed_indices(n, 10, u).tolist() == at + [at[-1]] * (10 - len(at))


@pytest.fixture(scope="module", params=[1, 2])
def root(request, tmp_path_factory) -> Path:
    "A small CATER-GEN of either version; entry 10 comes after entry 2, and one video has two captions."
    root = tmp_path_factory.mktemp("cater")
    for k in range(4):
        write(root / f"videos/CATER_new_{k:06d}.avi", pixels(k, 60 if k < 3 else 20), "mpeg4", "yuv420p")
    texts = V1 if request.param == 1 else V2
    for split, kind in itertools.product(("train", "test"), ("explicit", "ambiguous")):
        said = {n: dict(video=f"videos/CATER_new_{k:06d}.avi", caption=texts[k + (kind == "ambiguous")]) for n, k in (("10", 2), ("0", 0), ("2", 1), ("11", 3), ("12", 0))}
        (root / f"{split}_{kind}.json").write_text(json.dumps(said))
    (root / "version").write_text(str(request.param))
    return root


def test_videos(root):
    "Captions by number, frames by pace, pixels by PyAV alone."
    texts = V1 if (root / "version").read_text() == "1" else V2
    for kind, more in (("explicit", 0), ("ambiguous", 1)):
        test = CaterGen(root, split="test", caption_type=kind, size=64)
        assert test.version == int((root / "version").read_text()) and len(test) == 5
        for n, k in enumerate((0, 1, 2, 3, 0)):
            got, want = test[n], whole(root / f"videos/CATER_new_{k:06d}.avi")
            assert got["caption"] == texts[k + more].strip() and got["speed"] == .5
            assert np.array_equal(as_bytes(got["video"]), want[variable_speed_indices(len(want), 10, .5)])
    train = CaterGen(root, size=64)
    speeds = set()
    for k in range(10):
        got, i = train[k], train.locate_clip(k)[0]
        want = whole(root / train.files[i])
        speeds.add(got["speed"])
        assert np.array_equal(as_bytes(got["video"]), want[variable_speed_indices(len(want), 10, got["speed"])]) and got["caption"] == train.captions[i]
    assert len(speeds) == 10 and train.batch([0, 1])["video"].shape == (2, 3, 10, 64, 64)
    assert CaterGen(root)[0]["video"].shape == (3, 10, 128, 128)
    assert ("24,000" in train.describe_missing()) == (train.version == 2)


def test_a_misprint_is_left_out_and_kept_in_mind(tmp_path):
    write(tmp_path / "videos/v.avi", pixels(0, 60), "mpeg4", "yuv420p")
    said = {n: dict(video="videos/v.avi", caption=caption) for n, caption in (("0", V1[0]), ("1", " the cone rotates."), ("2", V1[1]))}
    (tmp_path / "train_explicit.json").write_text(json.dumps(said))
    clips = CaterGen(tmp_path, on_error="skip")
    assert clips.captions == [V1[0].strip(), V1[1].strip()] and len(clips) == 2
    assert list(clips.unreadable) == ["train_explicit.json#1"] and "entry 1: caption ' the cone rotates.'" in clips.unreadable["train_explicit.json#1"]


def test_lists_that_are_wrong(tmp_path):
    file = tmp_path / "train_explicit.json"
    for text, part in (('{"7": {"video": "v.avi", "caption": " the cone rotates."}}', "entry 7: caption ' the cone rotates.': found 'rotates' where one of these was expected: is"),
                       ("{", "is no JSON"), ("[]", "should map numbers"), ('{"a": {"video": "v", "caption": "c"}}', "should map numbers"), ('{"1": {"caption": ""}}', "should map numbers"),
                       ('{"1": {"video": "v", "caption": null}}', "entry 1"), ('{"1": {"video": null, "caption": " the cone is rotating."}}', "entry 1: its video is None"),
                       ('{"1": {"video": "", "caption": " the cone is rotating."}}', "entry 1: its video is ''")):
        file.write_text(text)
        with pytest.raises(ValueError, match=part):
            CaterGen(tmp_path)
    file.write_text("{}")
    with pytest.raises(FileNotFoundError, match="no train video of CaterGen"):
        CaterGen(tmp_path)
    file.write_text(json.dumps({"0": dict(video="videos/gone.avi", caption=V1[0])}))
    with pytest.raises(ValueError, match="cannot read '.*gone.avi'"):
        CaterGen(tmp_path)[0]
    with pytest.raises(FileNotFoundError, match="train_ambiguous.json', which says what the videos show"):
        CaterGen(tmp_path, caption_type="ambiguous")
