"""What people often do not want to hear, and how loud they want the rest."""

NEGATIVE = {  # name of a preset -> words of the negative prompt
    "No speech": "speech, voices",
    "No music": "music, singing",
    "Foley only": "speech, voices, music, singing, background noise",
}
AS_IT_COMES = "As it comes"
LOUDNESS = {  # what people call it -> LUFS
    AS_IT_COMES: None,
    "−14 LUFS, streaming": -14.0,
    "−16 LUFS, podcasts": -16.0,
    "−23 LUFS, broadcast": -23.0,
}


def with_words(text: str, words: str) -> str:
    """A comma-separated text with those of the words that it lacks at its end."""
    there = [part.strip() for part in text.split(",") if part.strip()]
    known = {part.casefold() for part in there}
    return ", ".join([*there, *(word for word in words.split(", ") if word.casefold() not in known)])
