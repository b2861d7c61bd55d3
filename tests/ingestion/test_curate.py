"""Holds what a dataset may and may not hold, and that workloads are found without anybody naming them."""

from datetime import timedelta
from uuid import UUID

import pytest

import ingestion.curate
from ingestion.core.calls import Arm
from ingestion.core.suitability import MAX_LABELS
from ingestion.curate import LONGEST_QUERY, UnableToCurate, curate, curation_due, open_example
from ingestion.discover import discover_workloads
from ingestion.models import Call, Dataset, Example, Payload, Workload
from ingestion.payloads import in_batches, readable_pairs
from tenants.models import ProviderCredential
from tenants.provision import data_key_in_force, state_stance, store_credential
from tenants.scope import acting_for
from tenants.wake import alone_at
from tests.ingestion.makers import LABELS, log_calls, query_of


@pytest.fixture
def found(company, now, settings):
    """A workload with 300 answered calls that is worth a student."""
    settings.MIN_PAIRS = 200
    log_calls(company.id, 300, now=now + timedelta(days=1))
    discover_workloads(company.id, now=now + timedelta(days=1))
    with acting_for(company.id):
        return Workload.objects.get()


def test_a_habit_in_the_traffic_becomes_a_named_workload_that_claims_its_calls(company, found):
    assert (found.kind, found.verdict) == ("label", "suitable")
    assert found.slug and found.name
    with acting_for(company.id):
        assert Call.objects.filter(workload_id=found.id).count() == 300


def test_discovering_twice_makes_one_workload(company, found, now):
    assert discover_workloads(company.id, now=now) == 0
    with acting_for(company.id):
        assert Workload.objects.count() == 1


def test_a_few_calls_of_one_shape_are_not_a_workload_yet(company, now):
    log_calls(company.id, 20, now=now)
    assert discover_workloads(company.id, now=now) == 0


def test_a_prompt_that_no_column_can_hold_stops_neither_discovery_nor_another_workload(company, now, caplog):
    log_calls(company.id, 60, now=now, system="Route this \x00 secretly")
    log_calls(company.id, 60, now=now)
    assert discover_workloads(company.id, now=now + timedelta(hours=1)) >= 1
    with acting_for(company.id):
        assert Workload.objects.filter(name__startswith="Route messages of customers").exists()
    assert "secretly" not in caplog.text


def test_one_worker_at_a_time_looks_at_a_tenant(company, rival):
    with alone_at("discover", company.id, seconds=60) as mine:
        with (
            alone_at("discover", company.id, seconds=60) as also_mine,
            alone_at("discover", rival.id, seconds=60) as theirs,
        ):
            assert (mine, also_mine, theirs) == (True, False, True)
        with alone_at("discover", company.id, seconds=60) as still:
            assert not still
    with alone_at("discover", company.id, seconds=60) as again:
        assert again


def test_bodies_are_opened_again_only_for_growth_for_other_terms_and_after_an_hour(company, now):
    def looked_at(moment):
        discover_workloads(company.id, now=moment)
        with acting_for(company.id):
            return Workload.objects.get().looked_at

    log_calls(company.id, 100, now=now)
    minutes = [now + timedelta(minutes=n) for n in range(1, 6)]
    assert looked_at(minutes[0]) == minutes[0]
    assert looked_at(minutes[1]) == minutes[0], "nothing is new"
    log_calls(company.id, 3, now=now + timedelta(days=1))
    assert looked_at(minutes[2]) == minutes[2]
    with acting_for(company.id):
        terms = ProviderCredential.objects.get(provider="openai")
        state_stance(terms, stance="forbidden", actor="test", now=minutes[3])
    assert looked_at(minutes[4]) == minutes[4]
    with acting_for(company.id):
        assert Workload.objects.get().verdict == "unsuitable"
    assert looked_at(minutes[4] + timedelta(minutes=59)) == minutes[4]
    assert looked_at(minutes[4] + timedelta(minutes=60)) > minutes[4]


def test_too_few_calls_get_a_verdict_that_says_how_many_are_missing(company, now, settings):
    settings.MIN_PAIRS = 500
    log_calls(company.id, 60, now=now + timedelta(days=1))
    discover_workloads(company.id, now=now)
    with acting_for(company.id):
        workload = Workload.objects.get()
    assert workload.verdict == "not_yet"
    assert "440 more" in workload.verdict_reasons[0]


def test_a_dataset_is_split_by_time_with_no_query_on_two_sides(company, found, now):
    dataset = curate(company.id, found.id, now=now)
    with acting_for(company.id):
        key = data_key_in_force()
        by_split = {}
        for example in Example.objects.filter(dataset=dataset):
            by_split.setdefault(example.split, []).append((example.at, example.cluster, open_example(example, key)))
    assert set(by_split) == {"train", "tuning", "calibration"}
    newest_train = max(at for at, _, _ in by_split["train"])
    assert newest_train < min(at for at, _, _ in by_split["calibration"])
    clusters = [{cluster for _, cluster, _ in rows} for rows in by_split.values()]
    assert not (clusters[0] & clusters[1] | clusters[0] & clusters[2] | clusters[1] & clusters[2])
    assert dataset.labels == {"other": "other", "parcel": "parcel", "refund": "refund"}
    assert len(dataset.content_hash) == 64


def test_every_pair_left_out_is_counted_with_its_reason(company, found, now):
    later = now + timedelta(days=2)
    log_calls(company.id, 5, now=later, start=1000, finish="length", workload_id=str(found.id))
    log_calls(company.id, 3, now=later, start=2000, status=500, workload_id=str(found.id))
    two_answers = {"pair": lambda n: (query_of(6000)[0], f"answer {n}"), "workload_id": str(found.id)}
    log_calls(company.id, 2, now=later, start=3000, **two_answers)
    dataset = curate(company.id, found.id, now=later)
    assert dataset.left_out["no_whole_answer"] == 3
    assert "contradiction" not in dataset.left_out  # the newest rows are held out, and live traffic has such too


def test_a_workload_learns_from_either_of_the_vendor_s_apis_but_not_from_what_only_the_provider_knows(
    company, found, now
):
    """A conversation kept by the provider may have told the teacher anything, to one who wants it taught wrong."""
    later, mine = now + timedelta(days=2), {"workload_id": str(found.id)}
    log_calls(company.id, 9, now=later, start=1000, asked_with={}, **mine)
    log_calls(company.id, 7, now=later, start=2000, asked_with={"conversation": "conv_1"}, **mine)
    dataset = curate(company.id, found.id, now=later)
    assert dataset.left_out["provider_state"] == 7
    with acting_for(company.id):
        key = data_key_in_force()
        asked = {open_example(example, key)[0] for example in Example.objects.filter(dataset=dataset)}
    assert len({query_of(1000 + n)[0] for n in range(9)} & asked) >= 6, "but for near duplicates"
    assert not {query_of(2000 + n)[0] for n in range(7)} & asked


def test_a_workload_whose_answers_the_provider_keeps_is_told_what_to_change(company, now):
    log_calls(company.id, 60, now=now, asked_with={})
    discover_workloads(company.id, now=now)
    with acting_for(company.id):
        workload = Workload.objects.get()
    assert workload.verdict == "unsuitable" and "`store: false`" in workload.verdict_reasons[0]
    log_calls(company.id, 90, now=now + timedelta(hours=1), start=100, asked_with={"store": False})
    discover_workloads(company.id, now=now + timedelta(hours=2))
    with acting_for(company.id):
        assert Workload.objects.get().verdict == "not_yet"


def test_answers_nobody_could_give_never_train_but_count_where_the_student_is_judged(company, found, now):
    days = [now + timedelta(days=day) for day in range(4)]
    log_calls(company.id, 60, now=days[1], start=1000, workload_id=str(found.id), finish="length")
    log_calls(company.id, 300, now=days[2], start=2000, workload_id=str(found.id))
    log_calls(company.id, 20, now=days[3], start=3000, workload_id=str(found.id), finish="length")
    dataset = curate(company.id, found.id, now=days[3])
    with acting_for(company.id):
        key = data_key_in_force()
        answers = {split: [] for split in ("train", "tuning", "calibration")}
        for example in Example.objects.filter(dataset=dataset):
            answers[example.split].append(open_example(example, key)[1])
    assert "" not in answers["train"] and dataset.left_out["truncated"] == 60
    assert (answers["tuning"] + answers["calibration"]).count("") > 10  # some are near duplicates of training rows


def test_forbidden_pairs_never_enter_a_dataset(company, found, now):
    with acting_for(company.id):
        state_stance(ProviderCredential.objects.get(provider="openai"), stance="forbidden", actor="test", now=now)
    with pytest.raises(UnableToCurate):
        curate(company.id, found.id, now=now)
    with acting_for(company.id):
        assert Example.objects.count() == 0


def test_a_pair_is_under_the_terms_of_the_credential_it_came_in_by(company, found, now):
    """Whatever those of the tenant's other credentials at the same provider say."""
    later = now + timedelta(days=2)
    with acting_for(company.id):
        facts = {"provider": "openai", "base_url": "http://127.0.0.1:9", "actor": "test", "now": now}
        second = store_credential(name="second", secret="sk-second-key", stance="forbidden", **facts)
        third = store_credential(name="third", secret="sk-third-key", stance="allowed", **facts)
    by = {"workload_id": str(found.id), "provider": "openai"}
    forbidden = log_calls(company.id, 40, now=later, start=5000, credential_id=str(second.id), **by)
    allowed = log_calls(company.id, 40, now=later, start=6000, credential_id=str(third.id), **by)
    stood_in = log_calls(company.id, 40, now=later, start=7000, credential_id=str(third.id), failovers=1, **by)
    dataset = curate(company.id, found.id, now=later)
    with acting_for(company.id):
        learnt = dict(Example.objects.filter(dataset=dataset).values_list("call_id", "stance"))
    assert not {UUID(record.id) for record in [*forbidden, *stood_in]} & set(learnt)
    assert {learnt[UUID(record.id)] for record in allowed if UUID(record.id) in learnt} == {"allowed"}
    assert dataset.left_out["terms_forbid"] == 40


def test_calls_whose_content_was_not_drawn_are_no_pairs(company, now, settings):
    settings.MIN_PAIRS = 100
    later = now + timedelta(days=1)
    log_calls(company.id, 80, now=later)
    log_calls(company.id, 80, now=later, start=5000, request_sealed=None, response_sealed=None)
    discover_workloads(company.id, now=later)
    with acting_for(company.id):
        workload = Workload.objects.get()
    assert workload.verdict == "not_yet" and "20 more" in workload.verdict_reasons[0]


def test_no_workload_is_found_in_what_another_model_answered_in_need(company, now):
    log_calls(company.id, 100, now=now, failovers=1, asked_model="backup")
    discover_workloads(company.id, now=now)
    with acting_for(company.id):
        assert not Workload.objects.exists()
    log_calls(company.id, 60, now=now + timedelta(minutes=1), start=5000)
    discover_workloads(company.id, now=now + timedelta(minutes=2))
    with acting_for(company.id):
        assert Workload.objects.get().asked_model == "gpt-4o"


def test_pairs_from_before_a_stance_was_stated_stay_out(company, now, settings):
    settings.MIN_PAIRS = 100
    log_calls(company.id, 150, now=now - timedelta(days=1))
    discover_workloads(company.id, now=now)
    with acting_for(company.id):
        workload = Workload.objects.get()
    with pytest.raises(UnableToCurate) as refusal:
        curate(company.id, workload.id, now=now)
    assert refusal.value.missing == 80


def test_deferred_calls_train_but_never_tune_or_calibrate(company, found, now):
    later = now + timedelta(days=2)
    deferred = log_calls(company.id, 50, now=later, start=5000, arm=Arm.FALLBACK, workload_id=str(found.id))
    dataset = curate(company.id, found.id, now=later)
    with acting_for(company.id):
        ids = [record.id for record in deferred]
        splits = set(Example.objects.filter(dataset=dataset, call_id__in=ids).values_list("split", flat=True))
    assert splits == {"train"}


def test_personal_data_is_masked_in_what_the_weights_see(company, now, settings):
    settings.MIN_PAIRS = 100
    log_calls(
        company.id,
        200,
        now=now + timedelta(days=1),
        pair=lambda n: (f"{query_of(n)[0]}, write to person{n}@mail.example", query_of(n)[1]),
    )
    discover_workloads(company.id, now=now)
    with acting_for(company.id):
        workload = Workload.objects.get()
    dataset = curate(company.id, workload.id, now=now + timedelta(days=1))
    with acting_for(company.id):
        key = data_key_in_force()
        texts = {
            split: [open_example(row, key)[0] for row in Example.objects.filter(dataset=dataset, split=split)]
            for split in ("train", "calibration")
        }
    assert not any("@mail.example" in text for text in texts["train"])
    assert all("@mail.example" in text for text in texts["calibration"])
    assert dataset.redactions >= len(texts["train"])


def test_a_new_version_waits_for_enough_new_pairs(company, found, now):
    assert curation_due(company.id) == [found.id]
    curate(company.id, found.id, now=now + timedelta(days=1))
    assert curation_due(company.id) == []
    log_calls(company.id, 160, now=now + timedelta(days=2), start=9000)
    discover_workloads(company.id, now=now)
    assert curation_due(company.id) == [found.id]
    assert curate(company.id, found.id, now=now + timedelta(days=2)).version == 2


def test_two_curations_at_once_make_one_version(company, found, now, monkeypatch):
    gather, first = ingestion.curate._gather, []

    def gather_late(*arguments):
        monkeypatch.setattr(ingestion.curate, "_gather", gather)
        first.append(curate(company.id, found.id, now=now))
        return gather(*arguments)

    monkeypatch.setattr(ingestion.curate, "_gather", gather_late)
    assert curate(company.id, found.id, now=now).id == first[0].id
    with acting_for(company.id):
        assert Dataset.objects.count() == 1


def test_a_curation_that_could_not_succeed_waits_for_growth_and_says_what_was_left_out(company, now, settings):
    settings.MIN_PAIRS = 200
    log_calls(company.id, 100, now=now + timedelta(days=1))
    discover_workloads(company.id, now=now)
    log_calls(company.id, 200, now=now + timedelta(days=1), start=500, finish="length")
    discover_workloads(company.id, now=now)
    (workload_id,) = curation_due(company.id)
    with pytest.raises(UnableToCurate) as refusal:
        curate(company.id, workload_id, now=now)
    discover_workloads(company.id, now=now)
    assert curation_due(company.id) == []
    with acting_for(company.id):
        assert Workload.objects.get().left_out["truncated"] > 0
    log_calls(company.id, max(30, refusal.value.missing), now=now + timedelta(days=2), start=2000)
    discover_workloads(company.id, now=now)
    assert curation_due(company.id) == [workload_id]
    log_calls(company.id, 200, now=now + timedelta(days=3), start=4000)
    discover_workloads(company.id, now=now)
    curate(company.id, workload_id, now=now)
    with acting_for(company.id):
        assert Workload.objects.get().left_out == {}


def test_no_more_labels_are_learnt_than_a_student_can_hold(company, found, now):
    later = now + timedelta(days=2)
    many = {"pair": lambda n: (query_of(n)[0], f"label {n % (MAX_LABELS + 20)}"), "workload_id": str(found.id)}
    log_calls(company.id, 900, now=later, start=9000, **many)
    dataset = curate(company.id, found.id, now=later)
    assert len(dataset.labels) == MAX_LABELS
    assert {"parcel", "refund", "other"} <= set(dataset.labels)  # the most frequent
    assert dataset.left_out["rare_label"] > 0
    discover_workloads(company.id, now=later)
    with acting_for(company.id):
        assert Workload.objects.get().verdict_reasons == ["More than 200 different labels in its last 1000 calls."]


def test_a_query_or_an_answer_that_is_too_long_to_learn_never_trains(company, found, now):
    later, named = now + timedelta(days=2), {"workload_id": str(found.id)}
    long_query = {"pair": lambda n: (query_of(n)[0] + " x" * LONGEST_QUERY, "parcel")}
    log_calls(company.id, 4, now=later, start=7000, **long_query, **named)
    long_label = {"pair": lambda n: (query_of(n)[0], "parcel " * 20), "arm": Arm.FALLBACK}
    log_calls(company.id, 3, now=later, start=8000, **long_label, **named)
    dataset = curate(company.id, found.id, now=later)
    assert (dataset.left_out["too_long"], dataset.left_out["not_a_label"]) == (4, 3)
    assert dataset.max_query_chars <= LONGEST_QUERY


def test_answers_of_too_many_fields_are_as_good_as_free_text_and_never_curated(company, now, settings):
    settings.MIN_PAIRS = 200
    log_calls(company.id, 360, now=now + timedelta(days=1), pair=lambda n: (query_of(n)[0], f'{{"field {n}": {n}}}'))
    discover_workloads(company.id, now=now)
    with acting_for(company.id):
        workload = Workload.objects.get()
    assert (workload.kind, workload.verdict) == ("json", "unsuitable")
    assert workload.verdict_reasons == ["Answers are as good as free text: it has over 200 fields."]
    assert curation_due(company.id) == []
    with pytest.raises(UnableToCurate):
        curate(company.id, workload.id, now=now)
    with acting_for(company.id):
        assert Workload.objects.get().left_out["answers_too_varied"] > 0


def test_traffic_that_copies_a_model_at_large_is_refused_with_a_reason(company, now, settings):
    settings.MIN_PAIRS = 200
    asks = ("explain your reasoning about", "rephrase in other words", "give variations of")
    sweep = {"pair": lambda n: (f"{asks[n % 3]} {hex((n + 7) ** 9)[2:]}, {query_of(n)[0]}", LABELS[n % 3])}
    log_calls(company.id, 1100, now=now, key_id=str(company.key.id), **sweep)
    discover_workloads(company.id, now=now)
    with acting_for(company.id):
        workload = Workload.objects.get()
    assert workload.verdict == "unsuitable"
    assert "copying a model at large (non-repeating, from fresh accounts, engineered)" in workload.verdict_reasons[0]
    assert curation_due(company.id) == []


def test_no_more_bodies_are_in_memory_together_than_the_bound(company, now):
    log_calls(company.id, 10, now=now)
    with acting_for(company.id):
        calls = list(Call.objects.order_by("at"))
        size = max(len(row.request_sealed) + len(row.response_sealed) for row in Payload.objects.all())
        batches = list(in_batches(calls, most_bytes=3 * size))
        assert [call for batch in batches for call in batch] == calls
        assert {len(batch) for batch in batches} == {1, 3}
        assert [len(batch) for batch in in_batches(calls, most_bytes=1)] == [1] * 10
        assert len(list(readable_pairs(calls, data_key_in_force()))) == 10


def test_a_rival_cannot_curate_or_read_the_company_s_workload(rival, company, found, now):
    with pytest.raises(Workload.DoesNotExist):
        curate(rival.id, found.id, now=now)
    curate(company.id, found.id, now=now)
    with acting_for(rival.id):
        assert Workload.objects.count() == Dataset.objects.count() == Example.objects.count() == 0
