# Sluicegate. `make help` lists the targets; everything they need is set up on the way.
.DEFAULT_GOAL := help
.PHONY: help run test test-cloud check lint unit story bench chaos bench-peers format clean
MAKEFLAGS += --no-print-directory

# The first Python >= 3.11 on PATH (TensorFlow has wheels for 3.11 to 3.13).
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
PY := .venv/bin/python
# The unit tests of what setup.py compiles, run again on the installed package.
COMPILED_TESTS := tests/admission tests/http tests/upstreams tests/limits tests/breakers tests/balance tests/store tests/retries \
  tests/telemetry tests/identity tests/routing tests/test_pipeline.py tests/test_pipeline_admission.py
# What `make bench` and `make chaos` run, in this order: loadtests/README.md says what each answers.
BENCHES := routing breakers proxy large stages workers latency idle slow limits balance overload hedge serving oip batching lifecycle lazy unload
CHAOS := breaker store recovery
setup = @test -n "$(PYTHON)" || { echo "setup: Python 3.11, 3.12 or 3.13 is needed on PATH" >&2; exit 1; }; $(PYTHON) scripts/bootstrap.py

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

run: ## Set up, build, train and start the whole demo on 127.0.0.1:8080
	$(setup) build models
	@exec $(PY) -m demo

test: ## Set up, build and run every test (checks, Go, unit, integration, the story)
	$(setup) models dev
	@$(MAKE) -j3 compiled lint unit
	@$(PY) -m demo.prepare
	@$(PY) -m backends.build --test -race
	-@$(PY) -m loadtests.bench_peers nginx
	@$(PY) -P -m pytest --import-mode=importlib -n 3 $(COMPILED_TESTS)
	@$(PY) -m pytest -n 3 --dist loadfile tests/integration --ignore=tests/integration/test_story.py
	@$(PY) -m pytest tests/integration/test_story.py

test-cloud: ## Build go_infer with buckets and test it against S3 and Google Cloud Storage servers (fetches both: 3 min)
	$(setup) build models dev
	@$(PY) -m backends.models.digits
	@$(PY) -m backends.build --cloud --out build/bin/go_infer-cloud
	@$(PY) -m backends.build --cloud --test ./internal/remote/...
	@SLUICEGATE_CLOUD_REQUIRED=1 $(PY) -m pytest tests/integration/test_bucket_repositories.py

# One core compiles while the other tests: `check` does without what is compiled.
compiled:
	$(setup) build models dev

check: ## Format, lint, types, import rules and the unit tests that are not long, in under a minute
	$(setup) models dev
	@$(MAKE) -j2 lint unit ONLY='-m "not long"'

# What has nothing to complain about says nothing: the tests run beside it and write to the same terminal.
lint: ## Format, lint, types and import rules
	@$(PY) -m ruff format --check --quiet . && $(PY) -m ruff check --quiet .
	@said=$$($(PY) -m mypy 2>&1 && .venv/bin/lint-imports 2>&1) || { echo "$$said"; exit 1; }

unit: ## The unit tests alone
	@$(PY) -m pytest -n 3 tests --ignore=tests/integration $(ONLY)

format: ## Format the code
	$(setup) models dev
	@$(PY) -m ruff format . && $(PY) -m ruff check --fix .

story: ## Break the running chain on purpose, ten times, and watch it recover
	$(setup) build models dev bench
	@$(PY) -m demo.prepare
	@$(PY) -m demo.story

bench: ## What it costs, how long it takes and what it is worth, beside nginx, HAProxy, Envoy, Caddy, Go, Flask, FastAPI and gRPC
	$(setup) build models dev bench
	@$(PY) -m demo.prepare
	@for each in $(BENCHES); do $(PY) -m loadtests.bench_$$each || exit; done

chaos: ## Break backends and the store in every way under load, and hold the gateway to what it promises then
	$(setup) build models dev bench
	@$(PY) -m demo.prepare
	@for each in $(CHAOS); do $(PY) -m loadtests.chaos_$$each || exit; done

bench-peers: ## Install the peers that `make bench` compares with
	$(setup) build models dev bench
	@$(PY) -m loadtests.bench_peers

clean: ## Remove everything that was built (not the virtual environment)
	rm -rf build
