"""Holds what the production file promises: who reaches whom, who is given which secret, and that nobody is root."""

import pytest
import yaml

from tests.architecture.source import ROOT

FILE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
SERVICES = FILE["services"]
RUNNING = {name: service for name, service in SERVICES.items() if name != "migrate"}


def on(network: str) -> set[str]:
    return {name for name, service in SERVICES.items() if network in service["networks"]}


def secrets_of(name: str) -> set[str]:
    return set(SERVICES[name].get("env_file", []))


def test_the_engine_and_the_encoder_are_reached_by_those_who_ask_a_student_alone():
    assert on("models") == {"vllm", "encoder", "gateway", "worker", "evaluator", "auditor"}
    assert FILE["networks"]["models"]["internal"]
    for name in ("vllm", "encoder"):
        assert SERVICES[name]["networks"] == ["models"]
        assert "ports" not in SERVICES[name]


def test_the_database_is_not_on_a_network_with_the_gateway_or_the_world():
    assert SERVICES["postgres"]["networks"] == SERVICES["valkey"]["networks"] == ["data"]
    assert FILE["networks"]["data"]["internal"]
    assert not {"gateway", "vllm", "encoder"} & on("data")


def test_what_counts_limits_is_reached_by_gateway_and_worker_alone_and_is_not_the_broker():
    assert on("counters") == {"counters", "gateway", "worker"}
    assert SERVICES["counters"]["networks"] == ["counters"] and FILE["networks"]["counters"]["internal"]
    assert secrets_of("counters") == {"env/counters.env"} != secrets_of("valkey")


def test_the_engine_is_given_no_secret_and_the_gateway_only_its_own():
    assert secrets_of("vllm") == secrets_of("encoder") == set()
    assert secrets_of("gateway") == {"env/gateway.env"}
    assert {name for name in SERVICES if "env/migrate.env" in secrets_of(name)} == {"migrate"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_process_is_confined(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert not service["user"].startswith("0")
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"], "one process that grows would take the machine with it"


@pytest.mark.parametrize("name", RUNNING)
def test_every_process_that_runs_says_how_it_does(name):
    assert RUNNING[name]["healthcheck"]["test"]


def test_only_web_and_gateway_are_published_and_only_to_this_machine():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"web", "gateway"}
    assert all(":-127.0.0.1:" in port for ports in published.values() for port in ports)


def test_no_secret_is_written_into_the_file():
    for name, service in SERVICES.items():
        for variable in service.get("environment", {}):
            assert not any(word in variable for word in ("SECRET", "PASSWORD", "API_KEY", "DATABASE_URL")), name


def test_both_images_are_built_for_a_user_that_is_not_root():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "\nUSER 10001:10001\n" in text
    assert text.index("USER 10001") < text.index("FROM bare AS app") < text.index("FROM bare AS student")
