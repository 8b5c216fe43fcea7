"""Which backbones there are: what they take, their licences, their weight files and the packages they need."""

from dataclasses import dataclass

from mmaudio.weights import OFFICIAL, WeightFile
from mmaudio.weights.files import HUB


@dataclass(frozen=True)
class BackboneInfo:
    """One row of `BACKBONES`."""

    name: str
    modalities: tuple[str, ...]  # of "audio", "video", "text"
    about: str
    licence: str  # of the weights
    files: tuple[WeightFile, ...] = ()
    packages: tuple[str, ...] = ()  # modules that must be importable and that the package itself does not require
    install: str = ""  # how to get them
    preprocessing: int = 1  # raised with whatever changes the features, except the weights

    @property
    def bundled(self) -> bool:
        return all(file.url is None for file in self.files)


def _hub(repo: str, hub_file: str, name: str, **facts) -> WeightFile:
    url = f"{HUB}/{repo}/resolve/main/{hub_file}"
    return WeightFile(name, url, hub_repos=(repo,), hub_file=hub_file, **facts)


PANNS = WeightFile(
    "Cnn14_16k_mAP=0.438.pth",
    "https://zenodo.org/record/3987831/files/Cnn14_16k_mAP%3D0.438.pth",
    md5="362fc5ff18f1d6ad2f6d464b45893f2c",
    sha256="e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
    size="342M",
    licence="code MIT; weights as stated on the record (zenodo.org/record/3987831)",
)
VGGISH = WeightFile(
    "vggish-10086976.pth",
    "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
    sha256="10086976",  # the name carries the start of it
    size="275M",
    licence="Apache-2.0",
)
PASST = WeightFile(
    "passt-s-f128-p16-s10-ap.476-swa.pt",
    "https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt",
    sha256="302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
    size="329M",
    licence="Apache-2.0",
)
CLAP_LAION = _hub(
    "lukewys/laion_clap", "music_speech_audioset_epoch_15_esc_89.98.pt", "music_speech_audioset_epoch_15_esc_89.98.pt",
    sha256="51c68f12f9d7ea25fdaaccf741ec7f81e93ee594455410f3bca4f47f88d8e006", size="2.2G",
    licence="code CC0-1.0; weights: see the hub page",
)  # fmt: skip
CLAP_MS = _hub(
    "microsoft/msclap", "CLAP_weights_2023.pth", "CLAP_weights_2023.pth", licence="code MIT; weights: see the hub page"
)
IMAGEBIND = WeightFile(
    "imagebind_huge.pth",
    "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
    size="4.5G",
    licence="CC BY-NC-SA 4.0: not for commercial use",
)
AUDIOBOX = _hub(
    "facebook/audiobox-aesthetics", "checkpoint.pt", "audiobox_aesthetics_checkpoint.pt",
    aliases=("audiobox-aesthetics/checkpoint.pt",), licence="CC BY 4.0",
)  # fmt: skip


ROBERTA = tuple(  # the tokeniser's; by their names alone they would clash with other models'
    _hub(
        "FacebookAI/roberta-base", name, f"roberta-base_{name}", aliases=(f"roberta-base/{name}",), licence="MIT",
    )
    for name in ("vocab.json", "merges.txt")
)  # fmt: skip


JUDGE = WeightFile("stage_judge.safetensors", None, licence="MIT")


BACKBONES: dict[str, BackboneInfo] = {
    info.name: info
    for info in (
        BackboneInfo(
            "panns", ("audio",), "PANNs Cnn14 at 16 kHz, an AudioSet tagger: FD, KL, IS, speech and music",
            PANNS.licence, (PANNS,),
        ),
        BackboneInfo("vggish", ("audio",), "VGGish, without its last ReLU: FD (FAD)", VGGISH.licence, (VGGISH,)),
        BackboneInfo("passt", ("audio",), "PaSST-S, an AudioSet tagger: FD, KL, IS", PASST.licence, (PASST,)),
        BackboneInfo(
            "synchformer", ("audio", "video"), "Synchformer with its offset head: DeSync",
            OFFICIAL["synchformer_state_dict.pth"].licence, (OFFICIAL["synchformer_state_dict.pth"],),
        ),
        BackboneInfo(
            "imagebind", ("audio", "video"), "ImageBind huge: IB-score",
            IMAGEBIND.licence, (IMAGEBIND,),
            ("imagebind",), "pip install --no-deps imagebind-unofficial==0.1.1 && pip install iopath ftfy regex",
        ),
        BackboneInfo(
            "clap_laion", ("audio", "text"), "LAION-CLAP, HTSAT and RoBERTa: CLAP score",
            CLAP_LAION.licence, (CLAP_LAION, *ROBERTA),
            ("transformers",), "pip install 'mmaudio[eval]'",
        ),
        BackboneInfo(
            "clap_ms", ("audio", "text"), "MS-CLAP 2023, HTSAT and GPT-2: CLAP score",
            CLAP_MS.licence, (CLAP_MS,),
            ("msclap",), "pip install msclap==1.3.4",
        ),
        BackboneInfo(
            "audiobox", ("audio",), "Audiobox-Aesthetics: production quality and complexity, enjoyment, usefulness",
            AUDIOBOX.licence, (AUDIOBOX,),
            ("audiobox_aesthetics",), "pip install audiobox-aesthetics==0.0.4",
        ),
        BackboneInfo(
            "judge", ("audio",), "the bundled tagger of Foley Stage sounds: labels, KL, IS, FD", JUDGE.licence, (JUDGE,)
        ),
    )
}  # fmt: skip
