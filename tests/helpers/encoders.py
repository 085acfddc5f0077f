"""Settings and texts of the tests of text encoders."""

from tests.helpers.files import STORIES

TEXTS = [
    "Once upon a time, there was a little girl named Lily.",
    "",
    "Tom and his dog play in the park",
    "🐶🎈 a red balloon",
    "שלום עולם",
    "مرحبا بالعالم",
    "   \t\n",
    "The cat sat on the big mat and saw it. " * 3,
    "a",
    "\ud83d half a character",
    "Lily and Tom",
]


WITH_ENCODER = ("--item_vectors=text", f"--text_encoder={STORIES}", "--epochs=1")
