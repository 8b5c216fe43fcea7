"""Ratings to a table: mean, standard deviation, and a Bradley-Terry ranking of the methods for each question."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mmaudio.study.answers import Answers, Rating
from mmaudio.study.questions import QUESTIONS

HEAD_START = 0.5  # wins that every method has over every other: one that always wins has a finite strength
TOLERANCE, ROUNDS = 1e-12, 100_000


@dataclass(frozen=True)
class Score:
    """How a method did in one question."""

    method: str
    mean: float
    std: float  # of the ratings, with n - 1; NaN for a single one
    n: int  # ratings
    strength: float  # Bradley-Terry, natural logarithm, zero on average over the methods
    preferred: float  # probability to be preferred to another method, averaged over the others


def scores(ratings: Iterable[Rating], question: str, methods: Sequence[str]) -> list[Score]:
    """The rated methods, strongest first."""
    ratings = [rating for rating in ratings if rating.question == question]
    values = {m: np.array([r.rating for r in ratings if r.method == m]) for m in methods}
    methods = [m for m in methods if len(values[m])]
    strength = bradley_terry(preferences(ratings, methods))
    odds = 1 / (1 + np.exp(strength[None] - strength[:, None]))  # (M, M): row preferred to column
    preferred = (odds.sum(1) - 0.5) / max(1, len(methods) - 1)
    rows = [
        Score(m, values[m].mean(), values[m].std(ddof=1) if len(values[m]) > 1 else np.nan, len(values[m]), s, p)
        for m, s, p in zip(methods, strength, preferred, strict=True)
    ]
    return sorted(rows, key=lambda row: -row.strength)


def preferences(ratings: Iterable[Rating], methods: Sequence[str]) -> np.ndarray:
    """How often the method of the row was rated above that of the column, (M, M); a tie is half a win for both.

    Compared are the ratings that one participant gave to one video.
    """
    pages: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for rating in ratings:
        pages[rating.participant, rating.video][rating.method] = rating.rating
    wins = np.zeros((len(methods), len(methods)))
    for page in pages.values():
        given = np.array([page.get(method, np.nan) for method in methods])
        wins += (given[:, None] > given[None]) + 0.5 * (given[:, None] == given[None])
    np.fill_diagonal(wins, 0)
    return wins


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Log-strengths (M,), zero on average, of the model P(i beats j) = s_i / (s_i + s_j), from wins (M, M).

    Maximum likelihood after HEAD_START further wins for each side of each pair, by minorise-maximise steps
    (Hunter 2004, "MM algorithms for generalized Bradley-Terry models", equation 3).
    """
    wins = wins + HEAD_START * (1 - np.eye(len(wins)))
    games, won = wins + wins.T, wins.sum(1)
    log = np.zeros(len(wins))
    for _ in range(ROUNDS if len(wins) > 1 else 0):
        strength = np.exp(log)
        new = np.log(won / (games / (strength[:, None] + strength[None])).sum(1))
        new -= new.mean()
        moved, log = np.abs(new - log).max(), new
        if moved < TOLERANCE:
            break
    return log


def report(answers: Answers) -> str:
    """The table as text for a terminal."""
    ratings = answers.ratings()
    done: dict[str, set[str]] = defaultdict(set)
    for rating in ratings:
        done[rating.participant].add(rating.video)
    whole = sum(len(videos) == len(answers.videos) for videos in done.values())
    lines = [f"{len(done)} participants, {whole} of them with all {len(answers.videos)} videos"]
    wide = max(len("method"), *map(len, answers.methods))
    for question, statement in QUESTIONS.items() if ratings else ():
        lines += ["", f"{question}: {statement}", f"  {'method':{wide}}   mean   std      n  strength  preferred"]
        for row in scores(ratings, question, answers.methods):
            first = f"  {row.method:{wide}}  {row.mean:5.2f} {row.std:5.2f} {row.n:6d}"
            lines.append(f"{first} {row.strength:+9.2f} {row.preferred:8.0%}")
    if ratings:
        lines += [
            "",
            "strength: Bradley-Terry, of which sound of a video a participant rated higher",
            "preferred: how probably to another method, by these strengths",
        ]
    return "\n".join(lines)
