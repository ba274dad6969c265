# Two commands on a fresh machine: `make run` and `make test`. Nothing but Python 3.11 to 3.13 and make is needed.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: run test test-cluster soak coverage check bench bench-quality lock clean

run: .venv/ready
	$(BIN)/python -m search.run --space finetune

# A browser, and what mounts a folder in another mode, are installed where that can be done; else their tests are left out.
test: .venv/ready
	@for program in chromium bindfs; do command -v $$program > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && \
		apt-get install --yes --quiet --no-install-recommends $$program; } || echo "no $$program: tests that need it are left out"; done
	$(BIN)/python -m pytest -m "not soak and not cluster" --numprocesses 2 --dist loadfile --no-loadscope-reorder

# A cluster launched by cluster.yaml on machines that are namespaces of this one, as root; searches in object storage.
test-cluster: .venv/ready
	@for program in sshd rsync ip tmux curl; do command -v $$program > /dev/null || \
		{ apt-get install --yes --quiet --no-install-recommends openssh-server rsync iproute2 tmux curl; break; }; done
	$(BIN)/python -m pytest -m cluster

# What takes long: a search whose processes are killed 15 times at random moments, the larger networks.
soak: .venv/ready
	$(BIN)/python -m pytest -m soak -s

# Of what runs in the tests' own process; what Ray's processes run is not seen.
coverage: .venv/ready
	$(BIN)/python -m pytest --numprocesses 2 --cov search --cov-report term:skip-covered --quiet

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/deptry search spaces

# What the same work takes here and with other tools, e.g. make bench BENCH="--workload search --rounds 5"
bench: .venv/bench
	$(BIN)/python -m benchmarks.speed $(BENCH)

# What searches find on recorded learning curves, e.g. make bench-quality BENCH="digits-few --seeds 100"
bench-quality: .venv/quality
	$(BIN)/python -m benchmarks.quality.compare $(BENCH)

.venv/bench .venv/quality: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		--constraint requirements.lock --editable '.[$(@F)]'
	touch $@

# TensorFlow's CUDA libraries, for machines with an NVIDIA driver.
.venv/gpu: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		--constraint requirements.lock --editable '.[gpu]'
	touch $@

.venv/ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: install one, or name it with make PYTHON=..."; exit 2; }
	@echo "installing the locked dependencies into .venv, once: this takes some minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Exact versions of everything, for every supported Python, from the ranges in pyproject.toml.
lock: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --universal --no-emit-index-url --no-annotate --no-header --python-version 3.11 \
		--extra test --extra dashboard --extra jobs pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv
