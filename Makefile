# make run        start a broker, the consumer service and a publisher, and watch the messages
#                 TXMSG_URL=amqp://... make run: on that broker;  make run KEEP=1: until Ctrl-C
# make test       everything: lint, types, all tests on four reactors, coverage
# make test-long  the tests that take minutes, and many more examples for the property tests
# make lab        one fault after the other, and what is lost; LONG=1: all of them; FAULT=F4 or FAULT=F4:SIM: some
# make bench      txmsg beside the other clients, on one RabbitMQ
#
# Everything happens in .venv; `make clean` removes it.

# The first Python that is new enough.
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
INSTALLED_LONG := $(VENV)/installed-long
CHECKED := txmsg twisted tests scripts examples benchmarks

.PHONY: run test test-quick test-long lab bench lint typecheck docs rabbitmq clean

run: $(INSTALLED)
	$(BIN)/python scripts/run_demo.py

# The test runs come last, so that the last line says how many passed and how many failed.
test: lint typecheck docs rabbitmq
	$(BIN)/python scripts/run_tests.py

# One run on the default reactor, without coverage.
test-quick: $(INSTALLED)
	$(BIN)/python -m pytest

test-long: $(INSTALLED_LONG) rabbitmq
	TXMSG_HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest --run-long --timeout=3600

lab: $(INSTALLED) rabbitmq
	$(BIN)/python -m tests.lab $(if $(LONG),--long) $(FAULT)

bench: $(INSTALLED) rabbitmq
	$(BIN)/python -m benchmarks

lint: $(INSTALLED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)

typecheck: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python scripts/check_docs.py

# Without RabbitMQ the tests that need it are skipped, and say so.
rabbitmq:
	@scripts/install_rabbitmq.sh || echo "the tests against RabbitMQ will be skipped"

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "txmsg needs Python 3.11 or later; name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# What only the long tests need: fedora-messaging, to run on txmsg.compat.pika.
$(INSTALLED_LONG): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,compat-test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov
