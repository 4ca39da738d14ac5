"An image and a frame of a video go through the same door."
import imageio.v3 as iio
from sample_videos import pixels, write
from PIL import Image

from lamd_nb.data.video.clips import Clips
from lamd_nb.data.video.reading import VideoFile
from lamd_nb.data.images import load_image


def test_gif_and_first_image(tmp_path):
    x = pixels(2)
    (tmp_path / "videos").mkdir()
    iio.imwrite(tmp_path / "videos" / "a.gif", x, duration=80, loop=0)
    Image.fromarray(x[0]).save(tmp_path / "a.png")
    first = Clips(tmp_path / "videos", split="test").batch([0])["video"][0, :, 0]
    assert (first - load_image(tmp_path / "a.png", 64)[0][0]).abs().mean() < .1


def test_the_same_door(tmp_path):
    "A wide frame, saved as an image and loaded, is the frame that training sees, to a level of 255."
    video = write(tmp_path / "videos" / "wide.mp4", pixels(3, 16, 96)[:, 20:74])
    Image.fromarray(next(VideoFile(video).read([0]))).save(tmp_path / "frame.png")
    seen = Clips(video.parent, 32, split="test").batch([0])["video"][:, :, 0]
    assert (load_image(tmp_path / "frame.png", 32)[0] - seen).abs().max() < 1.5 / 127.5
