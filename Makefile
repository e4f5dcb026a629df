# `make` alone prints this help.
SITE ?= $(or $(shell basename "$$(readlink .env)" .env),local)
# containers where a Docker engine answers, else embedded; STACK=swarm runs on a manager of a swarm.
STACK ?= $(shell docker/which-stack)
BENCH ?= tasks
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help up join rollback down logs status doctor shell site passwords certs rotate shipper backup restore mail app unit test drill conformance lint words lock bench audit sbom

##@ Run (SITE=name picks a site; else the one started last, or local)
help: ## This help
	@awk 'BEGIN {FS = ":.*## "} \
	    /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	    /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

include docker/$(STACK).mk

up: ## Start the site: containers with a Docker engine, the embedded stack without one
join: ## Print what another host of a swarm runs (STACK=swarm)
rollback: ## Go back to the version that ran before the last make up
down: ## Stop the site; its data stays
status: ## What is wrong: containers, and the headline of the board
doctor: ## Check everything, the worst first, each with what to do; JSON=1 for a monitor
logs: ## Follow the logs (S=service for one service), or show those SINCE=30m
shell: ## A Python shell in the web container, with Django ready
site: ## Create the site SITE: its env file, secrets and certificates
passwords: ## Show the passwords that were generated for the site
certs: ## Renew the certificates that are near their end, without a restart
rotate: ## Replace every secret and certificate of the running site; KEEP_OLD_CA=1 for shippers
shipper: ## Make a shipper's folder: NAME=host KIND=logstash|syslog-ng|amqplib|other; REVOKE=1 ends it
backup: ## Write the site's files and a dump of its database into one archive; TO=folder
restore: ## Make the site SITE of a backup, up to its database: FROM=archive
mail: ## Show the mail that the site's catcher holds

##@ Develop
VENV = .venv
$(VENV)/ready: app/requirements.txt tests/requirements.txt
	@echo "== installing what the tests need into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install -q --disable-pip-version-check --require-hashes -r app/requirements.txt -r tests/requirements.txt
	@# Compiled, so not everywhere: without it the tests of directory probes are skipped.
	-@$(VENV)/bin/pip install -q --disable-pip-version-check --require-hashes -r docker/app/build-requirements.txt \
	    && $(VENV)/bin/pip install -q --disable-pip-version-check --no-build-isolation --require-hashes -r tests/ldap-requirements.txt
	@touch $@

unit: $(VENV)/ready ## Run the unit tests: neither containers nor a browser, about a minute
	@$(VENV)/bin/pytest --numprocesses auto tests/unit

# Tests of sites wait for them most of the time, so that two cores have work left for a third.
PROCESSES = $(shell cores=$$(nproc); echo $$((cores > 3 ? cores : 3)))
test: lint ## Run every test that this machine can run; TESTS=path takes some, REQUIRE=all skips none
	@$(VENV)/bin/pytest --numprocesses $(PROCESSES) $(TESTS)

app: $(VENV)/ready ## Make a new application that passes every test: NAME=demo
	@$(VENV)/bin/python tests/skeleton/new.py "$(NAME)"

drill: $(VENV)/ready ## Break a running site for minutes, and count what was lost: events, mail, rotation
	@$(VENV)/bin/pytest -m drill $(TESTS)

conformance: $(VENV)/ready ## Judge the certificates of public test suites beside openssl; needs a package registry
	@PYTHONPATH=app:tests $(VENV)/bin/python tests/conformance/certificates.py

SHELL_SCRIPTS = $(shell git grep -lE '^\#(!.*sh| shellcheck shell=sh)$$')
# Of CSS and JavaScript only where npm has installed it: `npm ci --prefix tests/lint`, which also
# brings axe-core to the tests in a browser.
BIOME = tests/lint/node_modules/.bin/biome
lint: $(VENV)/ready ## Check style, types, shell scripts, templates, CSS and JavaScript
	@$(VENV)/bin/ruff check app tests docker
	@$(VENV)/bin/ruff format --check app tests docker
	@$(VENV)/bin/shellcheck --external-sources $(SHELL_SCRIPTS)
	@$(VENV)/bin/djlint app --lint --quiet
	@[ ! -x $(BIOME) ] || $(BIOME) lint --config-path=tests/lint --error-on-warnings app tests/stack/oidc/provider.mjs
	@PYTHONPATH=app $(VENV)/bin/python tests/typecheck.py

words: $(VENV)/ready ## Take what was repaired out of the list of retired words
	@PYTHONPATH=app:tests $(VENV)/bin/python tests/unit/test_words.py

audit: $(VENV)/ready ## Look for insecure code, and for known holes in what the locks name
	@$(VENV)/bin/bandit -q -c pyproject.toml -r app docker
	@$(VENV)/bin/python docker/audit.py app/requirements.txt docker/app/requirements.txt

sbom: $(VENV)/ready ## List what is in the site's image (CycloneDX): var/sbom.cdx.json
	@mkdir -p var
	@$(VENV)/bin/python docker/sbom.py "$$(sed -n 's/^APP_IMAGE=//p' env/$(SITE).env)" var/sbom.cdx.json

bench: $(VENV)/ready ## Run a benchmark: BENCH=tasks|...
	@PYTHONPATH=app:tests $(VENV)/bin/python tests/bench/$(BENCH).py

lock: ## Bring the requirement locks up to date (needs uv)
	@for lock in app docker/app tests; do (cd $$lock && for list in *requirements.in; do \
	    uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade \
	        --no-header --no-annotate --no-emit-index-url $$list -o $${list%.in}.txt; done); done
