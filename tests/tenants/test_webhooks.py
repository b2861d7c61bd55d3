"""Holds webhooks from the event to a real receiver: once each, signed, retried, given up, and never a rival's."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from config.celery import app
from tenants.events import record_event
from tenants.models import Event, WebhookDelivery, WebhookEndpoint
from tenants.scope import acting_for
from tenants.tasks import deliver_due, deliver_to, fan_out_due
from tenants.webhook_client import UnableToUseUrl
from tenants.webhooks import (
    DRAIN_FOR,
    ENDPOINTS_PER_TENANT,
    FAILURES_PER_DRAIN,
    MOST_ENDPOINTS,
    RETRY_AFTER,
    create_endpoint,
    deliver,
    disable_endpoint,
    drain,
    enable_endpoint,
    endpoints_due,
    fan_out,
)
from tests.fakes.receiver import Receiver, listening_at
from tests.fakes.serve import free_port, wait_for

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def private_addresses_allowed(settings):
    settings.WEBHOOK_ALLOW_PRIVATE = True


@pytest.fixture
def clock() -> datetime:
    """Real time: a standard receiver refuses a timestamp that is five minutes off."""
    return datetime.now(UTC).replace(microsecond=0)


def add(company, url, *, now, kinds=()):
    with acting_for(company.id):
        return create_endpoint(url, kinds=kinds, actor="test", now=now)


def happen(company, kind, *, now, **data):
    with acting_for(company.id):
        return record_event(kind, now=now, subject_id="s-1", **data)


def send_all(now) -> int:
    fan_out(now)
    return sum(drain(tenant, endpoint, clock=lambda: now) for tenant, endpoint in endpoints_due(now))


def only_delivery(company):
    with acting_for(company.id):
        return WebhookDelivery.objects.get().id


def kinds_sent(receiver) -> list[str]:
    return sorted(json.loads(message.body)["type"] for message in receiver.messages)


def states(company):
    with acting_for(company.id):
        return list(WebhookDelivery.objects.order_by("event__at").values_list("status", flat=True))


def only_endpoint(company):
    with acting_for(company.id):
        return WebhookEndpoint.objects.get()


def test_an_event_is_delivered_once_with_a_signature_a_standard_receiver_accepts(company, clock):
    receiver = Receiver()
    with listening_at(receiver) as url:
        _, secret = add(company, f"{url}/hooks", now=clock, kinds=["rollout.advanced"])
        event = happen(company, "rollout.advanced", now=clock, share=0.25)
        assert (send_all(clock), send_all(clock), send_all(clock + DAY)) == (1, 0, 0)
    (message,) = receiver.messages
    body = Webhook(secret).verify(message.body, message.headers)
    assert message.path == "/hooks"
    assert message.headers["webhook-id"] == str(event.id)
    assert body == {
        "type": "rollout.advanced",
        "timestamp": clock.isoformat(),
        "data": {"share": 0.25, "id": "s-1"},
    }
    assert states(company) == ["delivered"]


def test_the_secret_is_shown_once_and_stored_sealed(company, clock):
    endpoint, secret = add(company, "https://hooks.example", now=clock)
    assert secret.startswith("whsec_")
    with acting_for(company.id):
        row = WebhookEndpoint.objects.get(id=endpoint.id)
        assert secret.encode() not in bytes(row.secret_sealed)
        assert secret not in json.dumps(list(Event.objects.values_list("data", flat=True)))


def test_a_failing_receiver_is_tried_again_with_the_same_id_until_it_takes_the_message(company, clock):
    receiver = Receiver(statuses=[500, 503, 200])
    with listening_at(receiver) as url:
        add(company, url, now=clock, kinds=["run.failed"])
        happen(company, "run.failed", now=clock)
        assert send_all(clock) == 1
        assert send_all(clock) == 0  # not before its time
        assert send_all(clock + RETRY_AFTER[0]) == 1
        assert send_all(clock + RETRY_AFTER[0] + RETRY_AFTER[1]) == 1
    assert len(receiver.messages) == 3
    assert len({message.headers["webhook-id"] for message in receiver.messages}) == 1
    assert states(company) == ["delivered"]
    assert only_endpoint(company).straight_failures == 0


def test_a_delivery_nobody_takes_is_given_up_after_about_a_day(company, clock):
    add(company, f"http://127.0.0.1:{free_port()}", now=clock, kinds=["run.failed"])
    happen(company, "run.failed", now=clock)
    at, tries = clock, send_all(clock)
    for pause in RETRY_AFTER:
        at += pause
        tries += send_all(at)
    assert tries == len(RETRY_AFTER) + 1
    assert states(company) == ["exhausted"]
    assert timedelta(hours=12) < at - clock < timedelta(days=2)


def test_an_endpoint_that_only_fails_is_disabled_with_an_event(company, clock):
    add(company, f"http://127.0.0.1:{free_port()}", now=clock, kinds=["run.failed"])
    for _ in range(4):
        happen(company, "run.failed", now=clock)
    at = clock
    send_all(at)
    for pause in RETRY_AFTER:
        at += pause
        send_all(at)
    assert only_endpoint(company).disabled_at is not None
    with acting_for(company.id):
        (event,) = Event.objects.filter(kind="endpoint.disabled")
    assert event.data["reason"] == "straight_failures"
    assert set(states(company)) == {"exhausted"}
    assert endpoints_due(at + DAY) == []


def test_many_events_during_a_short_outage_disable_nothing(company, clock):
    receiver = Receiver(statuses=[500] * 20 + [200])
    with listening_at(receiver) as url:
        add(company, url, now=clock, kinds=["run.failed"])
        for _ in range(20):
            happen(company, "run.failed", now=clock)
        at = clock
        for _ in range(20):
            send_all(at)
            at += RETRY_AFTER[0]
    assert only_endpoint(company).disabled_at is None
    assert states(company) == ["delivered"] * 20


def test_a_receiver_that_says_gone_is_not_asked_again(company, clock):
    with listening_at(Receiver(statuses=[410])) as url:
        add(company, url, now=clock, kinds=["run.failed"])
        happen(company, "run.failed", now=clock)
        send_all(clock)
    with acting_for(company.id):
        assert Event.objects.get(kind="endpoint.disabled").data["reason"] == "gone"


def test_a_disabled_endpoint_gets_nothing_and_an_enabled_one_what_happens_from_then_on(company, clock):
    receiver = Receiver()
    with listening_at(receiver) as url:
        endpoint, _ = add(company, url, now=clock, kinds=["run.failed", "run.succeeded"])
        with acting_for(company.id):
            assert disable_endpoint(endpoint, actor="test", now=clock)
            assert not disable_endpoint(endpoint, actor="test", now=clock)
        happen(company, "run.failed", now=clock)
        send_all(clock)
        with acting_for(company.id):
            assert enable_endpoint(endpoint, actor="test", now=clock)
            assert not enable_endpoint(endpoint, actor="test", now=clock)
        happen(company, "run.succeeded", now=clock)
        send_all(clock)
    assert kinds_sent(receiver) == ["run.succeeded"]


def test_an_endpoint_gets_the_kinds_it_asked_for_and_nothing_from_before_it_was_there(company, clock):
    happen(company, "run.failed", now=clock - DAY)
    receiver, everything = Receiver(), Receiver()
    with listening_at(receiver) as narrow, listening_at(everything) as wide:
        add(company, narrow, now=clock, kinds=["run.failed"])
        add(company, wide, now=clock + timedelta(seconds=1))
        for kind in ("run.failed", "run.succeeded"):
            happen(company, kind, now=clock + timedelta(seconds=2))
        send_all(clock + timedelta(seconds=3))
    assert kinds_sent(receiver) == ["run.failed"]
    assert kinds_sent(everything) == ["endpoint.created", "run.failed", "run.succeeded"]


def test_fanning_out_twice_makes_no_second_delivery(company, clock):
    add(company, "https://hooks.example", now=clock, kinds=["run.failed"])
    happen(company, "run.failed", now=clock)
    assert fan_out(clock) == 1
    assert fan_out(clock) == 0
    assert states(company) == ["due"]


def test_a_delivery_in_one_workers_hands_is_not_sent_by_another(company, clock):
    receiver = Receiver()
    with listening_at(receiver) as url:
        add(company, url, now=clock, kinds=["run.failed"])
        happen(company, "run.failed", now=clock)
        fan_out(clock)
        delivery = only_delivery(company)
        with acting_for(company.id):
            WebhookDelivery.objects.filter(id=delivery).update(claimed_until=clock + timedelta(seconds=30))
        assert endpoints_due(clock) == []
        assert deliver(company.id, delivery, now=clock) is None
        assert receiver.messages == []
        assert deliver(company.id, delivery, now=clock + timedelta(minutes=2)).accepted  # that worker died


def test_a_dead_endpoint_is_tried_a_few_times_and_a_healthy_one_gets_all_in_order(company, rival, clock):
    receiver = Receiver()
    with listening_at(receiver) as url:
        add(company, f"http://127.0.0.1:{free_port()}", now=clock, kinds=["run.failed"])
        add(rival, url, now=clock, kinds=["run.failed"])
        for number in range(120):
            happen(company, "run.failed", now=clock)
            happen(rival, "run.failed", now=clock + timedelta(microseconds=number), number=number)
        fan_out(clock)
        turns = endpoints_due(clock)
        tries = {tenant: drain(tenant, endpoint, clock=lambda: clock) for tenant, endpoint in turns}
    assert tries == {company.id: FAILURES_PER_DRAIN, rival.id: 120}
    assert [json.loads(message.body)["data"]["number"] for message in receiver.messages] == list(range(120))


def test_a_look_at_an_endpoint_ends_when_its_time_is_up(company, clock):
    with listening_at(Receiver()) as url:
        endpoint, _ = add(company, url, now=clock, kinds=["run.failed"])
        for _ in range(5):
            happen(company, "run.failed", now=clock)
        fan_out(clock)
        times = iter([clock, clock, clock + DRAIN_FOR / 2, clock + DRAIN_FOR])
        assert drain(company.id, endpoint.id, clock=lambda: next(times)) == 2
    assert sorted(states(company)) == ["delivered"] * 2 + ["due"] * 3


def test_a_tenant_with_many_endpoints_does_not_keep_another_waiting(company, rival, clock):
    for number in range(ENDPOINTS_PER_TENANT + 3):
        add(company, f"https://hooks.example/{number}", now=clock, kinds=["run.failed"])
    add(rival, "https://hooks.example", now=clock, kinds=["run.failed"])
    happen(company, "run.failed", now=clock)
    fan_out(clock)
    happen(rival, "run.failed", now=clock)
    fan_out(clock + timedelta(seconds=1))
    turns = [tenant for tenant, _ in endpoints_due(clock + timedelta(seconds=1))]
    assert turns.count(company.id) == ENDPOINTS_PER_TENANT
    assert turns.index(rival.id) <= 1


def test_a_rival_is_told_nothing_and_sees_nothing(company, rival, clock):
    ours, theirs = Receiver(), Receiver()
    with listening_at(ours) as our_url, listening_at(theirs) as their_url:
        endpoint, _ = add(company, our_url, now=clock, kinds=["run.failed"])
        add(rival, their_url, now=clock, kinds=["run.failed"])
        happen(company, "run.failed", now=clock)
        fan_out(clock)
        assert deliver(rival.id, only_delivery(company), now=clock) is None
        assert drain(rival.id, endpoint.id, clock=lambda: clock) == 0
        send_all(clock)
    assert (len(ours.messages), len(theirs.messages)) == (1, 0)
    with acting_for(rival.id):
        assert WebhookDelivery.objects.count() == 0
        assert not disable_endpoint(endpoint, actor="rival", now=clock)
    assert only_endpoint(company).disabled_at is None


def test_an_address_of_our_own_network_is_refused_when_sending(company, clock, settings):
    receiver = Receiver()
    with listening_at(receiver) as url:
        add(company, url, now=clock, kinds=["run.failed"])
        settings.WEBHOOK_ALLOW_PRIVATE = False
        happen(company, "run.failed", now=clock)
        fan_out(clock)
        assert deliver(company.id, only_delivery(company), now=clock).fault == "blocked"
    assert receiver.messages == []


def test_a_plain_http_endpoint_is_refused_in_production(company, clock, settings):
    settings.WEBHOOK_ALLOW_PRIVATE = False
    with pytest.raises(UnableToUseUrl):
        add(company, "http://hooks.example", now=clock)


def test_nothing_is_sent_for_an_event_whose_transaction_failed(company, clock):
    receiver = Receiver()
    with listening_at(receiver) as url:
        add(company, url, now=clock, kinds=["run.failed"])
        with pytest.raises(ZeroDivisionError), acting_for(company.id):
            record_event("run.failed", now=clock)
            raise ZeroDivisionError
        send_all(clock)
    assert receiver.messages == []


def test_the_tasks_carry_an_event_from_the_log_to_the_receiver(company, clock, settings):
    receiver = Receiver()
    app.conf.task_always_eager = True
    try:
        with listening_at(receiver) as url:
            add(company, url, now=clock, kinds=["run.failed"])
            happen(company, "run.failed", now=clock + timedelta(seconds=1))
            fan_out_due(unknown="argument")
            deliver_due(unknown="argument")
            wait_for(lambda: receiver.messages)
            endpoint_id = str(only_endpoint(company).id)
            deliver_to(tenant_id=str(company.id), endpoint_id=endpoint_id, unknown="argument")
    finally:
        app.conf.task_always_eager = False
    assert len(receiver.messages) == 1


def test_a_tenant_has_twenty_live_endpoints_at_most(company, rival, clock):
    with acting_for(company.id):
        for number in range(MOST_ENDPOINTS):
            create_endpoint(f"https://hooks.example/{number}", kinds=[], actor="test", now=clock)
        with pytest.raises(UnableToUseUrl, match="switch one off"):
            create_endpoint("https://hooks.example/more", kinds=[], actor="test", now=clock)
        swapped = WebhookEndpoint.objects.first()
        disable_endpoint(swapped, actor="test", now=clock)
        create_endpoint("https://hooks.example/more", kinds=[], actor="test", now=clock)
        with pytest.raises(UnableToUseUrl, match="switch one off"):
            enable_endpoint(swapped, actor="test", now=clock)
        live = WebhookEndpoint.objects.filter(disabled_at=None).first()
        assert not enable_endpoint(live, actor="test", now=clock), "what it already is, it stays"
    with acting_for(rival.id):
        assert create_endpoint("https://hooks.example/theirs", kinds=[], actor="test", now=clock)
