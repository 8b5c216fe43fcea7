"""What is asked: the three questions of the paper's appendix A, as statements on one sound and as choices of two."""

QUESTIONS = {  # name in the answers and in the report -> statement
    "quality": "The sound is clean and natural: free of noise, distortion and artefacts.",
    "semantics": "The sound fits the scene: it is what the things and actions in the picture would sound like.",
    "timing": "The sound is in time: everything is heard at the moment at which it is seen.",
}
SCALE = range(1, 6)  # Likert: from "strongly disagree" to "strongly agree"
LOWEST, HIGHEST = "strongly disagree", "strongly agree"
COMPARISONS = {  # the same questions, of two sounds
    "quality": "Which sound is cleaner and more natural: freer of noise, distortion and artefacts?",
    "semantics": "Which sound fits the scene better: is more what the things in the picture would sound like?",
    "timing": "Which sound is better in time: is heard more exactly at the moments at which things are seen?",
}
NEITHER = "no difference"
