"""The judge against a local stand-in: what is sent, what is read, and what happens when things go wrong."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.benchmark.data.questions import Question
from llava_edge.benchmark.judging.endpoint import Endpoint, EndpointOptions
from llava_edge.benchmark.judging.judge import RULES, Judge, Prices, data_url, read_marks
from llava_edge.benchmark.judging.verdicts import VerdictFile
from llava_edge.runtime.errors import DataError, JudgeError, OptionError, StorageError
from llava_edge.runtime.pictures.picture import load_picture
from PIL import Image
from support.judge_server import Answer, Asked, judge_server

KEY = "sk-not-to-be-seen"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def jpeg_with_place(size: tuple[int, int] = (30, 20)) -> bytes:
    """A photograph that lies on its side and knows where it was taken."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "my garden"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def question(**more: Any) -> Question:
    plain = Question("4", "conv", "What is this?", (jpeg_with_place(),), ("A lake.",), "judged")
    return replace(plain, **more)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def make_judge(url: str, path: Path, clock: Clock | None = None, *, prices: Prices | None = None, **more: Any) -> Judge:
    clock = clock or Clock()
    endpoint = Endpoint(EndpointOptions(url, "seer", **more), clock=clock, sleep=clock.sleep)
    return Judge(endpoint, path, prices=prices)


def sent_pictures(asked: Asked) -> list[Image.Image]:
    urls = [part["image_url"]["url"] for part in asked.body["messages"][1]["content"] if part["type"] == "image_url"]
    assert all(url.startswith("data:image/") for url in urls)
    return [Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))) for url in urls]


def test_what_is_sent(tmp_path: Path) -> None:
    with judge_server() as (url, asked):
        verdict = make_judge(url, tmp_path / "verdicts.jsonl").mark(question(), "A puddle.")
    assert (verdict.reference, verdict.candidate, verdict.score) == (10, 5, 0.5)
    (request,) = asked
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.body["model"] == "seer"
    assert request.body["temperature"] == 0
    system, user = request.body["messages"]
    assert (system["role"], system["content"], user["role"]) == ("system", RULES, "user")
    text = user["content"][-1]["text"]
    assert text.index("What is this?") < text.index("A lake.") < text.index("A puddle.")
    (picture,) = sent_pictures(request)
    upright = Image.open(io.BytesIO(jpeg_with_place())).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(picture), np.asarray(upright))
    assert not picture.getexif()  # where it was taken is nobody's business


def test_several_pictures_come_in_order(tmp_path: Path) -> None:
    files = []
    for index, color in enumerate(((255, 0, 0), (0, 0, 255))):
        files.append(tmp_path / f"{index}.png")
        Image.new("RGB", (8, 8), color).save(files[-1])
    with judge_server() as (url, asked):
        make_judge(url, tmp_path / "verdicts.jsonl").mark(question(images=tuple(files)), "Two colors.")
    assert [one.getpixel((0, 0)) for one in sent_pictures(asked[0])] == [(255, 0, 0), (0, 0, 255)]


def test_a_large_picture_goes_as_jpeg() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (1300, 1300, 3), np.uint8))
    url = data_url(load_picture(noise))
    assert url.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).size == noise.size


def test_without_a_key_none_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with judge_server() as (url, asked):
        make_judge(url, tmp_path / "verdicts.jsonl").mark(question(), "A puddle.")
        monkeypatch.setenv("OTHER_KEY", "other")
        make_judge(url, tmp_path / "others.jsonl", key_variable="OTHER_KEY").mark(question(), "A puddle.")
    assert "Authorization" not in asked[0].headers
    assert asked[1].headers["Authorization"] == "Bearer other"


def test_a_rerun_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    with judge_server(Answer("10 5"), Answer("10 8"), Answer("10 2")) as (url, asked):
        first = make_judge(url, path).mark(question(), "A puddle.")
        judge = make_judge(url, path)
        assert judge.mark(question(), "A puddle.") == first
        assert judge.mark(question(id="5"), "A puddle.") == first  # the same question under another id
        assert len(asked) == 1
        assert judge.mark(question(), "A pond.").candidate == 8
        assert judge.mark(question(prompt="Where?"), "A pond.").candidate == 2
        judge.mark(question(answers=("A sea.",)), "A pond.")
        judge.mark(question(images=(jpeg_with_place((31, 20)),)), "A pond.")
        assert len(asked) == 5
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["candidate"] for one in lines] == [5, 8, 2, 2, 2]


def test_a_line_cut_off_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    with judge_server() as (url, asked):
        make_judge(url, path).mark(question(), "A puddle.")
        whole = path.read_bytes()
        make_judge(url, path).mark(question(), "A pond.")
        both = path.read_bytes()
        path.write_bytes(both[: len(whole) + 30])
        judge = make_judge(url, path)
        assert path.read_bytes() == whole
        judge.mark(question(), "A puddle.")
        judge.mark(question(), "A pond.")
        assert len(asked) == 3
    assert path.read_bytes() == both


@pytest.mark.parametrize("content", [b"my diary\n", b"my diary", b'{"a": 1}', b'{"key": "x"}\n', b'{"a": 1}\n{"key'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="a verdict in line"):
        VerdictFile(path)
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with judge_server() as (url, _), pytest.raises((StorageError, DataError)):
        make_judge(url, tmp_path / "file" / "verdicts.jsonl").mark(question(), "A puddle.")


def test_cost_is_counted_over_reruns(tmp_path: Path) -> None:
    path, prices = tmp_path / "verdicts.jsonl", Prices(prompt=2.5, completion=10)
    with judge_server() as (url, _):
        make_judge(url, path, prices=prices).mark(question(), "A puddle.")
        judge = make_judge(url, path, prices=prices)
        judge.mark(question(), "A puddle.")
        judge.mark(question(), "A pond.")
    spent = judge.spent
    assert (spent.requests, spent.prompt_tokens, spent.completion_tokens) == (2, 2000, 40)
    assert spent.cost == pytest.approx(2 * (1000 * 2.5 + 20 * 10) / 1_000_000)


def test_an_endpoint_that_counts_nothing(tmp_path: Path) -> None:
    with judge_server(Answer(usage=False)) as (url, _):
        judge = make_judge(url, tmp_path / "verdicts.jsonl", prices=Prices(1, 1))
        assert judge.mark(question(), "A puddle.").score == 0.5
    assert judge.spent.cost == 0


def test_the_reference_has_full_marks(tmp_path: Path) -> None:
    """Whatever scale the judge used: 8 and 6 are three quarters, and nobody beats the reference."""
    scores = {}
    for marks in ("10 7", "8 6", "7 9", "10 0"):
        with judge_server(Answer(marks)) as (url, _):
            verdict = make_judge(url, tmp_path / f"{marks}.jsonl").mark(question(), "A puddle.")
        scores[marks] = verdict.score
    assert scores == {"10 7": 0.7, "8 6": 0.75, "7 9": 1.0, "10 0": 0.0}


def test_a_review_without_marks_is_asked_for_once_more(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    with judge_server(Answer("I would rather not."), Answer("10 9")) as (url, asked):
        assert make_judge(url, path).mark(question(), "A puddle.").score == 0.9
        assert len(asked) == 2
    with judge_server(Answer("Sorry.")) as (url, asked):
        judge = make_judge(url, path)
        assert judge.mark(question(), "A pond.").score is None
        assert make_judge(url, path).mark(question(), "A pond.").score is None
        assert len(asked) == 4
    assert judge.spent.requests == 4
    known = VerdictFile(path)
    assert known.spent.requests == 6


@pytest.mark.parametrize(
    ("review", "marks"),
    [
        ("10 7\nGood.", (10, 7)),
        ("10, 7.5", (10, 7.5)),
        ("10/10 8/10\n...", (10, 8)),
        ("**10 8**\n\nAssistant 1 named 3 lakes and 4 hills.", (10, 8)),
        ("Scores: 10 and 6", (10, 6)),
        ("Here are the marks:\n\n10 3\n\nBecause 1 2.", (10, 3)),
        ("<think>maybe 2 2\n2 2</think>\n10 4", (10, 4)),
        ("Assistant 1: 10\nAssistant 2: 8.5\n", (10, 8.5)),
        ("**Assistant 1**: 10/10, **Assistant 2**: 4/10", (10, 4)),
        ("10;9", (10, 9)),
        ("10 70", None),
        ("0 5", None),
        ("7", None),
        ("", None),
        ("<think>10 4", None),
        ("Assistant 1 is right, assistant 2 is not.", None),
        ("10 7 3", None),
    ],
)
def test_marks_are_read_from_any_decoration(review: str, marks: tuple[float, float] | None) -> None:
    assert read_marks(review) == marks


def test_failures_that_pass_are_tried_again(tmp_path: Path) -> None:
    answers = [
        Answer(status=429, headers={"Retry-After": "7"}, body={"error": {"message": "slow down"}}),
        Answer(status=503, body=b"<html>busy</html>"),
        Answer(body=b'{"choices": [{"mess'),
        Answer(body={"choices": []}),
        Answer(body={"choices": [{"message": {"content": ["parts"]}}]}),
        Answer("10 6"),
    ]
    clock = Clock()
    with judge_server(*answers) as (url, asked):
        verdict = make_judge(url, tmp_path / "verdicts.jsonl", clock).mark(question(), "A puddle.")
    assert (verdict.candidate, len(asked)) == (6, 6)
    assert clock.slept == [7, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"<!doctype html>\n<html>Hello", "no JSON: <!doctype"), (b"[]", "no JSON"), (b"x" * 17 * 2**20, "16 MiB")],
)
def test_what_is_no_completion_is_said_at_once(tmp_path: Path, body: bytes, words: str) -> None:
    clock = Clock()
    with judge_server(Answer(body=body)) as (url, asked):
        with pytest.raises(JudgeError, match=words) as caught:
            make_judge(url, tmp_path / "verdicts.jsonl", clock).mark(question(), "A puddle.")
        assert len(asked) == 1
    assert clock.slept == []
    assert "\n" not in str(caught.value)


def test_patience_ends(tmp_path: Path) -> None:
    clock = Clock()
    with judge_server(Answer(status=500, body=b"oh")) as (url, asked):
        with pytest.raises(JudgeError, match=r"HTTP 500 oh \(tried 3 times\)") as caught:
            make_judge(url, tmp_path / "verdicts.jsonl", clock, retries=2).mark(question(), "A puddle.")
        assert len(asked) == 3
    assert clock.slept == [1, 2]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "verdicts.jsonl").exists()


def test_a_pause_has_an_end(tmp_path: Path) -> None:
    clock = Clock()
    with judge_server(Answer(status=429, headers={"Retry-After": "86400"}, body=b""), Answer()) as (url, _):
        make_judge(url, tmp_path / "verdicts.jsonl", clock).mark(question(), "A puddle.")
    assert clock.slept == [60]


def test_timeouts_are_tried_again(tmp_path: Path) -> None:
    with judge_server(Answer(delay=2), Answer("10 6")) as (url, asked):
        judge = make_judge(url, tmp_path / "verdicts.jsonl", timeout=0.5)
        assert judge.mark(question(), "A puddle.").candidate == 6
        assert len(asked) == 2


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="refused"):
        make_judge("http://127.0.0.1:9/v1", tmp_path / "verdicts.jsonl", retries=1).mark(question(), "A puddle.")


def test_refusals_are_final_and_keep_the_key(tmp_path: Path) -> None:
    body = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    with judge_server(Answer(status=401, body=body)) as (url, asked):
        with pytest.raises(JudgeError, match=r"HTTP 401 Incorrect API key provided: \*\*\*") as caught:
            make_judge(url, tmp_path / "verdicts.jsonl").mark(question(), "A puddle.")
        assert len(asked) == 1
    assert KEY not in str(caught.value)
    assert "OPENAI_API_KEY" in str(caught.value)


def test_a_key_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with judge_server() as (url, asked):
        with pytest.raises(OptionError, match="OPENAI_API_KEY") as caught:
            make_judge(url, tmp_path / "verdicts.jsonl").mark(question(), "A puddle.")
        assert not asked
    assert "sk-one" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    """It would take the key along to a place nobody named."""
    with judge_server() as (elsewhere, seen):
        redirect = Answer(status=status, headers={"Location": f"{elsewhere}/chat/completions"}, body=b"")
        with judge_server(redirect) as (url, _), pytest.raises(JudgeError, match=f"HTTP {status}"):
            make_judge(url, tmp_path / "verdicts.jsonl").mark(question(), "A puddle.")
        assert not seen


def test_models_with_other_settings_are_met(tmp_path: Path) -> None:
    limit = {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}}
    heat = {"error": {"message": "'temperature' does not support 0 with this model."}}
    answers = [Answer(status=400, body=limit), Answer(status=400, body=heat), Answer("10 6")]
    clock = Clock()
    with judge_server(*answers) as (url, asked):
        judge = make_judge(url, tmp_path / "verdicts.jsonl", clock, retries=0)
        assert judge.mark(question(), "A puddle.").candidate == 6
        judge.mark(question(), "A pond.")
    assert not clock.slept
    assert [sorted({"max_tokens", "max_completion_tokens", "temperature"} & set(one.body)) for one in asked] == [
        ["max_tokens", "temperature"],
        ["max_completion_tokens", "temperature"],
        ["max_completion_tokens"],
        ["max_completion_tokens"],
    ]


def test_the_rate_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    with judge_server() as (url, _):
        judge = make_judge(url, tmp_path / "verdicts.jsonl", clock, per_minute=20)
        for answer in ("a", "b", "c"):
            judge.mark(question(), answer)
        clock.now += 100
        judge.mark(question(), "d")
    assert clock.slept == [3, 3]


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host/v1", "file:///etc/passwd", "https://", "http://[::1", "http://host:x"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(OptionError, match="https://host/v1"):
        EndpointOptions(url, "seer")


@pytest.mark.parametrize("user", ["ann:secretsecret", "secretsecret", "ann:secret/secretsecret", "ann:secret@secret"])
@pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
def test_a_password_in_the_url_is_refused_and_not_repeated(scheme: str, user: str) -> None:
    with pytest.raises(OptionError) as caught:
        EndpointOptions(f"{scheme}://{user}@host/v1", "seer")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("more", [{"per_minute": -1}, {"retries": -1}, {"timeout": 0}, {"model": ""}])
def test_options_out_of_range(more: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        EndpointOptions(**({"url": "http://host/v1", "model": "seer"} | more))
    with pytest.raises(OptionError):
        Prices(prompt=-1)


def test_only_judged_questions_are_marked(tmp_path: Path) -> None:
    with judge_server() as (url, asked):
        with pytest.raises(OptionError, match="judged"):
            make_judge(url, tmp_path / "verdicts.jsonl").mark(question(metric="exact"), "A puddle.")
        assert not asked


def test_the_documented_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmark-data.md").read_text()
    monkeypatch.chdir(tmp_path)
    with judge_server() as (url, _):
        code = page.split("```python\n")[1].split("```")[0].replace("https://host/v1", url)
        exec(code, {"answers": [(question(), "A puddle.")]})
    assert capsys.readouterr().out.startswith("[0.5] Spent(requests=1")
