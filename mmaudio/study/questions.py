"""What is asked of every sound: the three questions of the paper's appendix A, as statements in our words."""

QUESTIONS = {  # name in the answers and in the report -> statement
    "quality": "The sound is clean and natural: free of noise, distortion and artefacts.",
    "semantics": "The sound fits the scene: it is what the things and actions in the picture would sound like.",
    "timing": "The sound is in time: everything is heard at the moment at which it is seen.",
}
SCALE = range(1, 6)  # Likert: from "strongly disagree" to "strongly agree"
LOWEST, HIGHEST = "strongly disagree", "strongly agree"
