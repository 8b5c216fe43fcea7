"""The listening study over HTTP, as browsers and as vandals use it, and its report."""

import http.client
import re
import sqlite3
import threading
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from urllib.parse import urlencode

import numpy as np
import pytest

from mmaudio.cli import main
from mmaudio.study.analysis import HEAD_START, bradley_terry, report, scores
from mmaudio.study.answers import Answers, AnswersError, Choice, Rating
from mmaudio.study.methods import read_methods
from mmaudio.study.server import StudyServer, byte_range
from mmaudio.study.sheets import Study

VIDEOS = ("dog", "rain & <b>thunder", "train")
BETTER, WORSE = {"quality": 5, "semantics": 4, "timing": 3}, {"quality": 2, "semantics": 4, "timing": 4}


@pytest.fixture
def words(tmp_path):
    """Two methods; every file says whose it is, so that a test can look behind the blinding."""
    for method in ("ours", "other"):
        (tmp_path / method).mkdir()
        for video in VIDEOS:
            (tmp_path / method / f"{video}.mp4").write_bytes(f"{method}:{video}".encode() + bytes(1000))
        (tmp_path / method / "notes.txt").write_text("no video")
    return [f"{method}={tmp_path / method}" for method in ("ours", "other")]


@contextmanager
def serving(words, path, pairs=False):
    methods = read_methods(words)
    with (
        closing(Answers(path, methods)) as answers,
        StudyServer(Study(methods, answers, pairs), "127.0.0.1", 0) as server,
    ):
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def ask(url, form=None, **headers):
    """(status, final address, headers, body); redirects are followed as a browser does."""
    data = urlencode(form).encode() if form is not None else None
    request = urllib.request.Request(url, data, {k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.url, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, url, error.headers, error.read()


def seen(site, page):
    """(page id, whose sound each place has, name of the video), as the page and its media tell."""
    page_id = re.search(r'name="page" value="(\w+)"', page)[1]
    bodies = [ask(f"{site}/media/{media_id}")[3] for media_id in re.findall(r'src="/media/(\w+)"', page)]
    methods, videos = zip(*(body.rstrip(b"\0").decode().split(":") for body in bodies), strict=True)
    assert len(set(videos)) == 1
    return page_id, methods, videos[0]


def filled_in(page_id, methods):
    given = {"ours": BETTER, "other": WORSE}
    ratings = {f"{i}.{q}": value for i, m in enumerate(methods, 1) for q, value in given[m].items()}
    return {"page": page_id, **ratings}


def test_a_whole_round(words, tmp_path, capsys):
    path, orders, videos = tmp_path / "out" / "study.sqlite", set(), []
    with serving(words, path) as site:
        assert b"3 videos" in ask(site)[3]
        _, link, headers, page = ask(f"{site}/begin", {})
        assert re.fullmatch(rf"{site}/p/[\w-]{{22}}", link)
        page = page.decode()
        assert "Video 1 of 3" in page
        assert not re.search(r"ours|other|dog|rain|train|<script|https?:", page)
        assert len(re.findall('type="radio"', page)) == 2 * 3 * 5
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        page_id, methods, video = seen(site, page)
        assert ask(link)[3].decode() == page  # nothing moves before it is answered
        status, _, _, page = ask(link, filled_in(page_id, methods))
        assert (status, b"Video 2 of 3" in page) == (200, True)
        videos.append(video)
    with serving(words, path) as site:  # another day
        link = site + link[link.index("/p/") :]
        again = ask(site, Cookie=f"participant={link[-22:]}")[3].decode()
        assert f'href="{link[len(site) :]}"' in again
        page = ask(link)[3].decode()
        assert "Video 2 of 3" in page
        for _ in range(2):
            page_id, methods, video = seen(site, page)
            videos.append(video)
            page = ask(link, filled_in(page_id, methods))[3].decode()
        assert "Thank you" in page
        assert sorted(videos) == sorted(VIDEOS)
        for _ in range(12):  # others get other orders; of 2 ** 12 times that this fails once
            _, _, _, page = ask(f"{site}/begin", {})
            orders.add(seen(site, page.decode())[1])
    assert len(orders) == 2

    assert main(["study", "report", str(path)]) == 0
    text = capsys.readouterr().out
    assert "1 participants, 1 of them with all 3 videos" in text
    rows = [line.split() for line in text.splitlines() if line.startswith(("  ours", "  other"))]
    assert [row[:4] for row in rows] == [
        ["ours", "5.00", "0.00", "3"], ["other", "2.00", "0.00", "3"],
        ["other", "4.00", "0.00", "3"], ["ours", "4.00", "0.00", "3"],
        ["other", "4.00", "0.00", "3"], ["ours", "3.00", "0.00", "3"],
    ]  # fmt: skip
    assert [row[4:] for row in rows[::2]] == [["+0.97", "88%", "-"], ["+0.00", "50%", "-"], ["+0.97", "88%", "-"]]


def test_pairs(words, tmp_path, capsys):
    (tmp_path / "third").mkdir()
    for video in VIDEOS:
        (tmp_path / "third" / f"{video}.mp4").write_bytes(f"third:{video}".encode() + bytes(1000))
    words, path, best = [*words, f"third={tmp_path / 'third'}"], tmp_path / "s.sqlite", ["ours", "other", "third"]

    def answered(page):  # timing: there is no difference; semantics: always the sound on the right
        page_id, methods, video = seen(site, page)
        better = 1 + methods.index(min(methods, key=best.index))
        form = {"page": page_id, "quality": better, "semantics": 2, "timing": 0}
        return (video, frozenset(methods)), methods, form

    with serving(words, path, pairs=True) as site:
        assert b"9 pages" in ask(site)[3]
        _, link, _, page = ask(f"{site}/begin", {})
        page = page.decode()
        assert "Pair 1 of 9" in page
        assert not re.search(r"ours|other|third|dog|rain|train|<script|https?:", page)
        assert len(re.findall('type="radio"', page)) == 3 * 3
        done, sides = set(), set()
        for number in range(9):
            assert f"Pair {number + 1} of 9".encode() in ask(link)[3]
            pair, methods, form = answered(page)
            for wrong in ({"quality": 3}, {"timing": ""}, {"page": "0" * 32}, {"semantics": "ours"}):
                assert number or ask(link, form | wrong)[0] == 400, wrong
            done.add(pair)
            sides.add(methods == tuple(sorted(methods, key=best.index)))
            page = ask(link, form)[3].decode()
        assert "Thank you" in page
        assert done == {(v, frozenset(p)) for v in VIDEOS for p in (best[:2], best[1:], best[::2])}
        assert sides == {True, False}  # of 256 times that this fails once
    with serving(words, path) as site:  # the same file, and ratings beside the pairs
        assert len(seen(site, ask(f"{site}/begin", {})[3].decode())[1]) == 3
    with closing(Answers(path)) as answers:
        assert len(answers.choices()) == 9 * 3
        assert {c.preferred for c in answers.choices() if c.question == "quality"} == {"ours", "other"}
        assert {c.preferred for c in answers.choices() if c.question == "timing"} == {None}

    assert main(["study", "report", str(path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("1 participants compared sounds, 1 of them all 9 pairs\n")
    assert "(9 pairs compared, 9 with no difference)" in text
    quality, _, timing = ([line.split() for line in text.splitlines() if line.startswith(f"  {m}")] for m in best)
    strength = float(quality[0][4])  # each beats the next by 3 to 0: those of the three are s, 0 and -s
    assert sum(1 / (1 + np.exp(-k * strength)) for k in (1, 2)) == pytest.approx(2 * 3.5 / 4, abs=0.003)
    assert timing[2][4:6] == ["+0.00", "50%"]


def test_the_interval_is_over_participants():
    """Four who are of one mind say no more than that; four who are not, leave it open who is better."""

    def told(*of_each):
        return [Choice(f"p{i}", f"v{k}", "a", "b", "timing", "ab"[b]) for i, b in enumerate(of_each) for k in range(10)]

    agreed, split = (scores([], "timing", ["b", "a"], told(*who)) for who in ((0, 0, 0, 0), (0, 0, 0, 1)))
    assert [row.method for row in agreed] == ["a", "b"]
    assert agreed[0].low == agreed[0].high == pytest.approx(agreed[0].strength)
    assert agreed[0].strength == pytest.approx(np.log(40.5 / 0.5) / 2)
    assert split[0].strength == pytest.approx(np.log(30.5 / 10.5) / 2)
    assert split[0].low < 0 < split[0].strength < split[0].high
    assert np.isnan(split[0].mean)


def test_a_file_without_choices_is_taken_up(words, tmp_path):
    path = tmp_path / "old.sqlite"
    Answers(path, read_methods(words)).close()
    with closing(sqlite3.connect(path)) as database:
        database.executescript("drop table choice; pragma user_version = 1;")
    with closing(Answers(path)) as answers:
        answers.record("somebody", "dog", {("ours", "quality"): 3})
        answers.prefer("somebody", "dog", ("ours", "other"), {"quality": "ours", "timing": None})
        assert answers.choices()[0] == Choice("somebody", "dog", "other", "ours", "quality", "ours")
        assert answers.compared("somebody") == {("dog", ("other", "ours"))}
        with pytest.raises(AnswersError, match="CHECK"):
            answers.prefer("somebody", "dog", ("ours", "other"), {"quality": "third"})


def test_videos_come_in_ranges(words, tmp_path):
    with serving(words, tmp_path / "s.sqlite") as site:
        page = ask(f"{site}/begin", {})[3].decode()
        url = site + re.search(r'src="(/media/\w+)"', page)[1]
        status, _, headers, whole = ask(url)
        assert (status, headers["Content-Type"], headers["Accept-Ranges"]) == (200, "video/mp4", "bytes")
        status, _, headers, part = ask(url, Range="bytes=2-5")
        assert (status, part, headers["Content-Range"]) == (206, whole[2:6], f"bytes 2-5/{len(whole)}")
        assert ask(url, Range="bytes=99999-")[0] == 416
        for path in (tmp_path / "ours", tmp_path / "other"):
            for file in path.glob("*.mp4"):
                file.unlink()
        assert ask(url)[0] == 404


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, (0, 10)), ("bytes=0-", (0, 10)), ("bytes=3-4", (3, 5)), ("bytes=3-99", (3, 10)), ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)), ("bytes=10-", None), ("bytes=5-3", None), ("bytes=-0", None), ("bytes=-", (0, 10)),
        ("bytes=0-1,3-4", (0, 10)), ("lines=0-1", (0, 10)), ("bytes=٣-", (0, 10)),
    ],
)  # fmt: skip
def test_ranges(header, part):
    assert byte_range(header, 10) == part


def test_vandals_get_nothing_and_change_nothing(words, tmp_path):
    path = tmp_path / "s.sqlite"
    with serving(words, path) as site:
        _, link, _, page = ask(f"{site}/begin", {})
        page_id, methods, _ = seen(site, page.decode())
        good = filled_in(page_id, methods)
        for hostile in (
            "/media/../ours/dog.mp4", "/media/..%2fours%2fdog.mp4", "/media/" + "0" * 32, "/media/dog", "/ours/dog.mp4",
            "/../../etc/passwd", "//etc/passwd", "//[", "/p/" + "A" * 22, "/p/", "/study.css/..", "/study.sqlite",
        ):  # fmt: skip
            status, _, _, body = ask(site + hostile)
            assert status == 404, hostile
            assert b"passwd" not in body
        assert ask(f"{site}/p/{'A' * 22}", good)[0] == 404
        for wrong in (
            {}, good | {"page": "0" * 32}, good | {"1.quality": "6"}, good | {"1.quality": "0"},
            good | {"2.timing": "five"}, {k: v for k, v in good.items() if k != "2.timing"}, good | {"1.timing": "٣"},
        ):  # fmt: skip
            assert ask(link, wrong)[0] == 400, wrong
        assert ask(link, {f"x{i}": 1 for i in range(2000)})[0] == 400
        assert "href" not in re.sub(
            r'href="/(study.css)?"', "", ask(site, Cookie="participant=<script>; a=\x01")[3].decode()
        )

        connection = http.client.HTTPConnection(site.removeprefix("http://"), timeout=20)
        for headers, status in (
            ({"Content-Length": 20 * 10**9}, 413), ({"Content-Length": 2**16 + 1}, 413), ({}, 411),
            ({"Content-Length": "9" * 5000}, 411), ({"Content-Length": "-1"}, 411),
            ({"Content-Length": "3", "Transfer-Encoding": "chunked"}, 411),
        ):  # fmt: skip
            connection.putrequest("POST", link[len(site) :])
            for name, value in headers.items():
                connection.putheader(name, str(value))
            connection.endheaders()
            reply = connection.getresponse()
            assert (reply.status, reply.getheader("Connection")) == (status, "close"), headers
            reply.read()
            connection.close()
        assert ask(site)[0] == 200
        assert ask(link)[3] == page
    with closing(Answers(path)) as answers:
        assert answers.ratings() == []
        assert report(answers) == "0 participants, 0 of them with all 3 videos"


def test_what_does_not_match_is_said_in_one_line(words, tmp_path, capsys):
    ours, other = words
    (tmp_path / "empty").mkdir()
    (tmp_path / "a=b").mkdir()

    def refused(says, *arguments):
        assert main(["study", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 1
        assert captured.err.startswith("error: ")
        assert says in captured.err

    serve, out = ("serve", "--out", tmp_path / "s.sqlite", "--methods"), tmp_path / "s.sqlite"
    refused("NAME=DIR", *serve, ours, "other")
    refused("NAME=DIR", *serve, ours, f"<b>={tmp_path / 'other'}")
    refused("already", *serve, ours, ours)
    refused("at least two", *serve, ours)
    refused("no such folder", *serve, ours, "other=/nowhere")
    refused("holds no video", *serve, ours, f"other={tmp_path / 'empty'}")
    refused("holds no video", *serve, ours, f"other={tmp_path / 'a=b'}")
    (tmp_path / "ours" / "cat.mp4").touch()
    refused("other lacks 1 of 4 videos (cat)", *serve, ours, other)
    (tmp_path / "ours" / "cat.mp4").rename(tmp_path / "ours" / "dog.webm")
    refused("keep one of them", *serve, ours, other)
    (tmp_path / "ours" / "dog.webm").rename(tmp_path / "ours" / "cat.mkv")
    refused("not every browser plays .mkv", *serve, ours, other)
    (tmp_path / "ours" / "cat.mkv").rename(tmp_path / "ours" / "a\nb.mp4")
    refused("rename it", *serve, ours, other)
    (tmp_path / "ours" / "a\nb.mp4").unlink()
    assert not out.exists()

    refused("no such file", "report", out)
    out.write_text("no database")
    refused("not a database", "report", out)
    refused("not a database", *serve, ours, other)
    out.unlink()
    with closing(sqlite3.connect(out)) as database:
        database.execute("create table precious (value)")
    refused("no listening study", *serve, ours, other)
    out.unlink()
    Answers(out, read_methods(words)).close()
    refused("another study", *serve, f"mine={tmp_path / 'ours'}", other)
    refused("cannot listen", *serve, ours, other, "--port", "70000")
    refused("cannot listen", *serve, ours, other, "--host", "192.0.2.1")


def test_answers_that_cannot_be_kept_are_not_lost_in_silence(words, tmp_path):
    path = tmp_path / "s.sqlite"
    with serving(words, path) as site:
        _, link, _, page = ask(f"{site}/begin", {})
        page_id, methods, _ = seen(site, page.decode())
        with closing(sqlite3.connect(path)) as database:
            database.execute("alter table rating rename to gone")
            assert ask(link, filled_in(page_id, methods))[0] == 503
            assert ask(link)[0] == 503
            database.execute("alter table gone rename to rating")
        assert b"Video 2 of 3" in ask(link, filled_in(page_id, methods))[3]
    with closing(Answers(path)) as answers, pytest.raises(AnswersError, match="CHECK"):
        answers.record("somebody", "dog", {("ours", "quality"): 6})


def test_bradley_terry_of_two_methods_has_a_closed_form():
    strengths = bradley_terry(np.array([[0, 7], [3, 0]]))
    assert strengths[0] - strengths[1] == pytest.approx(np.log((7 + HEAD_START) / (3 + HEAD_START)))
    assert strengths.sum() == pytest.approx(0)
    assert np.isfinite(bradley_terry(np.array([[0, 100], [0, 0]]))).all()


def test_bradley_terry_of_several_is_where_the_likelihood_is_flat():
    wins = np.array([[0, 8, 3, 9], [2, 0, 5, 6], [6, 4, 0, 7], [1, 3, 2, 0]], float)
    log = bradley_terry(wins)
    counted = wins + HEAD_START * (1 - np.eye(4))
    expected = (counted + counted.T) / (1 + np.exp(log[None] - log[:, None]))
    np.testing.assert_allclose(counted.sum(1), (expected * (1 - np.eye(4))).sum(1), rtol=1e-9)
    again = bradley_terry(wins[::-1, ::-1])
    np.testing.assert_allclose(again[::-1], log, atol=1e-9)


def test_scores_compare_within_one_participant_and_video():
    """One strict participant prefers a, a generous one prefers a too: b never wins, whatever its mean."""
    given = [("strict", "a", 2), ("strict", "b", 1), ("generous", "a", 5), ("generous", "b", 4), ("alone", "b", 5)]
    ratings = [Rating(who, "dog", method, "quality", value) for who, method, value in given]
    best, second = scores(ratings, "quality", ["b", "a", "unrated"])
    assert (best.method, best.mean, best.n) == ("a", 3.5, 2)
    assert best.std == pytest.approx(np.std([2, 5], ddof=1))
    assert second.n == 3
    assert best.strength - second.strength == pytest.approx(np.log(2.5 / 0.5))
    assert best.preferred == pytest.approx(2.5 / 3)
    assert scores(ratings, "timing", ["a", "b"]) == []
