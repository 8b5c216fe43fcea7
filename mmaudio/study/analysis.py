"""Answers to a table: mean, standard deviation, and a Bradley-Terry ranking of the methods for each question."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mmaudio.study.answers import Answers, Choice, Rating
from mmaudio.study.questions import NEITHER, QUESTIONS

HEAD_START = 0.5  # wins that every method has over every other: one that always wins has a finite strength
TOLERANCE, ROUNDS = 1e-12, 100_000
RESAMPLES, ENDS = 1000, (0.025, 0.975)  # bootstrap over participants


@dataclass(frozen=True)
class Score:
    """How a method did in one question."""

    method: str
    mean: float  # NaN if it was not rated
    std: float  # of the ratings, with n - 1; NaN for a single one
    n: int  # ratings
    strength: float  # Bradley-Terry, natural logarithm, zero on average over the methods
    low: float  # ends of its 95 % interval over participants; NaN for a single one
    high: float
    preferred: float  # probability to be preferred to another method, averaged over the others


def scores(
    ratings: Iterable[Rating], question: str, methods: Sequence[str], choices: Iterable[Choice] = ()
) -> list[Score]:
    """The methods that were asked about, strongest first. Where pairs were compared, they alone make the ranking."""
    ratings = [rating for rating in ratings if rating.question == question]
    choices = [choice for choice in choices if choice.question == question]
    values = {m: np.array([r.rating for r in ratings if r.method == m]) for m in methods}
    compared = {method for choice in choices for method in (choice.first, choice.second)}
    methods = [m for m in methods if len(values[m]) or m in compared]
    wins = chosen(choices, methods) if choices else rated_higher(ratings, methods)  # (P, M, M)
    strength, (low, high) = bradley_terry(wins.sum(0)), interval(wins)
    odds = 1 / (1 + np.exp(strength[None] - strength[:, None]))  # (M, M): row preferred to column
    preferred = (odds.sum(1) - 0.5) / max(1, len(methods) - 1)
    rows = [
        Score(
            m, values[m].mean() if len(values[m]) else np.nan, values[m].std(ddof=1) if len(values[m]) > 1 else np.nan,
            len(values[m]), *numbers,
        )
        for m, *numbers in zip(methods, strength, low, high, preferred, strict=True)
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row.strength)


def rated_higher(ratings: Iterable[Rating], methods: Sequence[str]) -> np.ndarray:
    """How often each participant rated the method of the row above that of the column, (P, M, M).

    Compared are the ratings that one participant gave to one video; a tie is half a win for both.
    """
    pages: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for rating in ratings:
        pages[rating.participant, rating.video][rating.method] = rating.rating
    people = list(dict.fromkeys(participant for participant, _ in pages))
    wins = np.zeros((len(people), len(methods), len(methods)))
    for (participant, _), page in pages.items():
        given = np.array([page.get(method, np.nan) for method in methods])
        higher = (given[:, None] > given[None]) + 0.5 * (given[:, None] == given[None])
        wins[people.index(participant)] += higher * (1 - np.eye(len(methods)))
    return wins


def chosen(choices: Iterable[Choice], methods: Sequence[str]) -> np.ndarray:
    """How often each participant preferred the method of the row to that of the column, (P, M, M).

    No difference is half a win for both.
    """
    choices, place = list(choices), {method: i for i, method in enumerate(methods)}
    people = {participant: i for i, participant in enumerate(dict.fromkeys(c.participant for c in choices))}
    wins = np.zeros((len(people), len(methods), len(methods)))
    for choice in choices:
        who, first, second = people[choice.participant], place[choice.first], place[choice.second]
        share = 0.5 if choice.preferred is None else float(choice.preferred == choice.first)
        wins[who, first, second] += share
        wins[who, second, first] += 1 - share
    return wins


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Log-strengths (..., M), zero on average, of the model P(i beats j) = s_i / (s_i + s_j), from wins (..., M, M).

    Maximum likelihood after HEAD_START further wins for each side of each pair, by minorise-maximise steps
    (Hunter 2004, "MM algorithms for generalized Bradley-Terry models", equation 3).
    """
    count = wins.shape[-1]
    wins = wins + HEAD_START * (1 - np.eye(count))
    games, won = wins + wins.swapaxes(-1, -2), wins.sum(-1)
    log = np.zeros(won.shape)
    for _ in range(ROUNDS if count > 1 else 0):
        strength = np.exp(log)
        new = np.log(won / (games / (strength[..., :, None] + strength[..., None, :])).sum(-1))
        new -= new.mean(-1, keepdims=True)
        moved, log = np.abs(new - log).max(), new
        if moved < TOLERANCE:
            break
    return log


def interval(wins: np.ndarray) -> np.ndarray:
    """Ends (2, M) of the strengths' 95 % intervals: percentiles over draws of as many participants, with repetition.

    Args:
        wins: of each participant, (P, M, M).
    """
    people, methods = wins.shape[:2]
    if people < 2:
        return np.full((2, methods), np.nan)
    times = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), RESAMPLES)  # (R, P)
    return np.quantile(bradley_terry(np.tensordot(times, wins, 1)), ENDS, axis=0)


def report(answers: Answers) -> str:
    """The table as text for a terminal."""
    ratings, choices = answers.ratings(), answers.choices()
    lines = []
    if ratings or not choices:
        people, whole = _people(((r.participant, r.video) for r in ratings), len(answers.videos))
        lines.append(f"{people} participants, {whole} of them with all {len(answers.videos)} videos")
    if choices:
        pairs = len(answers.videos) * len(answers.methods) * (len(answers.methods) - 1) // 2
        people, whole = _people(((c.participant, (c.video, c.first, c.second)) for c in choices), pairs)
        lines.append(f"{people} participants compared sounds, {whole} of them all {pairs} pairs")
    wide = max(len("method"), *map(len, answers.methods))
    for question, statement in QUESTIONS.items() if ratings or choices else ():
        own = [choice for choice in choices if choice.question == question]
        if own:
            equal = sum(choice.preferred is None for choice in own)
            statement += f" ({len(own)} pairs compared, {equal} with {NEITHER})"
        head = f"  {'method':{wide}}   mean   std      n  strength  preferred  95 % of strength"
        lines += ["", f"{question}: {statement}", head]
        for row in scores(ratings, question, answers.methods, own):
            rated = f"{row.mean:5.2f} {row.std:5.2f} {row.n:6d}" if row.n else "    -     -      -"
            ends = "-" if np.isnan(row.low) else f"{row.low:+.2f}..{row.high:+.2f}"
            lines.append(f"  {row.method:{wide}}  {rated} {row.strength:+9.2f} {row.preferred:8.0%}    {ends}")
    if ratings or choices:
        of = "what participants preferred in pairs" if choices else "which sound of a video a participant rated higher"
        lines += [
            "",
            f"strength: Bradley-Terry, of {of}; its interval is a bootstrap over participants",
            "preferred: how probably to another method, by these strengths",
        ]
    return "\n".join(lines)


def _people(done: Iterable[tuple[str, object]], count: int) -> tuple[int, int]:
    """How many participants there are, and how many of them have done all of `count` things."""
    things: dict[str, set] = defaultdict(set)
    for participant, thing in done:
        things[participant].add(thing)
    return len(things), sum(len(own) == count for own in things.values())
