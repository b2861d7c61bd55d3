# Everything a person runs. `make` alone says what there is.
PYTHON ?= python3.11
PY := .venv/bin/python
ARGS ?=
ENGINE := tests/serving/engine  # apart: to import vLLM takes half a minute, and each of three would
FAST := -m "not engine" --ignore=$(ENGINE) -n 3 --dist worksteal
COUNTED := --cov --cov-report=
NATIVE := .state/native
unexport PYTHONDONTWRITEBYTECODE  # where it is set, each of a hundred processes compiles its packages anew

.PHONY: help install demo up test native cover covered sure bench bench-gateway chaos replay lock

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 16

install: ## make .venv from the lock file
	@$(PYTHON) deploy/install.py

demo: install ## watch the whole product work; EXIT=1 stops at the end, FULL=1 trains all four workloads
	@$(PY) -m demo $(if $(EXIT),--exit) $(if $(FULL),--full)

up: install ## start every process on this machine
	@$(PY) manage.py up

test: install ## all tests, on real PostgreSQL, Valkey, Celery, HTTP and vLLM; ARGS="-k ramp" for some of them
	@$(PY) -m pytest $(or $(ARGS),$(FAST) $(if $(CI),$(COUNTED)))
	@$(if $(ARGS),,$(PY) -m pytest $(ENGINE) $(if $(CI),$(COUNTED) --cov-append))
	@$(if $(ARGS),,$(PY) -m pytest -m engine tests/journeys)
	@$(if $(ARGS),,$(if $(CI),$(MAKE) --no-print-directory covered))

native: install ## the gateway's tests once more, on a copy whose hot path is compiled, as it is in the image
	@$(PY) deploy/compile.py $(NATIVE)
	@cd $(NATIVE) && PYTHONPATH=. $(CURDIR)/$(PY) -m pytest tests/serving/gateway -n 3 --dist worksteal -p no:cacheprovider

cover: install ## branch coverage: 85 % of everything, 95 % of every core; CI holds both
	@$(PY) -m pytest $(FAST) $(COUNTED)
	@$(PY) -m pytest $(ENGINE) $(COUNTED) --cov-append
	@$(MAKE) --no-print-directory covered

covered:
	@rm -f .coverage.*  # what processes that were killed had begun to write
	@$(PY) -m coverage report
	@for core in */core; do \
	  $(PY) -m coverage report --include="$$core/*" --fail-under=95 >/dev/null || { echo "$$core: below 95 %"; exit 1; }; done

sure: install ## what CI runs besides the tests: format, lint, types, layers, migrations, deploy check, audit
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy .
	@.venv/bin/lint-imports
	@$(PY) manage.py makemigrations --check --dry-run
	@PRODUCTION=1 SECRET_KEY=$$($(PY) -c 'import secrets; print(secrets.token_urlsafe(64))') $(PY) manage.py check --deploy --fail-level WARNING
	@$(PY) deploy/audit.py

replay: install ## FILE=… ARGS="--alpha 0.05 --delta 0.1 --student head"
	@$(PY) manage.py replay $(FILE) $(ARGS)

bench: install ## speed and memory, measured side by side
	@$(PY) deploy/compile.py $(NATIVE)
	@$(PY) -m bench.gateway --tree $(NATIVE)
	@$(PY) -m bench.engine

bench-gateway: install ## ours, LiteLLM, Portkey and a Rust router side by side; sets them up the first time
	@$(PY) deploy/compile.py $(NATIVE)
	@$(PY) -m bench.peers --tree $(NATIVE) $(ARGS)

chaos: install ## kill PostgreSQL, gateway and Valkey under load; 0 if no call was lost or doubled
	@$(PY) -m bench.chaos

lock: install ## resolve pyproject.toml into requirements.lock again
	@$(PY) deploy/lock.py
