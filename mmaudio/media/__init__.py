"""Media files in and out: frames and sound from files, sound into files, nothing of the rest of the package.

Everything raises `MediaError`, whose message is one line for the user.
"""

from mmaudio.media.audio import read_audio, write_audio
from mmaudio.media.encode import MuxResult
from mmaudio.media.errors import MediaError
from mmaudio.media.image import read_image
from mmaudio.media.mux import mux
from mmaudio.media.probe import MediaInfo, find_videos, probe
from mmaudio.media.still import still_video
from mmaudio.media.video import VideoFrames, read_video

__all__ = [
    "MediaError",
    "MediaInfo",
    "MuxResult",
    "VideoFrames",
    "find_videos",
    "mux",
    "probe",
    "read_audio",
    "read_image",
    "read_video",
    "still_video",
    "write_audio",
]
