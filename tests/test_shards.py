"Tar files that are read front to back: whole after any interruption, dealt out to processes, and named when they are torn."
import functools
import http.server
import json
import shutil
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_videos import pixels, write
from test_train import in_two_processes, script
from torch.utils.data import DataLoader

from lamd_nb.data.video.clips import Clips
from lamd_nb.data.video.cache import CachedClips
from lamd_nb.data.video.cache_write import write_cache
from lamd_nb.data.video.shards import ShardedClips, split_into_segments, write_shards
from lamd_nb.data.specs import dataset_from_spec
from lamd_nb.training.loaders import make_loader


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Seven videos in two classes, and shards of them."
    home = tmp_path_factory.mktemp("shards")
    for k in range(7):
        write(home / f"videos/{'ab'[k % 2]}/{k}.mp4", pixels(k, 20 + 9 * k))
    write_shards(Clips(home / "videos"), home / "shards", shard_size_mb=.8, segment_frames=20)
    return home


@pytest.mark.parametrize("segment", [1, 7, 16, 64])
def test_segments_cover_videos(segment):
    lengths = [1, 5, 16, 31, 64, 200]
    cut = split_into_segments(lengths, segment)
    for i, n in enumerate(lengths):
        mine = [(a, b) for j, a, b in cut if j == i]
        assert mine[0][0] == 0 and mine[-1][1] == n and all(b == a for (_, b), (a, _) in zip(mine, mine[1:]))
        assert n < segment or all(segment <= b - a < 2 * segment for a, b in mine)


@pytest.mark.parametrize("options", [dict(), dict(flip=True, colour_jitter=.3), dict(colour_jitter=(.1, .2, .3, .4)), dict(window="very_random", seed=3), dict(split="test"), dict(stride=2, frames=8), dict(fps=12, frames=6)])
def test_clips_are_those_of_the_videos(home, options):
    "A cache of the segments, made by hand, gives the same clips."
    shards = ShardedClips(home / "shards", **options)
    for k in (0, 3, 50):
        i, _ = shards.locate_clip(k)
        name, _, start = shards.files[i].rpartition("#")
        videos = Clips(home / "videos")
        whole = videos.get_reader(videos.files.index(name))
        x = np.stack(list(whole.read(range(int(start), int(start) + len(shards.open(i))))))
        assert np.array_equal(shards.open(i).frames.transpose(0, 2, 3, 1), x)
        one, many = shards[k], shards.batch([k, k + 1])
        assert torch.equal(one["video"], many["video"][0]) and one["caption"] == name.split("/")[0] == "ab"[one["label"]]
    assert shards.find_corrupted() == []


def test_any_order_is_the_same(home):
    "Forwards, backwards, with no memory for what passed by, and by threads."
    straight = ShardedClips(home / "shards").batch(range(12))["video"]
    for shards in (ShardedClips(home / "shards"), ShardedClips(home / "shards", buffer_mib=0)):
        for k in reversed(range(12)):
            assert torch.equal(shards[k]["video"], straight[k])
    shared, got = ShardedClips(home / "shards"), {}
    threads = [threading.Thread(target=lambda r: got.update({k: shared[k]["video"] for k in range(r, 12, 3)}), args=(r,)) for r in range(3)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert all(torch.equal(got[k], straight[k]) for k in range(12))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_parts(home, ranks):
    "Parts of parts meet each segment once in each epoch."
    whole = ShardedClips(home / "shards")
    for epoch in (0, 4):
        met = []
        for r in range(ranks):
            part = whole.split_by_rank(r, ranks)
            met += [part.locate_clip(epoch * len(part) + k)[0] for k in range(len(part))]
        assert sorted(met) == list(range(len(whole)))


DEALT = '''
import json
from accelerate import Accelerator
from accelerate.utils import gather_object
from lamd_nb.data.specs import dataset_from_spec
accelerator = Accelerator(cpu=True)
root, name = sys.argv[1].split("|")
source, seen = dataset_from_spec(f"wds:{root}"), []
steps = len(source.datasets[0].split_by_rank(accelerator.process_index, 2))

class Watched:
    def batch(self, index): raise AssertionError("nobody asks all shards")
    def split_by_rank(self, rank, world_size):
        mine = source.split_by_rank(rank, world_size)
        class Part:
            def batch(self, index):
                b = mine.batch(index)
                seen.extend(b["file"])
                return b
        return Part()

batches = iterate_batches(make_loader(Watched(), 1), 0, accelerator.process_index, accelerator.num_processes)
for _ in range(steps): next(batches)
everything = gather_object([seen])
if accelerator.is_main_process:
    with open(name, "w") as f: json.dump(everything, f)
accelerator.end_training()
'''


def test_two_processes(home, tmp_path):
    "An epoch of two processes: all segments, none twice."
    program = script(tmp_path, "from lamd_nb.training.loaders import iterate_batches, make_loader\n" + DEALT)
    in_two_processes(program, f"{home / 'shards'}|{tmp_path / 'seen.json'}")
    a, b = json.loads((tmp_path / "seen.json").read_text())
    assert a and b and sorted(a + b) == sorted(ShardedClips(home / "shards").files)


def test_worker_processes(home, monkeypatch):
    "A stream in a loader deals the shards out to its workers, and to the processes that torchrun has started."
    def epoch(workers):
        loader = iter(DataLoader(make_loader(ShardedClips(home / "shards"), 1), batch_size=None, num_workers=workers, multiprocessing_context="spawn"))
        shares = [len(ShardedClips(home / "shards").split_by_rank(n, 2)) for n in range(2)]
        return [next(loader)["file"][0] for _ in range(2 * max(shares))], shares
    names, shares = epoch(2)
    seen = [names[n::2][:share] for n, share in enumerate(shares)]     # a loader asks its workers by turns
    assert sorted(seen[0] + seen[1]) == sorted(ShardedClips(home / "shards").files)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    mine = ShardedClips(home / "shards").split_by_rank(1, 2)
    assert next(iter(make_loader(ShardedClips(home / "shards"), len(mine))))["file"] == mine.batch(make_loader(mine, len(mine)).batch_index(0))["file"]


@pytest.mark.parametrize("left", ["nothing", "a part", "one tar", "all but the end"])
def test_interrupted(home, tmp_path, left):
    "Whatever an interruption leaves, a second call makes what one call makes."
    want = {p.name: p.read_bytes() for p in (home / "shards").iterdir()}
    out = tmp_path / "out"
    if left != "nothing":
        shutil.copytree(home / "shards", out)
        facts = json.loads(want["lamd_cache.json"])
        (out / "lamd_cache.json").write_text(json.dumps({key: value for key, value in facts.items() if key != "complete"} | {"complete": False}))
        (out / "index.jsonl").unlink()
        for tar in sorted(out.glob("*.tar"))[0 if left == "a part" else 1 if left == "one tar" else 99:]:
            (out / f"{tar.name}.part").write_bytes(tar.read_bytes()[:1000])
            tar.unlink()
        with pytest.raises(ValueError, match="is not finished"):
            ShardedClips(out)
    write_shards(Clips(home / "videos"), out, shard_size_mb=.8, segment_frames=20)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == want


@pytest.fixture()
def ill(home, tmp_path) -> Path:
    "The videos, of which one is no video, one is too short, and one breaks off within."
    shutil.copytree(home / "videos", tmp_path / "ill")
    (tmp_path / "ill/b/1.mp4").write_bytes(b"no video")
    write(tmp_path / "ill/a/2.mp4", pixels(2, 9))
    video = bytearray((tmp_path / "ill/b/5.mp4").read_bytes())
    at = video.index(b"mdat") + 4
    video[at + 3000:at + 3400] = bytes(400)
    (tmp_path / "ill/b/5.mp4").write_bytes(video)
    return tmp_path / "ill"


def patiently(*args, **options) -> tuple:
    "What `write_shards` says, and what it warns of."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        facts = write_shards(*args, **options)
    return facts, [str(w.message) for w in said]


def test_videos_that_cannot_be_used(home, ill, tmp_path):
    "Left out, told and noted, as by `write_cache`; the rest is cut as if they had never been; and without `skip` they are errors as before."
    with pytest.raises(ValueError, match="2.mp4' has 9 frames|cannot read '.*1.mp4'"):
        write_shards(Clips(ill), tmp_path / "out", shard_size_mb=.8, segment_frames=20)
    assert not (tmp_path / "out").exists()
    clips = Clips(ill, on_error="skip")
    facts, said = patiently(clips, tmp_path / "out", shard_size_mb=.8, segment_frames=20)
    bad = ["a/2.mp4", "b/1.mp4", "b/5.mp4"]
    assert facts["num_skipped"] == 3 and list(facts["skipped_videos"]) == bad and "new folder" in facts["note"] and facts["num_videos"] == 7
    assert len(said) == 3 and all(line.startswith("skipped: ") and name in line for line, name in zip(said, bad))
    assert [clips.files[i] for i in clips.skipped] == bad
    shards = ShardedClips(tmp_path / "out")
    assert {name.rpartition("#")[0] for name in shards.files} == {*clips.files} - {*bad} and not shards.find_corrupted() and len(shards) == sum(facts["shard_sizes"])
    assert shards.classes == ["a", "b"] and shards.batch(range(9))["video"].isfinite().all()
    first = shards.files.index("a/6.mp4#0")
    whole = Clips(home / "videos")
    video = whole.get_reader(whole.files.index("a/6.mp4"))
    assert np.array_equal(shards.open(first).frames.transpose(0, 2, 3, 1), np.stack(list(video.read(range(len(shards.open(first)))))))
    healthy = write_shards(Clips(home / "videos"), tmp_path / "all", shard_size_mb=.8, segment_frames=20)
    assert healthy["num_skipped"] == 0 and "note" not in healthy and "skipped_videos" not in healthy
    for clips in (clips, whole):
        clips.skipped.clear()


def test_left_out_for_good(home, ill, tmp_path, monkeypatch):
    "A second call looks up what the first has found, tells it, and decodes no video to find it again; mended videos need a new folder."
    facts, _ = patiently(Clips(ill, on_error="skip"), tmp_path / "out", shard_size_mb=.8, segment_frames=20)
    want = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    (tmp_path / "out/000001.tar").unlink()
    (tmp_path / "out/lamd_cache.json").write_text(json.dumps({k: v for k, v in facts.items() if k not in ("note", "num_skipped")} | {"complete": False}))
    for name in facts["skipped_videos"]:
        shutil.copy(home / "videos" / name, ill / name)
    monkeypatch.setattr("lamd_nb.data.video.shards._video_error", lambda *_: pytest.fail("videos were looked through again"))
    again, said = patiently(Clips(ill, on_error="skip"), tmp_path / "out", shard_size_mb=.8, segment_frames=20)
    assert again == facts and len(said) == 3 and {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == want
    monkeypatch.undo()
    with pytest.raises(ValueError, match="was cached with shard_sizes .*name another folder"):
        write_shards(Clips(ill), tmp_path / "out", shard_size_mb=.8, segment_frames=20)
    assert write_shards(Clips(ill), tmp_path / "new", shard_size_mb=.8, segment_frames=20)["num_skipped"] == 0


def test_a_patient_call_goes_on_where_a_strict_one_began(home, tmp_path):
    shutil.copytree(home / "shards", tmp_path / "out")
    (tmp_path / "out/000001.tar").unlink()
    facts, said = patiently(Clips(home / "videos", on_error="skip"), tmp_path / "out", shard_size_mb=.8, segment_frames=20)
    assert facts["num_skipped"] == 0 and not said
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {p.name: p.read_bytes() for p in (home / "shards").iterdir()}


def test_without_webdataset(home, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    for ask in (lambda: write_shards(Clips(home / "videos"), tmp_path / "out"), lambda: ShardedClips(home / "shards").batch([0])):
        with pytest.raises(ImportError, match=r"need the package webdataset: pip install lamd_nb\[wds\]"):
            ask()
    assert not (tmp_path / "out").exists()


def test_nothing_to_cut(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/1.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="none of the 1 videos in .* can be used: cannot read"):
        patiently(Clips(tmp_path / "videos", on_error="skip"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cache_can_be_sharded(home, tmp_path):
    write_cache(Clips(home / "videos"), tmp_path / "cache")
    write_shards(CachedClips(tmp_path / "cache"), tmp_path / "shards", shard_size_mb=.8, segment_frames=20)
    for tar in sorted((home / "shards").glob("*.tar")):
        assert (tmp_path / "shards" / tar.name).read_bytes() == tar.read_bytes()
    with pytest.raises(ValueError, match="it is not cut into shards"):
        ShardedClips(tmp_path / "cache")


@pytest.mark.skipif(not shutil.which("curl"), reason="webdataset reads addresses with curl, which is not here")
def test_by_address(home):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(home)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        far = dataset_from_spec(f"wds:http://127.0.0.1:{server.server_port}/shards")
        near = dataset_from_spec(f"wds:{home / 'shards'}")
        assert torch.equal(far.batch(range(5))["video"], near.batch(range(5))["video"])
        with pytest.raises((ValueError, OSError)):
            dataset_from_spec(f"wds:http://127.0.0.1:{server.server_port}/nowhere")
    finally:
        server.shutdown()


@pytest.mark.parametrize("how", ["cut", "garbage", "swapped", "gone"])
def test_a_torn_shard_is_named(home, tmp_path, how):
    shutil.copytree(home / "shards", tmp_path / "torn")
    tar = tmp_path / "torn/000001.tar"
    x = tar.read_bytes()
    if how == "gone": tar.unlink()
    else: tar.write_bytes(dict(cut=x[:len(x) // 2], garbage=bytes(reversed(x)), swapped=(tmp_path / "torn/000000.tar").read_bytes())[how])
    shards = ShardedClips(tmp_path / "torn", split="test")
    n = shards.shard_sizes[0]
    assert shards.batch(range(n))["video"].isfinite().all()
    for _ in range(2):                                                       # asked again, the answer is the same
        with pytest.raises(ValueError, match="000001.tar|holds another segment"):
            shards.batch(range(n, n + shards.shard_sizes[1]))


def test_videos_with_rules_about_the_whole_stay_whole(home, tmp_path):
    for window in ("uniform", "variable_speed", "very_random"):
        clips = Clips(home / "videos", window=window)
        write_shards(clips, tmp_path / window)
        shards = ShardedClips(tmp_path / window, split="test")
        assert sorted(shards.files) == [f"{name}#0" for name in sorted(clips.files)] and shards.window == window


def test_another_shard_of_the_same_shape(home, tmp_path):
    "Segments of equal length in the wrong place are told by their names."
    for k in range(4):
        write(tmp_path / f"videos/{k}.mp4", pixels(k, 20))
    write_shards(Clips(tmp_path / "videos"), tmp_path / "out", shard_size_mb=.3)
    shutil.copy(tmp_path / "out/000000.tar", tmp_path / "out/000001.tar")
    shards = ShardedClips(tmp_path / "out", split="test")
    assert shards.find_corrupted() == [shards.files[1]]
    with pytest.raises(ValueError, match="holds another segment than"):
        shards[1]


def test_forked_processes_read_for_themselves(home):
    "A shard that is half read when a process is forked is not read on by both."
    shards = ShardedClips(home / "shards")
    straight = ShardedClips(home / "shards").batch(range(12))["video"]
    shards[0]
    for n, x in enumerate(DataLoader(Each(shards, 12), batch_size=None, num_workers=2, multiprocessing_context="fork")):
        assert torch.equal(x, straight[n])


class Each:
    def __init__(self, shards, n): self.shards, self.n = shards, n
    def __len__(self): return self.n
    def __getitem__(self, k): return self.shards[k]["video"]


def test_one_wrong_bit(home, tmp_path):
    shutil.copytree(home / "shards", tmp_path / "bit")
    tar = tmp_path / "bit/000000.tar"
    x = bytearray(tar.read_bytes())
    x[3000] ^= 4
    tar.write_bytes(x)
    shards = ShardedClips(tmp_path / "bit", split="test")
    assert shards.find_corrupted() == [shards.files[0]]


def test_what_cannot_be_meant(home, tmp_path):
    with pytest.raises(ValueError, match="need as many shards"):
        ShardedClips(home / "shards").split_by_rank(0, 99)
    with pytest.raises(ValueError, match="window 'consecutive' needs a cache"):
        ShardedClips(home / "shards", window="consecutive")
    with pytest.raises(ValueError, match="cached with size 64, but 32"):
        ShardedClips(home / "shards", 32)
    with pytest.raises(ValueError, match="has 20 frames, but 40"):
        write_shards(Clips(home / "videos", frames=40), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert Path(home / "videos").is_dir()
