"A picture and a frame of a film go through the same door."
import imageio.v3 as iio
from footage import pixels, write
from PIL import Image

from lamd_nb.data.video.clips import Clips
from lamd_nb.data.video.reading import Video
from lamd_nb.data.images import load_image


def test_gif_and_first_image(tmp_path):
    x = pixels(2)
    (tmp_path / "films").mkdir()
    iio.imwrite(tmp_path / "films" / "a.gif", x, duration=80, loop=0)
    Image.fromarray(x[0]).save(tmp_path / "a.png")
    first = Clips(tmp_path / "films", split="test").batch([0])["video"][0, :, 0]
    assert (first - load_image(tmp_path / "a.png", 64)[0][0]).abs().mean() < .1


def test_the_same_door(tmp_path):
    "A wide frame, saved as a picture and loaded, is the frame that training sees, to a level of 255."
    film = write(tmp_path / "films" / "wide.mp4", pixels(3, 16, 96)[:, 20:74])
    Image.fromarray(next(Video(film).read([0]))).save(tmp_path / "frame.png")
    seen = Clips(film.parent, 32, split="test").batch([0])["video"][:, :, 0]
    assert (load_image(tmp_path / "frame.png", 32)[0] - seen).abs().max() < 1.5 / 127.5
