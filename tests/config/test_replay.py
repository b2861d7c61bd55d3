"""Holds that a replay says plainly what is wrong with its file or its terms, and that a good one keeps its promise."""

import io
import json
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command

from config import replay
from config.management.commands.replay import Command
from config.replay_file import UnableToRead, read_rows
from ingestion.models import Workload
from tenants.scope import acting_for
from tests.fakes.serve import wait_for
from tests.ingestion.makers import query_of
from tests.serving.makers import make_adapter, make_workload
from training.models import TrainingRun


def csv_of(tmp_path, rows, *, header="text,teacher_label", encoding="utf-8"):
    path = tmp_path / "answers.csv"
    path.write_bytes("\n".join([header, *(f'"{text}",{label}' for text, label in rows)]).encode(encoding))
    return path


def jsonl_of(tmp_path, lines):
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_a_csv_and_a_jsonl_of_the_same_answers_read_the_same(tmp_path):
    rows = [query_of(n) for n in range(70)]
    lines = [json.dumps({"text": text, "answer": label}) for text, label in rows]
    assert read_rows(csv_of(tmp_path, rows)) == read_rows(jsonl_of(tmp_path, lines))


def test_messages_and_json_answers_are_taken_as_they_are(tmp_path):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    (row, *_) = read_rows(jsonl_of(tmp_path, [json.dumps({"messages": messages, "answer": {"a": 1}})] * 60))
    assert list(row.messages) == messages and json.loads(row.answer) == {"a": 1}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path / "missing.csv", "no such file"),
        (lambda path: csv_of(path, [], header="text,label"), "no column teacher_label"),
        (lambda path: csv_of(path, [], header="a,b"), "no column teacher_label and no column text"),
        (lambda path: csv_of(path, [("Zürich", "x")] * 80, encoding="latin-1"), "not UTF-8"),
        (lambda path: csv_of(path, [("", "x")] * 80), "0 usable rows"),
        (lambda path: csv_of(path, [("only", "x")] * 3), "3 usable rows"),
        (lambda path: jsonl_of(path, ["{"]), "line 1 is not JSON"),
        (lambda path: jsonl_of(path, ['{"text": "a"}']), "line 1 needs"),
        (lambda path: jsonl_of(path, ['["text"]']), "line 1 needs"),
    ],
)
def test_a_file_that_cannot_be_replayed_is_refused_with_its_reason(tmp_path, make, words):
    with pytest.raises(UnableToRead, match=words):
        read_rows(make(tmp_path))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--alpha=0", "alpha lies between"),
        ("--alpha=1.5", "alpha lies between"),
        ("--alpha=nan", "alpha lies between"),
        ("--delta=0.9", "delta lies between"),
        ("--live-share=0.99", "--live-share lies between"),
        ("--input-price=-1", "not negative"),
        ("--model=nobody-knows-1", "no published price"),
        ("--student=oracle", "invalid choice"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused_before_anything_starts(tmp_path, database, option, words):
    path = csv_of(tmp_path, [query_of(n) for n in range(70)])
    with pytest.raises(CommandError, match=words):
        call_command("replay", str(path), option)


@pytest.fixture
def report_of(tmp_path, database):
    def replay(count, *options):
        path, report = csv_of(tmp_path, [query_of(n) for n in range(count)]), tmp_path / "report.json"
        call_command("replay", str(path), "--report", str(report), *options)
        return json.loads(report.read_text())

    return replay


def test_a_replay_certifies_serves_and_keeps_its_promise_on_rows_it_never_used(report_of, capsys):
    report = report_of(1000)
    live = report["live"]
    assert report["certificate"]["certified"] and live["calls"] == 300
    assert live["coverage"] > 0.5 and live["realised_risk"] <= 0.05 and live["promise_kept"]
    assert float(live["cost_per_million_with"]) < float(live["cost_per_million_without"])
    assert sum(report["dataset"]["counts"].values()) <= 700
    assert "promise kept" in capsys.readouterr().out


def test_too_few_pairs_to_certify_give_a_verdict_that_says_how_many_are_missing(report_of, capsys):
    report = report_of(140)
    assert not report["certificate"]["certified"] and report["live"] is None
    assert report["certificate"]["more_rows_needed"] > 0 and report["certificate"]["reason"]
    assert "more calibration rows" in capsys.readouterr().out
    with acting_for(report["tenant"]):
        assert Workload.objects.count() == 1


def plan_of(alpha):
    return replay.Plan(
        rows=[],
        rung="head",
        alpha=alpha,
        delta=0.1,
        promise="per_answer",
        live_share=0.3,
        seed=0,
        model="gpt-4",
        input_price=Decimal(30),
        output_price=Decimal(60),
        hourly_cost=Decimal("0.08"),
    )


def outcome_of(*, differing):
    return replay.Outcome(
        calls=100,
        answered=80,
        differing=differing,
        agreement_all=0.9,
        reasons={"accepted": 80, "unsure": 20},
        student_seconds=1.0,
        read_tokens=1000,
        written_tokens=100,
        deferred_read=200,
        deferred_written=20,
    )


def conclude(path, *, differing):
    """A finished replay's last lines, on an α of 0.05."""
    plan, command = plan_of(0.05), Command(stdout=io.StringIO())
    report = {
        "evaluation": {"student": 0.9},
        "certificate": {
            "threshold": 0.5,
            "differing": 0,
            "accepted": 200,
            "calibration_rows": 240,
            "upper_bound": 0.01,
        },
        "live": replay._live_report(plan, outcome_of(differing=differing)),
        "seconds": 1.0,
    }
    try:
        command.conclude(report, plan, where=path)
    finally:
        assert json.loads(path.read_text())["live"]["differing"] == differing
    return command.stdout.getvalue()


def test_a_broken_promise_fails_the_command_after_the_report_is_written(tmp_path):
    with pytest.raises(CommandError, match="promise is broken") as broken:
        conclude(tmp_path / "report.json", differing=5)  # of 80: 0.0625
    assert broken.value.returncode != 0


def test_a_promise_kept_to_the_last_answer_is_a_success(tmp_path):
    assert "promise kept" in conclude(tmp_path / "report.json", differing=4)  # of 80: 0.05


def test_a_long_training_says_how_far_it_is(company, now, monkeypatch):
    monkeypatch.setattr(replay, "TELL_SECONDS", 0.01)
    make_adapter(make_workload(company.id, now), now)
    with acting_for(company.id):
        TrainingRun.objects.update(progress={"step": 7, "steps": 40, "loss": 0.25})
    told = []
    with replay._told(company.id, told.append):
        wait_for(lambda: told, patience=20)
    assert told[0].strip() == "step 7 of 40, loss 0.250"
